"""Is a classifier right as often as it says, and does it know when it is wrong?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin import calibration
from keras_langevin.plotting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def reliability(
    probabilities: ArrayLike,
    labels: ArrayLike,
    num_bins: int = 10,
    ax: Axes | None = None,
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """How often predictions are right, against how sure they were, with 95 % intervals.

    Points below the diagonal are overconfident, points above it too modest. A bin of few
    examples has a long interval: trust the diagonal where it crosses that.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` integers.
        num_bins: Bins of equal width; empty ones are left out.
        ax: Axes to draw on; several curves may share them.
        label: The curve's name in a legend, beside its expected calibration error.
        color: Any of matplotlib's; by default each labelled curve has its own.

    Raises:
        ValueError: As `kl.calibration.reliability_curve`.

    Example:

    >>> ax = kl.plotting.reliability(point, y_test, label="Adam")
    >>> kl.plotting.reliability(ensemble.predict(x_test), y_test, ax=ax, label="ensemble")
    """
    label, color = style.checked_look(label, color)
    bins = calibration.reliability_curve(probabilities, labels, num_bins)
    error = calibration.expected_calibration_error(probabilities, labels, num_bins)
    confidence, accuracy, count = (field[bins.count > 0] for field in bins)
    low, high = wilson_interval(accuracy, count)
    with style.axes(ax) as ax:
        style.diagonal(ax, "calibrated")
        ax.errorbar(
            confidence,
            accuracy,
            yerr=np.maximum([accuracy - low, high - accuracy], 0),  # rounding
            color=color or style.next_colour(ax),
            marker="o",
            markersize=5,
            linewidth=1.5,
            elinewidth=1,
            clip_on=False,
            label=label and f"{label}, ECE {100 * error:.1f} %",
        )
        ax.set(xlim=(0, 1.02), ylim=(0, 1.02))
        said = "" if label else f"expected calibration error {100 * error:.1f} %, "
        style.finish(
            ax,
            f"Reliability: {said}{num_bins} bins\n(on the diagonal: right as often as it is sure)",
            "confidence (probability of the likeliest class)",
            "share of right predictions\n(95 % interval)",
        )
        if label:
            style.legend(ax, loc="best")
    return ax


def risk_coverage(
    confidence: ArrayLike,
    is_right: ArrayLike,
    ax: Axes | None = None,
    label: str | None = None,
    color: str | None = None,
) -> Axes:
    """The share of wrong answers when only the most confident predictions are answered.

    The lower the better. Without a label there are two more lines for comparison: an order that
    knows all errors, and one that knows nothing.

    Args:
        confidence: `(examples,)`, larger means surer, as the probability of the likeliest class
            or minus an entropy.
        is_right: `(examples,)` booleans.
        ax: Axes to draw on; several curves may share them.
        label: The curve's name in a legend, beside the area under it.
        color: Any of matplotlib's; by default each labelled curve has its own.

    Raises:
        ValueError: As `kl.calibration.risk_coverage_curve`.

    Example:

    >>> p = ensemble.predict(x_test)
    >>> kl.plotting.risk_coverage(p.max(-1), p.argmax(-1) == y_test)
    """
    label, color = style.checked_look(label, color)
    curve = calibration.risk_coverage_curve(confidence, is_right)
    area = 100 * calibration.area_under_risk_coverage(confidence, is_right)
    with style.axes(ax) as ax:
        ax.plot(
            curve.coverage,
            curve.risk,
            color=color or style.next_colour(ax),
            linewidth=1.5,
            gid="risk",
            label=label and f"{label}, area {area:.2f} %",
        )
        if not label:
            _compare_orders(ax, curve)
        ax.set(xlim=(0, 1.02), ylim=(0, _highest_risk(ax)))
        style.finish(
            ax,
            "Who declines the least confident answers errs less\n"
            + ("(lower is better)" if label else f"(area under the curve {area:.2f} %)"),
            "coverage (share of predictions that are answered)",
            "risk (share of wrong ones)",
        )
        if label:
            style.legend(ax, loc="lower right")
    return ax


def _highest_risk(ax):
    """Of all curves, but for their first twentieth: the risk of a few examples is noise."""
    curves = [line.get_ydata() for line in ax.lines if line.get_gid() == "risk"]
    return 1.12 * max(curve[len(curve) // 20 :].max() for curve in curves) or 1.0


def _compare_orders(ax, curve):
    error = curve.risk[-1]
    best = np.maximum(0, curve.coverage - (1 - error)) / curve.coverage
    ax.plot(curve.coverage, best, **style.DASHED)
    ax.axhline(error, **style.DASHED)
    style.note(ax, "random order", (0.02, error))
    style.note(ax, "perfect order", ((1 - error) / 2, 0), ha="center")


def wilson_interval(share, count, z=1.96):
    """The interval of Wilson (1927) around a share of `count` trials."""
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    half = z * spread / (1 + z**2 / count)
    return centre - half, centre + half
