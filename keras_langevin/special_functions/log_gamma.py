"""The logarithm of the gamma function, which `keras.ops` does not have."""

import math

import keras
import numpy as np
from keras import ops

from keras_langevin.arguments import real_array
from keras_langevin.special_functions.bounds import no_less_than

_SHIFT = 8  # the series is exact to float32 from here on


def log_gamma(x):
    """log Γ(x) for x > 0, elementwise: log((x - 1)!) for integers.

    In the densities of counts, of gamma, beta and Student-t distributions. It can be
    differentiated by x.

    Args:
        x: Numbers > 0, a tensor or an array.

    Returns:
        A tensor with the shape of x. Below 8 its error is up to 1e-5, beyond it is as exact as
        float32.

    Example:

    >>> import keras_langevin as kl
    >>> [round(float(value), 4) for value in kl.predictive.log_gamma([1.0, 5.0, 0.5])]
    [0.0, 3.1781, 0.5724]

    References:
        M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions", 1964, 6.1.15 (recurrence)
        and 6.1.41 (Stirling's series).
    """
    if not (ops.is_tensor(x) or isinstance(x, keras.Variable)):
        with np.errstate(over="ignore"):
            x = real_array("x", x).astype(keras.config.floatx())
    x = ops.convert_to_tensor(x)
    x = x if keras.backend.is_float_dtype(x.dtype) else ops.cast(x, keras.config.floatx())
    is_small = x < _SHIFT
    small = ops.where(is_small, x, ops.ones_like(x))
    product = small
    for k in range(1, _SHIFT):
        product = product * (small + k)
    z = ops.where(is_small, x + _SHIFT, x)
    stirling = (z - 0.5) * ops.log(z) - z + 0.5 * math.log(2 * math.pi) + _series(z)
    return stirling - ops.where(is_small, ops.log(product), ops.zeros_like(x))


def log_rising(x, y):
    """log Γ(x + y) - log Γ(x) of tensors x > 0 and y >= 0, which keeps its digits for large x.

    The two logarithms of a large x are of the size x log x, their difference of y log x.
    """
    large = no_less_than(float(_SHIFT), x)
    total = large + y
    difference = (large - 0.5) * ops.log1p(y / large) + y * (ops.log(total) - 1)
    difference = difference + _series(total) - _series(large)
    return ops.where(x < _SHIFT, log_gamma(x + y) - log_gamma(x), difference)


def _series(z):
    """Of Stirling, what it adds to (z - ½) log z - z + ½ log 2π."""
    return (1 / 12 - (1 / 360 - 1 / (1260 * z * z)) / (z * z)) / z
