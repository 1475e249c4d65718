"""The second derivative of the logarithm of the gamma function."""

_SHIFT = 8  # the series is exact to float32 from here on


def trigamma(x):
    """ψ₁(x) for x > 0, elementwise, of a number, an array or a tensor.

    References:
        M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions", 1964, 6.4.6 (recurrence)
        and 6.4.12 (series).
    """
    found = 0.0
    for _ in range(_SHIFT):
        found = found + 1 / (x * x)
        x = x + 1
    square = x * x
    series = (1 / 6 - (1 / 30 - (1 / 42 - 1 / (30 * square)) / square) / square) / (square * x)
    return found + 1 / x + 1 / (2 * square) + series
