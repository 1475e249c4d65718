"""Where a classifier is in doubt, and where its members are of different opinions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin import calibration
from keras_langevin.arguments import integer, shorten
from keras_langevin.plotting import checks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 20


def entropy_histogram(
    inside: ArrayLike,
    outside: ArrayLike | None = None,
    ax: Axes | None = None,
    num_classes: int | None = None,
    labels: tuple[str, str] = ("in distribution", "out of distribution"),
    num_bins: int = 24,
) -> Axes:
    """Predictive entropies of ordinary data and of data of another kind.

    A model that notices strange inputs has low entropies inside and high ones outside; the title
    gives the area under the ROC curve, 100 % when a threshold separates the two.

    Args:
        inside: `(examples,)` entropies in nats, `kl.calibration.predictive_entropy(...)`.
        outside: `(other examples,)` entropies, or None.
        ax: Axes to draw on.
        num_classes: Marks the largest possible entropy, log(num_classes).
        labels: The names of the two kinds of data.
        num_bins: Number of bins of equal width.

    Raises:
        ValueError: If entropies are negative, above log(num_classes), or not finite.

    Example:

    >>> predictions = [ensemble.predict(x) for x in (x_test, 3 * x_test)]
    >>> entropies = [kl.calibration.predictive_entropy(p) for p in predictions]
    >>> kl.plotting.entropy_histogram(*entropies, num_classes=10)
    """
    num_bins = integer("num_bins", num_bins, at_least=1)
    if num_classes is not None:
        num_classes = integer("num_classes", num_classes, at_least=2)
    most = np.log(num_classes) if num_classes else np.inf
    given = {"inside": inside} if outside is None else {"inside": inside, "outside": outside}
    heaps = [checks.entropies(name, values, most) for name, values in given.items()]
    top = most if num_classes else max(heap.max() for heap in heaps) or 1.0
    edges = np.linspace(0, top, num_bins + 1)
    names = _names(labels, len(heaps))
    with style.axes(ax) as ax:
        for heap, colour, label in zip(heaps, style.COLOURS, names, strict=False):
            shares = np.histogram(heap, edges)[0] / len(heap)
            ax.stairs(shares, edges, fill=True, color=colour, alpha=0.25)
            ax.stairs(shares, edges, color=colour, linewidth=1.5, label=label)
        ax.margins(y=style.HEADROOM)
        ax.set_xlim(0, 1.02 * top)
        unit = "nats"
        if num_classes:
            ax.axvline(top, **style.DASHED)
            unit = f"nats (at most log {num_classes} = {top:.2f})"
        words = f"predictive entropy, {unit}"
        style.finish(ax, _heaps_title(heaps), words, "share of the examples")
        if outside is not None:
            style.legend_row(ax, num_columns=2)
    return ax


def member_agreement(members: ArrayLike, ax: Axes | None = None) -> Axes:
    """How many examples there are on which so many members vote for the ensemble's class.

    Members that always vote alike add nothing to a single one; examples on which they are
    divided are those to look at.

    Args:
        members: `(members, examples, classes)` probabilities, `ensemble.predict_members(x)`.
        ax: Axes to draw on.

    Raises:
        ValueError: If these are not probabilities of two classes or more.

    Example:

    >>> kl.plotting.member_agreement(ensemble.predict_members(x_test))
    """
    members = checks.member_probabilities(members)
    size, num_examples, _ = members.shape
    votes = votes_for_the_ensemble(members)
    counts, edges = vote_counts(votes, size)
    unanimous = 100 * np.mean(votes == size)
    with style.axes(ax) as ax:
        ax.bar(
            edges[:-1],
            np.maximum(counts, 0.5) - 0.5,
            width=np.diff(edges),
            bottom=0.5,  # a logarithmic axis has no zero
            align="edge",
            color=style.BLUE,
            edgecolor="white",
            linewidth=0.5,
        )
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.set(xlim=(-0.5 / size, edges[-1]), ylim=(0.5, None))
        style.finish(
            ax,
            f"All {size} members agree on {unanimous:.1f} % of the {num_examples:,} examples",
            "share of members that vote for the ensemble's class",
            "examples",
        )
    return ax


def votes_for_the_ensemble(members):
    """How many members' likeliest class is the ensemble's, of each example."""
    of_ensemble = members.mean(axis=0).argmax(axis=-1)
    return np.sum(members.argmax(axis=-1) == of_ensemble, axis=0)


def vote_counts(votes, size):
    """How many examples have how many votes; bars of several votes for many members, such that
    about `MOST_BARS` reach from no vote to all. Returns counts, and edges in shares of votes."""
    width = -(-size // MOST_BARS)
    num_bars = -(-(size + 1) // width)
    edges = size + 0.5 - width * np.arange(num_bars, -1, -1)
    return np.histogram(votes, edges)[0], edges / size


def _names(labels, number):
    is_list = isinstance(labels, (tuple, list)) and len(labels) >= number
    if not is_list or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"`labels` must be {number} names. Received: labels={shorten(labels)}.")
    return labels[:number]


def _heaps_title(heaps):
    if len(heaps) == 1:
        return f"Mean predictive entropy {heaps[0].mean():.3f} nats"
    auroc = calibration.out_of_distribution_auroc(*heaps)
    return f"Entropy tells them apart: area under the ROC curve {100 * auroc:.1f} %"
