"""Bounds that keep the type: `ops.maximum` makes float32 of float64 on torch."""

from keras import ops


def no_less_than(least, x):
    """max(x, least), elementwise; NaN stays."""
    return ops.where(x < least, ops.full_like(x, least), x)


def no_more_than(most, x):
    """min(x, most), elementwise; NaN stays."""
    return ops.where(x > most, ops.full_like(x, most), x)
