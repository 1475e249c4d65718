"""Are there enough members?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_langevin.arguments import real_array
from keras_langevin.plotting import checks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def log_predictive_density(curve, ax: Axes | None = None) -> Axes:
    """The log predictive density per example against the number of members.

    It rises while members still add something; when it is flat at the end, more of them would
    not help. The band is the mean ± 1.96 standard errors.

    Args:
        curve: What `kl.diagnostics.running_log_predictive_density` returns: arrays
            `num_members`, `mean` and `stderr` of the shape `(k,)`. No band where `stderr` is NaN.
        ax: Axes to draw on.

    Raises:
        ValueError: If one of the arrays is missing, not finite, or of another length.

    Example:

    >>> curve = kl.diagnostics.running_log_predictive_density(log_likelihood)
    >>> kl.plotting.log_predictive_density(curve)
    """
    names = ("num_members", "mean", "stderr")
    origin = "`kl.diagnostics.running_log_predictive_density`"
    size, mean, stderr = checks.fields("curve", curve, names, origin)
    size = checks.vector("num_members", size)
    mean = checks.vector("mean", mean, size.size)
    stderr = real_array("stderr", stderr)
    stderr = checks.vector("stderr", np.where(np.isnan(stderr), 0.0, stderr), size.size)
    with style.axes(ax) as ax:
        band = (mean - 1.96 * stderr, mean + 1.96 * stderr)
        ax.fill_between(size, *band, color=style.BLUE, alpha=0.2, linewidth=0)
        ax.plot(size, mean, color=style.BLUE, marker="o", markersize=3, linewidth=1.5)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.margins(y=0.12)
        _mark_level(ax, size[-1], mean[-1], "left", "bottom")
        _mark_level(ax, size[0], mean[0], "right", "top")
        style.finish(
            ax,
            "Enough members when the curve is flat at its end",
            "members",
            "log predictive density\nper example, nats",
        )
    return ax


def _mark_level(ax, num_members, level, side, va):
    ax.axhline(level, zorder=1, **style.DASHED)
    members = "1 member" if num_members == 1 else f"{num_members:.0f} members"
    place = (0.02 if side == "left" else 0.98, level)
    across = ax.get_yaxis_transform()
    style.note(ax, f"{members}: {level:.4f}", place, ha=side, va=va, xycoords=across)
