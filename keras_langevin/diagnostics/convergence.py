"""Effective sample size and R-hat, by TensorFlow Probability on any backend."""

import numpy as np

from keras_langevin.arguments import LARGEST, boolean, one_of, real_array
from keras_langevin.autodiff import without_tensorflow_warnings

KINDS = ("mean", "bulk", "tail")
TAILS = (0.05, 0.95)


def effective_sample_size(draws, kind="mean") -> np.ndarray:
    """How many independent draws the chains are worth, for every quantity.

    n / (1 + 2 Σ (1 − t/n) ρ_t) with the sum cut at the first negative pair (Geyer 1992), pooled
    over chains. Weights of a network have symmetries that make theirs meaningless: apply it to
    predictions, `ensemble.predict_members(x_probe)`. Of each chain by itself:
    `[effective_sample_size(chain) for chain in chains]`.

    Stan and ArviZ make the sum monotone and leave 1 − t/n out. The median over quantities is 0.98
    to 1.00 of ArviZ' in chains of 4000 draws with ρ_1 from −0.5 to 0.98, 0.9 to 1.1 in 200 draws,
    and up to 1.8 where chains do not forget their start at all: m such chains are worth m here,
    m/2 there. Draws that alternate may be worth more than their number.

    Args:
        draws: Shape `(draws, ...)` of one chain, or a list of such arrays, one a chain. Longer
            chains are cut to the length of the shortest, at their ends.
        kind: For what they are worth it: `"mean"`; `"bulk"`, the normal scores of the ranks in
            split chains, for quantities whose mean or variance may be infinite; `"tail"`, the
            5 % and the 95 % quantile, whichever has less.

    Returns:
        Shape `(...)`. NaN where a quantity never changes.

    Raises:
        ValueError: If there are fewer than 4 draws, or some are NaN or infinite.

    Example:

    >>> size = kl.diagnostics.effective_sample_size(ensemble.predict_members(x[:100]))
    >>> size.mean()  # over the seconds that sampling took: effective samples per second

    References:
        A. Vehtari et al., "Rank-Normalization, Folding, and Localization: An Improved R-hat",
        Bayesian Analysis 2021.
    """
    one_of("kind", kind, KINDS)
    chains = stacked(draws)
    if kind == "mean":
        return _size(chains)
    if kind == "bulk":
        return _size(_normal_scores(_halves(chains)))
    is_below = [chains <= np.quantile(chains, q, axis=(0, 1)) for q in TAILS]
    return np.fmin(*[_size(_halves(below.astype("float64"))) for below in is_below])


def r_hat(draws, rank_normalized=True) -> np.ndarray:
    """Potential scale reduction of chains split in halves, √(V/W) of the variance V of all draws
    over the mean W of those within the halves: 1 when all have the same law; above 1.01 to 1.05
    they have not converged.

    Args:
        draws: Shape `(draws, ...)` of one chain, or a list of such arrays, one a chain. Longer
            chains are cut to the length of the shortest, at their ends.
        rank_normalized: The larger of two values, one of the normal scores of the ranks (for
            where the chains are), one of those of the distances from the median (for how wide
            they are): also for quantities whose variance is infinite. Without it Gelman's and
            Rubin's, of the draws as they are, which sees only where they are.

    Returns:
        Shape `(...)`. NaN where a quantity never changes.

    Raises:
        ValueError: If there are fewer than 4 draws, or some are NaN or infinite.

    Example:

    >>> draws = ensemble.split_chains(ensemble.predict_members(x[:100]))
    >>> kl.diagnostics.r_hat(draws).max()

    References:
        A. Gelman, D. Rubin, "Inference from Iterative Simulation Using Multiple Sequences",
        Statistical Science 1992. A. Vehtari et al., "Rank-Normalization, Folding, and
        Localization: An Improved R-hat", Bayesian Analysis 2021.
    """
    rank_normalized = boolean("rank_normalized", rank_normalized)
    halves = _halves(stacked(draws))
    if not rank_normalized:
        return _scale_reduction(halves)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    return np.fmax(*[_scale_reduction(_normal_scores(x)) for x in (halves, folded)])


def stacked(draws) -> np.ndarray:
    """Shape (draws, chains, ...), float64, chains cut to the length of the shortest."""
    chains = [real_array("draws", c) for c in (draws if isinstance(draws, list) else [draws])]
    shapes = [chain.shape for chain in chains]
    sizes = {shape[1:] for shape in shapes}
    if () in shapes or len(sizes) > 1 or any(0 in size for size in sizes):
        raise ValueError(
            "`draws` must be an array of shape (draws, ...), or a list of such arrays, which "
            f"differ in their length alone. Received: shapes {shapes}."
        )
    length = min((len(chain) for chain in chains), default=0)
    if length < 4:
        raise ValueError(f"There must be at least 4 draws in a chain. Received: {length} draws.")
    for number, chain in enumerate(chains):
        _check_finite(chain, number)
    return np.stack([chain[:length] for chain in chains], axis=1)


def _check_finite(chain, number):
    wrong = np.argwhere(~(np.abs(chain) <= LARGEST))
    if len(wrong):
        draw, *entry = (int(i) for i in wrong[0])
        where = f" at {entry}" if entry else ""
        raise ValueError(
            f"Draws must be finite, in float32 too. Received: {chain[tuple(wrong[0])]} in draw "
            f"{draw} of chain {number}{where}, and {len(wrong) - 1} more in that chain. Leave the "
            "draws of a chain that has diverged out, and lower its learning rate."
        )


def _halves(chains):
    """Each chain as two; the middle draw of an odd number is left out."""
    half = len(chains) // 2
    return np.concatenate([chains[:half], chains[-half:]], axis=1)


def _size(chains):
    import tensorflow_probability as tfp

    several = chains.shape[1] > 1
    with without_tensorflow_warnings():  # of a cast from complex numbers
        size = tfp.mcmc.effective_sample_size(
            chains if several else chains[:, 0],
            filter_beyond_positive_pairs=True,
            cross_chain_dims=1 if several else None,
        )
    return np.where(_is_constant(chains), np.nan, np.asarray(size))


def _scale_reduction(chains):
    """R̂ from TFP's value, (m+1)/m R̂² − (n−1)/(mn) for m chains of n draws."""
    import tensorflow_probability as tfp

    n, m = chains.shape[:2]
    value = np.asarray(tfp.mcmc.potential_scale_reduction(chains, independent_chain_ndims=1))
    reduction = np.sqrt((value + (n - 1) / (m * n)) * m / (m + 1))
    return np.where(_is_constant(chains), np.nan, reduction)


def _is_constant(chains):
    return np.all(chains == chains[0, 0], axis=(0, 1))


def _normal_scores(chains):
    """Normal quantiles of the ranks among all draws, (rank − 3/8)/(S + 1/4) (Blom 1958); draws
    that are equal share their average rank."""
    import tensorflow as tf

    flat = chains.reshape(-1, *chains.shape[2:])
    ranks = np.apply_along_axis(_ranks, 0, flat).reshape(chains.shape)
    return tf.math.ndtri((ranks - 0.375) / (len(flat) + 0.25)).numpy()


def _ranks(values):
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - 0.5 * (counts - 1))[position]
