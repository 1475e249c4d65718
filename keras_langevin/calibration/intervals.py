"""Do predicted intervals hold the share of targets that they say?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin.calibration.checks import (
    checked_gaussians,
    checked_numbers,
    checked_same_shape,
)
from keras_langevin.calibration.gaussian import normal_cdf, standardized


def interval_coverage(low: ArrayLike, high: ArrayLike, y: ArrayLike) -> float:
    """Share of y in [low, high], 0 to 1: right when it is the level of the intervals.

    Intervals that are too wide cover too much; report it with `mean_interval_width`.

    Args:
        low, high: Ends of the intervals, both of which belong to them, with the shape of `y`.
        y: `(examples, ...)`.

    Raises:
        ValueError: If shapes differ, an interval ends before it begins, or a number is NaN.

    Example:

    >>> kl.calibration.interval_coverage([0, 0, 0], [1, 1, 1], [0.5, 1, 1.5])
    0.6666666666666666

    An ensemble's `predict_uncertainty(x)["quantiles"]` of 5, 50, 95 % are `low, median, high` of
    intervals that should cover 0.9.
    """
    low, high = _checked_intervals(low, high)
    y = checked_numbers("y", y)
    checked_same_shape(low=low, high=high, y=y)
    return float(np.mean((low <= y) & (y <= high)))


def mean_interval_width(low: ArrayLike, high: ArrayLike) -> float:
    """Mean of high - low, in the units of y: of intervals of the same coverage, lower is better.

    Args:
        low, high: `(examples, ...)`.

    Example:

    >>> kl.calibration.mean_interval_width([0, 0], [1, 2])
    1.5
    """
    low, high = _checked_intervals(low, high)
    return float(np.mean(high - low))


def probability_integral_transform(mean: ArrayLike, stddev: ArrayLike, y: ArrayLike) -> np.ndarray:
    """F(y) of each y, where F is the distribution function of the members' equal mixture.

    Uniform on (0, 1) for the true distribution. A histogram that bulges in the middle tells of
    predictions that are too wide; heaps at 0 and 1, too narrow; a slope, of a bias.

    Args:
        mean: `(members, examples, ...)` of Gaussians, or `(examples, ...)` of one.
        stddev: The same shape, or one number, >= 0; at 0, F is a step that counts y = mean half.
        y: `(examples, ...)`.

    Returns:
        Array with the shape of `y`, 0 to 1.

    Raises:
        ValueError: If shapes do not fit, `stddev` is negative, or a number is NaN.

    Example:

    >>> kl.calibration.probability_integral_transform([0, 1], 1.0, [0, 3]).round(3)
    array([0.5  , 0.977])

    References:
        T. Gneiting, F. Balabdaoui, A. E. Raftery, "Probabilistic forecasts, calibration and
        sharpness", Journal of the Royal Statistical Society B 69, 2007.
    """
    mean, stddev, y = checked_gaussians(mean, stddev, y)
    return np.mean(normal_cdf(standardized(y - mean, stddev)), axis=0)


def interval_coverage_curve(pit: ArrayLike, levels: ArrayLike | None = None) -> np.ndarray:
    """Share of targets in the central interval of each level: the diagonal when calibrated.

    The central interval of level l ends at the quantiles (1 - l)/2 and (1 + l)/2, and so holds
    y when |2 F(y) - 1| <= l. What `reliability_curve` is for classes. Below the diagonal the
    predictions are too sure, above it not sure enough.

    Args:
        pit: F(y) of each y from `probability_integral_transform`, any shape.
        levels: `(levels,)` from 0 to 1; `None`: 0.05, 0.1, ... 0.95.

    Returns:
        Array with the shape of `levels`.

    Raises:
        ValueError: If a number is not from 0 to 1.

    Example:

    >>> pit = kl.calibration.probability_integral_transform([0, 0, 0, 0], 1.0, [-1, 0, 0.5, 3])
    >>> kl.calibration.interval_coverage_curve(pit, levels=[0.5, 0.9])
    array([0.5 , 0.75])

    References:
        V. Kuleshov, N. Fenner, S. Ermon, "Accurate Uncertainties for Deep Learning Using
        Calibrated Regression", ICML 2018, https://arxiv.org/abs/1807.00263.
    """
    pit = _checked_shares("pit", pit)
    levels = _checked_shares("levels", np.arange(1, 20) / 20 if levels is None else levels)
    centrality = np.sort(np.abs(2 * pit.ravel() - 1))
    return np.searchsorted(centrality, levels, side="right") / pit.size


def _checked_intervals(low, high):
    low, high = checked_numbers("low", low), checked_numbers("high", high)
    checked_same_shape(low=low, high=high)
    if (low > high).any():
        raise ValueError(
            f"`low` must not be above `high`. Received: {np.sum(low > high)} of {low.size} "
            "intervals that end before they begin. Give the lower ends first."
        )
    return low, high


def _checked_shares(name, values):
    values = checked_numbers(name, values)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"`{name}` must be numbers from 0 to 1. Received: {name} from {values.min():.6g} to "
            f"{values.max():.6g}. Give 90 % as 0.9."
        )
    return values
