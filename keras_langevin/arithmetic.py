"""Arithmetic that makes few arrays.

XLA joins operations into one loop and plans memory by itself; here it gets plain formulas. torch
runs each operation alone, and the pages of a new array cost it more than the arithmetic: so
`scaled`, `with_product` and `at_least` use up their first argument, which the caller must
have made and read no more.
"""

import numbers

import keras
from keras import ops


def multiply_add(a, x, y):
    """a·x + y; `a` is a number, a scalar or an array."""
    if not _is_torch():
        return a * x + y
    import torch

    if isinstance(a, numbers.Number):
        return torch.add(y, x, alpha=a)
    return torch.addcmul(y, a, x)


def mixed(old, new, share):
    """(1 − share) · old + share · new."""
    if not _is_torch():
        return share * new + (1 - share) * old
    import torch

    return torch.lerp(old, new, share)


def scaled(array, a):
    """a · array, which is used up."""
    return array.mul_(a) if _can_hold(array, a) else a * array


def with_product(total, a, x):
    """total + a·x; `total` is used up."""
    if not _can_hold(total, a, x):
        return multiply_add(a, x, total)
    if isinstance(a, numbers.Number):
        return total.add_(x, alpha=a)
    return total.addcmul_(a, x)


def at_least(array, smallest):
    """The larger of both; `array` is used up."""
    return array.clamp_(min=smallest) if _is_torch() else ops.maximum(array, smallest)


def _is_torch():
    return keras.backend.backend() == "torch"


def _can_hold(array, *others):
    """Whether what is computed from all of them can take the place of the array."""
    if not _is_torch():
        return False
    shapes = [other.shape for other in others if not isinstance(other, numbers.Number)]
    return all(_fits(shape, array.shape) for shape in shapes)


def _fits(shape, other):
    """Whether an array of this shape broadcasts to the other."""
    missing = len(other) - len(shape)
    return missing >= 0 and all(n in (1, m) for n, m in zip(shape, other[missing:], strict=True))
