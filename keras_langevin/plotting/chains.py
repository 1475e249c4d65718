"""Have the chains settled, and on the same law?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_langevin.arguments import integer
from keras_langevin.plotting import checks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def trace(draws, ax: Axes | None = None) -> Axes:
    """One quantity over the draws, a line for each chain.

    A chain that still drifts, or stays on a level of its own, has not converged.

    Args:
        draws: Shape `(draws,)` of one chain, or a list of such arrays, one a chain, of any
            lengths.
        ax: Axes to draw on.

    Raises:
        ValueError: If a chain is empty, not finite, or of more than one quantity.

    Example:

    >>> members = ensemble.predict_members(x_probe)  # (members, examples, classes)
    >>> kl.plotting.trace(members[:, 0, 3])  # the first example's probability of class 3
    """
    chains = checks.chains(draws)
    with style.axes(ax) as ax:
        for number, chain in enumerate(chains):
            ax.plot(np.arange(1, len(chain) + 1), chain, linewidth=1, **_look_of(number))
        ax.margins(y=style.HEADROOM)
        ax.set_xlim(1, max(2, *map(len, chains)))
        title = "Good chains wander about the same level, whatever their start"
        one = "A good chain wanders about one level, whatever its start"
        style.finish(ax, title if len(chains) > 1 else one, "draw number", "value")
        _name_chains(ax, len(chains))
    return ax


def rank(draws, ax: Axes | None = None, num_bins: int = 20) -> Axes:
    """Rank plot: where each chain's draws stand among all, a histogram for each chain.

    Chains of the same law have uniform ranks. One that leans to a side sits too low or too high;
    a hill or a valley has too little or too much spread. The band holds 95 % of the steps when
    the draws are independent: the mean ± 1.96 standard deviations of the hypergeometric law. Of
    correlated draws more lie outside: thin them first.

    Args:
        draws: A list of arrays of shape `(draws,)`, two chains or more, cut to the length of the
            shortest. Equal draws share their average rank.
        ax: Axes to draw on.
        num_bins: Number of steps of each histogram, no more than the draws of a chain.

    Raises:
        ValueError: If there is one chain only, or draws are fewer than bins or not finite.

    Example:

    >>> halves = [draws[:500], draws[500:]]  # of one chain
    >>> kl.plotting.rank(halves)

    References:
        A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner, "Rank-normalization,
        folding, and localization: an improved R-hat for assessing convergence of MCMC", Bayesian
        Analysis 16(2), 2021, section 3.3, https://arxiv.org/abs/1903.08008.
    """
    num_bins = integer("num_bins", num_bins, at_least=2)
    chains = _equally_long(checks.chains(draws), num_bins)
    counts, edges = rank_counts(chains, num_bins)
    level, spread = uniform_counts(*chains.shape, num_bins)
    with style.axes(ax) as ax:
        band = (max(level - 1.96 * spread, 0), level + 1.96 * spread)
        ax.axhspan(*band, color=style.GREY, alpha=0.15, linewidth=0)
        ax.axhline(level, **style.DASHED)
        for number, of_chain in enumerate(counts):
            ax.stairs(of_chain, edges, baseline=None, linewidth=1.5, **_look_of(number))
        ax.locator_params(axis="x", nbins=5)
        ax.set(xlim=(0, edges[-1]), ylim=(0, (1 + style.HEADROOM) * max(counts.max(), band[1])))
        style.finish(
            ax,
            "Chains that agree: level steps, 95 % of them in the band",
            f"rank among all {chains.size:,} draws",
            "draws per step",
        )
        _name_chains(ax, len(chains))
    return ax


def rank_counts(chains, num_bins):
    """How many draws of each chain fall into bins of their pooled ranks.

    Shape of chains `(chains, draws)`; returns `(chains, num_bins)` counts and the bins' edges.
    """
    _, place, ties = np.unique(chains, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - 0.5 * ties)[place].reshape(chains.shape)
    edges = np.linspace(0, chains.size, num_bins + 1)
    return np.stack([np.histogram(of_chain, edges)[0] for of_chain in ranks]), edges


def uniform_counts(num_chains, num_draws, num_bins):
    """Mean and standard deviation of a count when all chains have the same law: hypergeometric,
    since a bin holds 1/num_bins of all ranks, and a chain 1/num_chains of them."""
    total = num_chains * num_draws
    level = num_draws / num_bins
    variance = level * (1 - 1 / num_chains) * (1 - 1 / num_bins) * total / (total - 1)
    return level, np.sqrt(variance)


def _equally_long(chains, num_bins):
    if len(chains) < 2:
        raise ValueError(
            "A rank plot needs two chains or more. Received: 1. Split it in halves, "
            "`[draws[: n // 2], draws[n // 2 :]]`."
        )
    length = min(map(len, chains))
    if length < num_bins:
        raise ValueError(
            f"A chain must have as many draws as there are bins. Received: num_bins={num_bins}, "
            f"{length} draws. Use fewer bins."
        )
    return np.stack([chain[:length] for chain in chains])


def _look_of(number):
    colour = style.COLOURS[number % len(style.COLOURS)]
    return {"color": colour, "label": f"chain {number + 1}"}


def _name_chains(ax, number):
    """Unless colours repeat."""
    if 1 < number <= len(style.COLOURS):
        style.legend_row(ax, num_columns=number)
