"""From words of 32 random bits to standard normal numbers, in plain arithmetic without branches."""

import numpy as np
from keras import ops

# Coefficients of the inverse error function, highest power first: M. Giles, "Approximating
# the erfinv function", GPU Computing Gems (2011), table 5 (single precision).
_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip

# Of x², highest power first: z = x p(x²) for x the sum of eight bytes in units of its largest
# value. Fitted to the normal quantiles of that sum's own distribution, errors weighted with
# exp(-0.2 z²), |z| < 6.5.
_OF_SUM = (
    5.15900155, -7.72630949, 5.45639701, -1.41200377, 0.625425021, 0.663118883, 4.79021463,
)  # fmt: skip
_LEVELS = 256 * (8 * 255 + 1)


def normal_by_quantile(words):
    """The exact way: one bit for the sign, 31 for the two-sided tail probability
    p = P(|z'| > |z|). Reaches to 6.3 standard deviations; half of its cost is the logarithm."""
    magnitude = ops.cast(ops.bitwise_and(words, word(0x7FFFFFFF)), "float32")
    p = (magnitude + 0.5) * 2.0**-31
    w = -ops.log(p * (2.0 - p))  # = -log(1 - x^2) at x = 1 - p, exact in the tail
    centre = _polynomial(_CENTRE, w - 2.5)
    tail = _polynomial(_TAIL, ops.sqrt(w) - 3.0)
    z = float(np.sqrt(2.0)) * (1.0 - p) * ops.where(w < 5.0, centre, tail)
    return ops.where(words > word(0x7FFFFFFF), -z, z)


def normal_by_sum(words, more_words):
    """The fast way: the sum of eight bytes, which is nearly normal, with one more byte between its
    steps, and a polynomial that takes away what is missing.

    Over all 2^32 words and their hashes: the moments 2, 4, 6, 8 are those of N(0, 1) to 2e-5, 2e-5,
    3e-5 and 1.3e-4 (odd ones: nothing that 10^9 draws would show), the distribution function to
    1.6e-5, the shares beyond 3, 4 and 5 on either side to 0.1, 0.4 and 1.2 %. It reaches from -7.6
    to 6.1.

    Args:
        words: uint32.
        more_words: Of the same shape; a hash of `words` serves.
    """
    sums = _sums_of_bytes(words) + _sums_of_bytes(more_words)
    total = ops.right_shift(sums * word(0x00010001), word(16))  # both halves
    between = ops.right_shift(more_words * word(0x9E3779B1), word(24))
    level = ops.cast(ops.left_shift(total, word(8)) + between, "int32")
    x = (ops.cast(level, "float32") - (_LEVELS - 1) / 2) * (2.0 / _LEVELS)
    return x * _polynomial(_OF_SUM, x * x)


def _sums_of_bytes(words):
    """Of the even and of the odd bytes, in the two halves of a word."""
    halves = word(0x00FF00FF)
    shifted = ops.right_shift(words, word(8))
    return ops.bitwise_and(words, halves) + ops.bitwise_and(shifted, halves)


def word(value):
    return ops.convert_to_tensor(np.uint32(value & 0xFFFFFFFF))


def _polynomial(coefficients, x):
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
