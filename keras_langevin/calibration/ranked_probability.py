"""The continuous ranked probability score of Gaussian mixtures."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin.calibration.checks import checked_gaussians
from keras_langevin.calibration.gaussian import mean_absolute


def continuous_ranked_probability_score(mean: ArrayLike, stddev: ArrayLike, y: ArrayLike) -> float:
    """Mean of ∫ (F(z) - [y <= z])² dz over all y, in the units of y; lower is better.

    F is the equal mixture of the members' Gaussians. In closed form, with A(μ, σ²) = E|N(μ, σ²)|,

    CRPS = mean_s A(y - μ_s, σ_s²) - ½ mean_{s,t} A(μ_s - μ_t, σ_s² + σ_t²)

    A proper score, less harsh on outliers than the log density, and the absolute error of a
    prediction without spread. `stddev=0` scores the members' means as a plain sample. Takes
    time for every pair of members.

    Args:
        mean: `(members, examples, ...)`, or `(examples, ...)` of one Gaussian.
        stddev: The same shape, or one number, >= 0.
        y: `(examples, ...)`. Several numbers of an example are scored one by one.

    Raises:
        ValueError: If shapes do not fit, `stddev` is negative, or a number is NaN.

    Example:

    >>> mean, stddev = [[0.0], [1.0]], [[1.0], [1.0]]  # two members, one example
    >>> round(kl.calibration.continuous_ranked_probability_score(mean, stddev, [0.5]), 4)
    0.2637

    They are `"mean"` and `"stddev"` of an ensemble's `predict_members`, when it was trained with
    `GaussianNLL()`.

    References:
        - E. P. Grimit, T. Gneiting, V. J. Berrocal, N. A. Johnson, "The continuous ranked
          probability score for circular variables and its application to mesoscale forecast
          ensemble verification", Quarterly Journal of the Royal Meteorological Society 132, 2006.
        - T. Gneiting, A. E. Raftery, "Strictly Proper Scoring Rules, Prediction, and
          Estimation", Journal of the American Statistical Association 102, 2007.
    """
    return float(np.mean(ranked_probability_scores(mean, stddev, y)))


def ranked_probability_scores(mean, stddev, y):
    """The score of each y by itself."""
    mean, stddev, y = checked_gaussians(mean, stddev, y)
    distance = np.mean(mean_absolute(y - mean, stddev), axis=0)
    return distance - 0.5 * _mean_distances_of_pairs(mean, stddev)


def _mean_distances_of_pairs(mean, stddev):
    """A member is compared with all after it at once: memory grows with members, not pairs."""
    members = len(mean)
    total = np.sum(mean_absolute(np.zeros_like(mean), np.sqrt(2) * stddev), axis=0)
    for s in range(members - 1):
        spread = np.hypot(stddev[s], stddev[s + 1 :])
        total += 2 * np.sum(mean_absolute(mean[s] - mean[s + 1 :], spread), axis=0)
    return total / members**2
