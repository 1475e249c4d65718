"""Predictions of real numbers: their bands, and how often these hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin import calibration
from keras_langevin.arguments import real_array, shorten
from keras_langevin.plotting import checks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def predictive_band(
    x: ArrayLike,
    uncertainty: dict,
    ax: Axes | None = None,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    quantiles: tuple[float, ...] = (0.05, 0.5, 0.95),
) -> Axes:
    """Regression on one input: the mean, where new data will be, and doubt about the mean.

    The outer band goes from the lowest to the highest quantile of y, noise included. The inner
    one, the mean ± 2 standard deviations over the members, has the doubt about the weights
    alone; it should widen where there are no data. Of a Gaussian these are 95 %, so ask for the
    quantiles 0.025 and 0.975 to see both bands at the same level.

    Args:
        x: `(n,)` or `(n, 1)`, in any order.
        uncertainty: What `ensemble.predict_uncertainty(x)` returns for one output, of which
            `"mean"` and `"epistemic"`, `(n, 1)`, and `"quantiles"`, `(levels, n, 1)`, are used.
        ax: Axes to draw on.
        data: `(x, y)` to show as points, or None.
        quantiles: The levels that `predict_uncertainty` was asked for, for the legend.

    Raises:
        ValueError: If an entry is missing, of another length, or not finite.

    Example:

    >>> line = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> samples = [[np.full((1, 1), slope), np.zeros(1)] for slope in (0.9, 1.0, 1.1)]
    >>> ensemble = kl.BayesianEnsembleModel(line, samples, output="mean", noise_stddev=0.1)
    >>> x = np.linspace(-2, 2, 200)[:, None]
    >>> kl.plotting.predictive_band(x, ensemble.predict_uncertainty(x))
    """
    x = checks.vector("x", x)
    order = np.argsort(x)
    names = ("mean", "epistemic", "quantiles")
    origin = "`ensemble.predict_uncertainty` of a regression"
    mean, epistemic, rows = checks.fields("uncertainty", uncertainty, names, origin)
    mean = checks.vector("mean", mean, x.size)[order]
    doubt = 2 * np.sqrt(_checked_variance(epistemic, x.size)[order])
    low, high, share = _outer(rows, quantiles, x.size)
    points = None if data is None else _points(data)
    x = x[order]
    with style.axes(ax) as ax:
        outer = ax.fill_between(
            x, low[order], high[order], color=style.SKY, alpha=0.35, linewidth=1
        )
        inner = ax.fill_between(
            x, mean - doubt, mean + doubt, color=style.BLUE, alpha=0.3, linewidth=0
        )
        (line,) = ax.plot(x, mean, color=style.BLUE, linewidth=1.5)
        entries = {"mean ± 2 stddev of members": (inner, line), f"{share} of new y": outer}
        if points is not None:
            entries["data"] = ax.scatter(*points, s=9, color=style.BLACK, alpha=0.6, linewidths=0)
        ax.margins(y=style.HEADROOM)
        style.finish(ax, f"About {share} of new data should lie in the outer band", "x", "y")
        style.legend_row(ax, entries.values(), entries.keys(), num_columns=len(entries))
    return ax


def coverage(pit: ArrayLike, ax: Axes | None = None) -> Axes:
    """How many observations lie in the central predictive intervals of every level.

    Right intervals hold as many as they say. Above the diagonal they are too wide, below it too
    narrow. The band has 95 % of what a right model shows at each level: level ± 1.96
    sqrt(level (1 - level) / n).

    Args:
        pit: Of any shape, the predictive distribution function at each observation,
            `kl.calibration.probability_integral_transform(...)`.
        ax: Axes to draw on.

    Raises:
        ValueError: If an entry is not between 0 and 1.

    Example:

    >>> pit = kl.calibration.probability_integral_transform(mean, stddev, y_test)
    >>> kl.plotting.coverage(pit)
    """
    pit, levels = real_array("pit", pit), np.linspace(0, 1, 101)[1:-1]
    observed = calibration.interval_coverage_curve(pit, levels)
    spread = 1.96 * np.sqrt(levels * (1 - levels) / pit.size)
    with style.axes(ax) as ax:
        band = (levels - spread, levels + spread)
        ax.fill_between(levels, *band, color=style.GREY, alpha=0.15, linewidth=0)
        style.diagonal(ax)
        ax.plot(levels, observed, color=style.BLUE, linewidth=1.5)
        ax.text(0.04, 0.92, "intervals too wide", va="top", **style.NOTE)
        ax.text(0.98, 0.06, "intervals too narrow", ha="right", **style.NOTE)
        ax.set(xlim=(0, 1), ylim=(0, 1))
        style.finish(
            ax,
            f"{pit.size:,} observations: right intervals stay in the band",
            "level of the central interval",
            "share of observations inside",
        )
    return ax


def _outer(rows, quantiles, length):
    """The lowest and the highest quantile, and the share between them in words."""
    levels, rows = checks.vector("quantiles", quantiles), real_array("quantiles", rows)
    is_share = (levels >= 0).all() and (levels <= 1).all()
    if not is_share or rows.shape[:1] != levels.shape or levels.size < 2:
        raise ValueError(
            "`quantiles` must be the two or more levels, from 0 to 1, that were asked for. "
            f"Received: quantiles={shorten(quantiles)}, and uncertainty['quantiles'] of "
            f"{rows.shape[0] if rows.ndim else 0} levels. Pass the same to `predict_uncertainty` "
            "and here."
        )
    first, last = np.argmin(levels), np.argmax(levels)
    low = checks.vector("quantiles", rows[first], length)
    high = checks.vector("quantiles", rows[last], length)
    return low, high, f"{100 * (levels[last] - levels[first]):.4g} %"


def _checked_variance(epistemic, length):
    variance = checks.vector("epistemic", epistemic, length)
    if variance.min() < 0:
        raise ValueError(
            "`epistemic` must be a variance, 0 or more. Received: smallest "
            f"epistemic={variance.min():.6g}. Pass what `predict_uncertainty` returns."
        )
    return variance


def _points(data):
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(f"`data` must be a pair `(x, y)`, or None. Received: data={shorten(data)}")
    x, y = data
    x = checks.vector("data[0]", x)
    return x, checks.vector("data[1]", y, x.size)
