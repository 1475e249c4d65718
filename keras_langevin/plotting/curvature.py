"""Is the learning rate stable?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin.arguments import positive_number
from keras_langevin.plotting import checks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def metric_spectrum(
    eigenvalues: ArrayLike, ax: Axes | None = None, learning_rate: float | None = None
) -> Axes:
    """The curvature in units of the metric, largest first, and what the learning rate allows.

    A step covers learning_rate · λ of the way to the mode along a direction of curvature λ. Above
    2 / learning_rate steps grow without bound; those dots are orange. A good metric leaves the
    eigenvalues close to each other.

    Args:
        eigenvalues: `(k,)`, `kl.diagnostics.curvature(...).eigenvalues` in any order. They are
            Ritz values: the largest are close to true ones, the rest show the range. Values that
            are not positive have no place on the logarithmic axis; the title counts them.
        ax: Axes to draw on.
        learning_rate: Of dynamics without momentum; divide it by 1 + momentum for SGHMC.

    Raises:
        ValueError: If no eigenvalue is positive, one is not finite, or the learning rate is not
            greater than zero.

    Example:

    >>> found = kl.diagnostics.curvature(model, x[:500], y[:500])
    >>> kl.plotting.metric_spectrum(found.eigenvalues, learning_rate=1e-3)
    """
    eigenvalues = np.sort(checks.vector("eigenvalues", eigenvalues))[::-1]
    shown = eigenvalues[eigenvalues > 0]
    if not shown.size:
        raise ValueError(
            "`eigenvalues` must have a positive one. Received: eigenvalues up to "
            f"{eigenvalues[0]:.6g}. Measure the curvature at trained weights."
        )
    limit = np.inf
    if learning_rate is not None:
        learning_rate = positive_number("learning_rate", learning_rate)
        limit = 2 / learning_rate
    place = np.arange(1, shown.size + 1)
    with style.axes(ax) as ax:
        ax.set_yscale("log")
        for chosen, colour in ((shown <= limit, style.BLUE), (shown > limit, style.ORANGE)):
            ax.plot(place[chosen], shown[chosen], "o", color=colour, markersize=5)
        if learning_rate is not None:
            _mark_limit(ax, limit)
        style.finish(
            ax,
            _title(shown, eigenvalues.size - shown.size, learning_rate),
            "number, largest first",
            "curvature in units of the metric",
        )
    return ax


def _mark_limit(ax, limit):
    ax.axhline(limit, **style.DASHED)
    ax.margins(y=0.12)
    text = f"stable below 2 / learning rate = {style.short(limit)}"
    style.note(ax, text, (0.98, limit), ha="right", xycoords=ax.get_yaxis_transform())


def _title(shown, num_hidden, learning_rate):
    largest, ratio = style.short(shown[0]), style.short(shown[0] / shown[-1])
    words = f"Largest {largest}, {ratio} times the smallest"
    if num_hidden:
        words += f"; {num_hidden} not positive"
    if learning_rate is not None:
        share = 100 * learning_rate * shown[0] / 2
        words += f"\nlearning rate {learning_rate:.3g}: {style.short(share)} % of what is stable"
    return words
