"""Quantiles over members. Pure functions in `keras.ops`."""

import math
import statistics

from keras import ops

# Every halving gains a bit, and the bracket is no wider than the members are apart.
BISECTIONS = 50


def member_quantiles(values, quantiles):
    """Quantiles over the first axis, linear between order statistics as `numpy.quantile`.

    Shape `(members, ...)` to `(len(quantiles), ...)`.
    """
    ordered = ops.sort(values, axis=0)
    rows = []
    for q in quantiles:
        position = q * (values.shape[0] - 1)
        low, high = math.floor(position), math.ceil(position)
        rows.append(ordered[low] + (position - low) * (ordered[high] - ordered[low]))
    return ops.stack(rows)


def gaussian_mixture_quantiles(mean, stddev, quantiles):
    """Quantiles of the equal mixture over the first axis of N(mean, stddev²), elementwise.

    Solves (1/M) Σ_s Φ((x - mean_s) / stddev_s) = q by bisection, from the least to the largest
    of the members' own quantiles, between which x lies.

    Shape `(members, ...)` to `(len(quantiles), ...)`.
    """
    shape = (-1, *(1 for _ in mean.shape[1:]))
    q = ops.reshape(ops.convert_to_tensor(list(quantiles), dtype=mean.dtype), shape)
    z = [statistics.NormalDist().inv_cdf(one) for one in quantiles]
    z = ops.reshape(ops.convert_to_tensor(z, dtype=mean.dtype), shape)
    own = ops.expand_dims(mean, 1) + ops.expand_dims(stddev, 1) * z

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        is_below = gaussian_mixture_cdf(middle, mean, stddev) < q
        return ops.where(is_below, middle, low), ops.where(is_below, high, middle)

    low, high = ops.fori_loop(0, BISECTIONS, halve, (ops.min(own, axis=0), ops.max(own, axis=0)))
    return 0.5 * (low + high)


def gaussian_mixture_cdf(x, mean, stddev):
    """Shape of x `(k, ...)`, of the members' mean and stddev `(members, ...)`, to `(k, ...)`."""
    standard = (ops.expand_dims(x, 0) - ops.expand_dims(mean, 1)) / ops.expand_dims(stddev, 1)
    return ops.mean(normal_cdf(standard), axis=0)


def normal_cdf(z):
    """Φ(z) with a relative error below 1.2e-7 in both tails.

    `ops.erf` would lose the lower tail, and what JAX makes of it cannot be read by TensorFlow
    2.21 in a SavedModel.

    References:
        W. Press et al., "Numerical Recipes in C", 2nd edition, 1992, section 6.2, `erfcc`.
    """
    x = ops.abs(z) / math.sqrt(2)
    t = 1 / (1 + 0.5 * x)
    polynomial = 0.0
    for coefficient in reversed(_ERFC):
        polynomial = coefficient + t * polynomial
    tail = 0.5 * t * ops.exp(polynomial - ops.square(x))
    return ops.where(z < 0, tail, 1 - tail)


_ERFC = (
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
)
