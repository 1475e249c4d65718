"""The regularised incomplete beta function, which `keras.ops` does not have."""

from keras import ops

from keras_langevin.special_functions.log_gamma import log_gamma

_MOST_TERMS = 100  # enough for float32 up to a and b of some thousands
_TOLERANCE = 3e-7


def incomplete_beta(a, b, log_x, log_1mx):
    """I_x(a, b), elementwise, from the logarithms of x and 1 - x, which keep both ends exact.

    References:
        W. Press et al., "Numerical Recipes in C", 2nd edition, 1992, section 6.4.
    """
    is_far = log_x > ops.log((a + 1) / (a + b + 2))  # there the other side converges
    a, b = ops.where(is_far, b, a), ops.where(is_far, a, b)
    log_x, log_1mx = ops.where(is_far, log_1mx, log_x), ops.where(is_far, log_x, log_1mx)
    log_front = a * log_x + b * log_1mx + log_gamma(a + b) - log_gamma(a) - log_gamma(b)
    found = ops.exp(log_front) * _continued_fraction(a, b, ops.exp(log_x)) / a
    return ops.where(is_far, 1 - found, found)


def _continued_fraction(a, b, x):
    """By Lentz' method."""

    def away_from_0(z):
        return ops.where(ops.abs(z) < 1e-30, ops.full_like(z, 1e-30), z)

    def is_open(m, c, d, found, change):
        return ops.logical_and(m < _MOST_TERMS, ops.any(ops.abs(change) > _TOLERANCE))

    def add(m, c, d, found, _):
        change = ops.ones_like(found)
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / away_from_0(1 + term * d)
            c = away_from_0(1 + term / c)
            change = change * c * d
        return m + 1, c, d, found * change, change - 1

    d = 1 / away_from_0(1 - (a + b) * x / (a + 1))
    start = (ops.ones((), x.dtype), ops.ones_like(d), d, d, ops.ones_like(d))
    return ops.while_loop(is_open, add, start)[3]
