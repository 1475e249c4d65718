"""Checks of arguments, each of which returns what it has checked, so that every error reads
alike."""

import math
import numbers
import os
from collections.abc import Mapping

import numpy as np

LARGEST = float(np.finfo("float32").max)
SMALLEST = float(np.finfo("float32").tiny)


def number(name, value):
    """A real number that is finite in float32, as a float; booleans are not numbers."""
    found = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:  # of an integer
            found = math.inf
    if not abs(found) <= LARGEST:
        raise ValueError(
            f"`{name}` must be a finite number, in float32 too. Received: {name}={shorten(value)}."
        )
    return found


def positive_number(name, value):
    found = number(name, value)
    if found < SMALLEST:
        least = f", at least {SMALLEST:.2g}" if found > 0 else ""
        raise ValueError(
            f"`{name}` must be greater than zero{least}. Received: {name}={shorten(value)}."
        )
    return found


def width(name, value):
    """A positive number that can be squared and divided by, as a scale of a distribution."""
    found = positive_number(name, value)
    if not 1e-18 <= found <= 1e18:
        raise ValueError(
            f"`{name}` must be from 1e-18 to 1e18, so that float32 holds its square. Received: "
            f"{name}={shorten(value)}."
        )
    return found


def non_negative_number(name, value):
    found = number(name, value)
    if found < 0:
        raise ValueError(f"`{name}` must not be negative. Received: {name}={shorten(value)}.")
    return found


def unit_interval(name, value, zero_allowed=False):
    low = "[0" if zero_allowed else "(0"
    found = number(name, value)
    if not 0 <= found <= 1 or (found < SMALLEST and not zero_allowed):
        raise ValueError(f"`{name}` must be in {low}, 1]. Received: {name}={shorten(value)}.")
    return found


def one_of(name, value, choices):
    """One of several strings, or None where that is a choice."""
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={shorten(value)}.")
    return value


def integer(name, value, at_least=0, below=2**31):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not at_least <= value < below:
        limits = f">= {at_least}"
        if below < 2**31 or (whole and value >= below):
            limits += f" and < {below}"
        raise ValueError(
            f"`{name}` must be an integer {limits}. Received: {name}={shorten(value)}."
        )
    return int(value)


def seed_number(name, value):
    return integer(name, value, below=2**64)


def boolean(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={shorten(value)}.")
    return bool(value)


def text(name, value):
    if not isinstance(value, str) or not value:
        raise ValueError(
            f"`{name}` must be a string that is not empty. Received: {name}={shorten(value)}."
        )
    return value


def path(name, value):
    try:
        encoded = os.fsencode(value) if isinstance(value, (str, os.PathLike)) else b""
    except UnicodeError:
        encoded = b""
    if not encoded or b"\0" in encoded:
        raise ValueError(f"`{name}` must be a path. Received: {name}={shorten(value)}.")
    return value


def verbosity(name, value):
    if not isinstance(value, (bool, np.bool_, numbers.Integral)) or value not in (0, 1):
        raise ValueError(f"`{name}` must be 0 or 1. Received: {name}={shorten(value)}.")
    return int(value)


def function(name, value):
    if not callable(value):
        raise ValueError(f"`{name}` must be a function. Received: {name}={shorten(value)}.")
    return value


def instance(name, value, kind, words):
    """An object of a class, which `words` describe."""
    if not isinstance(value, kind):
        raise ValueError(f"`{name}` must be {words}. Received: {name}={shorten(value)}.")
    return value


def iterator(name, value, words, one="one"):
    """Over an iterable, which `words` describe, that is no string and no mapping."""
    try:
        if isinstance(value, (str, bytes, Mapping)):
            raise TypeError("it is not")
        return iter(value)
    except Exception as error:  # symbolic tensors have one of their own
        raise ValueError(
            f"`{name}` must be {words}. Received: {name}={shorten(value)} of type "
            f"{type(value).__name__}. Put a single {one} in a list."
        ) from error


def array(name, values, kinds="biuf"):
    """A NumPy array of numbers, booleans among them, in the type that it has."""
    try:
        found = np.asarray(values)
    except Exception as error:  # whatever the `__array__` of another class may raise
        raise ValueError(
            f"`{name}` must be an array of numbers. Received: {name}={shorten(values)}, which "
            f"NumPy cannot read ({shorten(str(error))}). Convert it, all rows of one length."
        ) from error
    is_number = found.dtype.kind in kinds or found.dtype.isbuiltin == 2  # 2: bfloat16 and kin
    if not is_number or isinstance(values, (bool, np.bool_)):
        raise ValueError(
            f"`{name}` must be an array of numbers. Received: {name}={shorten(values)} of "
            f"dtype={found.dtype}. Convert it with `.astype(float)`, if it is one."
        )
    return found


def real_array(name, values):
    """The same in float64."""
    return array(name, values).astype("float64")


def shorten(value: object) -> str:
    """`repr`, cut for an error message; of an array its shape and type."""
    if isinstance(value, np.ndarray):
        return f"array(shape={value.shape}, dtype={value.dtype})"
    try:
        words = repr(value)
    except Exception:  # of an integer with very many digits, or a class of the user's
        words = f"<{type(value).__name__}>"
    return words if len(words) <= 80 else f"{words[:77]}..."
