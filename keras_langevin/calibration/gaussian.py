"""The normal distribution in float64, elementwise, exact in both tails."""

import math

import numpy as np


def normal_cdf(z):
    """Φ(z)."""
    return 0.5 * _each(math.erfc, -z / math.sqrt(2))


def mean_absolute(mean, stddev):
    """E|X| of X ~ N(mean, stddev²): 2 σ φ(μ/σ) + μ (2 Φ(μ/σ) - 1), and |μ| for σ = 0."""
    z = standardized(mean, stddev)
    with np.errstate(over="ignore"):
        density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return 2 * stddev * density + mean * _each(math.erf, z / math.sqrt(2))


def standardized(distance, stddev):
    """distance / stddev; where stddev is 0 its limit, which is infinite, or 0 for no distance."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(distance == 0, 0.0, distance / stddev)


def _each(function, x):
    values = map(function, x.ravel().tolist())  # NumPy has no error function
    return np.fromiter(values, "float64", x.size).reshape(x.shape)
