"""Effective sample size and R-hat, by TensorFlow Probability on any backend."""

import numpy as np


def effective_sample_size(draws) -> np.ndarray:
    """How many independent draws the chains are worth, for every quantity.

    n / (1 + 2 Σ ρ_t) with the sum cut at the first negative pair (Geyer 1992), pooled over
    chains. Weights of a network have symmetries that make theirs meaningless: apply it to
    predictions, `ensemble.predict_members(x_probe)`.

    Args:
        draws: Shape `(draws, ...)` of one chain, or a list of such arrays, one a chain.

    Returns:
        Shape `(...)`. NaN where a quantity never changes.

    Raises:
        ValueError: If there are fewer than 4 draws.

    Example:

    >>> size = kl.diagnostics.effective_sample_size(ensemble.predict_members(x[:100]))
    >>> size.mean() / seconds  # effective samples per second
    """
    import tensorflow_probability as tfp

    stacked = _stacked(draws)
    several = stacked.shape[1] > 1
    size = tfp.mcmc.effective_sample_size(
        stacked if several else stacked[:, 0],
        filter_beyond_positive_pairs=True,
        cross_chain_dims=1 if several else None,
    )
    return np.asarray(size)


def r_hat(draws) -> np.ndarray:
    """Potential scale reduction (Gelman and Rubin 1992) of chains split in halves: 1 when all
    have the same law; above 1.01 to 1.05 they have not converged.

    Args:
        draws: Shape `(draws, ...)` of one chain, or a list of such arrays, one a chain.

    Returns:
        Shape `(...)`. NaN where a quantity never changes.

    Raises:
        ValueError: If there are fewer than 4 draws.
    """
    import tensorflow_probability as tfp

    stacked = _stacked(draws)
    half = len(stacked) // 2
    halves = np.concatenate([stacked[:half], stacked[-half:]], axis=1)
    return np.asarray(tfp.mcmc.potential_scale_reduction(halves, independent_chain_ndims=1))


def _stacked(draws):
    """Shape (draws, chains, ...), float64, chains cut to the length of the shortest."""
    chains = [np.asarray(c, "float64") for c in (draws if isinstance(draws, list) else [draws])]
    length = min(len(chain) for chain in chains)
    if length < 4:
        raise ValueError(f"There must be at least 4 draws in a chain. Received: {length} draws.")
    return np.stack([chain[:length] for chain in chains], axis=1)
