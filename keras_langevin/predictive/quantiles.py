"""Quantiles over members. Pure functions in `keras.ops`."""

import math
import statistics

from keras import ops, tree

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
    axes = len(mean.shape) - 1
    q = _in_front(quantiles, axes, mean.dtype)
    z = [statistics.NormalDist().inv_cdf(one) for one in quantiles]
    z = _in_front(z, axes, mean.dtype)
    own = ops.expand_dims(mean, 1) + ops.expand_dims(stddev, 1) * z
    bracket = ops.min(own, axis=0), ops.max(own, axis=0)
    return bisected(lambda x: gaussian_mixture_cdf(x, mean, stddev), q, *bracket)


def mixture_quantiles(family, parameters, quantiles):
    """Quantiles of the equal mixture over members, elementwise, by bisection of the family's `cdf`.

    Parameters of shape `(members, ...)` to `(len(quantiles), ...)`.
    """
    mean, stddev = _mixture_moments(family, parameters)
    q = _in_front(quantiles, len(mean.shape), mean.dtype)
    return bisected_mixture(family, parameters, quantiles, chebyshev_bracket(mean, stddev, q))


def bisected_mixture(family, parameters, quantiles, bracket):
    """The same between two bounds, tensors `(len(quantiles), ...)`."""
    q = _in_front(quantiles, len(bracket[0].shape) - 1, bracket[0].dtype)
    per_level = tree.map_structure(lambda p: ops.expand_dims(p, 1), parameters)

    def cdf(x):
        return ops.mean(family.cdf(per_level, ops.expand_dims(x, 0)), axis=0)

    return bisected(cdf, q, *bracket)


def inverse_cdf(family, parameters, levels):
    """The quantile of each member for a level of its own, by bisection; `levels` are shaped as the
    mean."""
    stddev = ops.sqrt(family.variance(parameters))
    bracket = chebyshev_bracket(family.mean(parameters), stddev, levels)
    return bisected(lambda x: family.cdf(parameters, x), levels, *bracket)


def count_quantiles(family, outputs, parameters, quantiles):
    """Quantiles of the equal mixture over members for y = 0, 1, 2, ...: the least y with
    P(Y <= y) >= q. The log-likelihood is summed from 0 on, which takes as many turns as the
    largest quantile.

    Outputs of shape `(members, ...)` to `(len(quantiles), ...)`.
    """
    mean, stddev = _mixture_moments(family, parameters)
    q = _in_front(quantiles, len(mean.shape), mean.dtype)
    _, most = chebyshev_bracket(mean, stddev, q)
    last = ops.max(ops.where(ops.isfinite(most), most, 0.0))

    def is_below(y, reached, _):
        return ops.logical_and(y <= last, ops.any(reached < q))

    def add(y, reached, found):
        log_p = family.log_likelihood(outputs, y * ops.ones_like(mean))
        reached = reached + ops.mean(ops.exp(log_p), axis=0)
        return y + 1.0, reached, found + ops.cast(reached < q, found.dtype)

    start = (ops.zeros((), mean.dtype), ops.zeros_like(mean), ops.zeros_like(most))
    *_, found = ops.while_loop(is_below, add, start)
    return ops.where(ops.isfinite(most), found, most)


def chebyshev_bracket(mean, stddev, q):
    """Between these lies the quantile q of every distribution with these moments (Cantelli)."""
    return mean - stddev * ops.sqrt((1 - q) / q), mean + stddev * ops.sqrt(q / (1 - q))


def bisected(cdf, q, low, high):
    """x with cdf(x) = q, between `low` and `high`, elementwise."""

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        is_below = cdf(middle) < q
        return ops.where(is_below, middle, low), ops.where(is_below, high, middle)

    low, high = ops.fori_loop(0, BISECTIONS, halve, (low, high))
    return 0.5 * (low + high)


def _mixture_moments(family, parameters):
    """Mean and standard deviation of y under the equal mixture over members."""
    means = family.mean(parameters)
    mean = ops.mean(means, axis=0)
    within = ops.mean(family.variance(parameters), axis=0)
    return mean, ops.sqrt(within + ops.mean(ops.square(means - mean), axis=0))


def _in_front(numbers, axes, dtype):
    """The numbers along a first axis, before so many others."""
    return ops.reshape(ops.convert_to_tensor(list(numbers), dtype=dtype), (-1, *[1] * axes))


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
