"""a·x + y in one pass over the arrays."""

import numbers

import keras


def multiply_add(a, x, y):
    """a·x + y; `a` is a number, a scalar or an array. XLA makes one loop of a product and a sum
    anyway; torch, which runs each operation by itself, has one for both."""
    if keras.backend.backend() != "torch":
        return a * x + y
    import torch

    if isinstance(a, numbers.Number):
        return torch.add(y, x, alpha=a)
    return torch.addcmul(y, a, x)
