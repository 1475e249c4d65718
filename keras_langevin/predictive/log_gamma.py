"""The logarithm of the gamma function, which `keras.ops` does not have."""

import math

from keras import ops

_SHIFT = 8  # the series is exact to float32 from here on


def log_gamma(x):
    """log Γ(x) for x > 0, elementwise: log((x - 1)!) for integers.

    In the densities of counts, of gamma, beta and Student-t distributions. It can be
    differentiated by x.

    Args:
        x: A tensor of floating point numbers > 0.

    Returns:
        A tensor with the shape of x, exact to a few units of float32's last place of the larger of
        1 and the value.

    Example:

    >>> import keras_langevin as kl
    >>> [round(float(value), 4) for value in kl.predictive.log_gamma([1.0, 5.0, 0.5])]
    [0.0, 3.1781, 0.5724]

    References:
        M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions", 1964, 6.1.15 (recurrence)
        and 6.1.41 (Stirling's series).
    """
    x = ops.convert_to_tensor(x)
    x = x if "float" in str(x.dtype) else ops.cast(x, "float32")
    is_small = x < _SHIFT
    small = ops.where(is_small, x, ops.ones_like(x))
    product = small
    for k in range(1, _SHIFT):
        product = product * (small + k)
    z = ops.where(is_small, x + _SHIFT, x)
    series = (1 / 12 - (1 / 360 - 1 / (1260 * z * z)) / (z * z)) / z
    stirling = (z - 0.5) * ops.log(z) - z + 0.5 * math.log(2 * math.pi) + series
    return stirling - ops.where(is_small, ops.log(product), ops.zeros_like(x))
