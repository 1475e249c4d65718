"""Checks of constructor arguments, so that every error reads alike."""

import math
import numbers


def number(name, value):
    """A finite real number as a float; booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number. Received: {name}={value!r}")
    return float(value)


def positive_number(name, value):
    if number(name, value) <= 0:
        raise ValueError(f"`{name}` must be greater than zero. Received: {name}={value!r}")
    return float(value)


def non_negative_number(name, value):
    if number(name, value) < 0:
        raise ValueError(f"`{name}` must not be negative. Received: {name}={value!r}")
    return float(value)


def unit_interval(name, value, zero_allowed=False):
    low = "[0" if zero_allowed else "(0"
    if not (0 <= number(name, value) <= 1) or (value == 0 and not zero_allowed):
        raise ValueError(f"`{name}` must be in {low}, 1]. Received: {name}={value!r}")
    return float(value)


def one_of(name, value, choices):
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}")
    return value


def integer(name, value, at_least=0, below=math.inf):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not at_least <= value < below:
        limits = f">= {at_least}" + (f" and < {below}" if below < math.inf else "")
        raise ValueError(f"`{name}` must be an integer {limits}. Received: {name}={value!r}")
    return int(value)
