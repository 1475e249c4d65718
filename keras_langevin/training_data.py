"""Checks of data as `fit` takes them: arrays, or nested arrays, whose first axis counts
examples."""

import contextlib

import keras
import numpy as np

from keras_langevin.arguments import array, shorten
from keras_langevin.keras_internals import has_rows, native_tensor, rows_of, sliceable

KINDS = "biufUS"  # layers may take strings


def training_data(x, y=None, sample_weight=None):
    """`(x, y, sample_weight)` as NumPy arrays, all of the same examples; None stays None.

    Sparse matrices, ragged tensors and strings stay what they are; `rows` takes examples of them.
    """
    data = tuple(
        keras.tree.map_structure(lambda a, n=name: None if a is None else _array(n, a), value)
        for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight))
    )
    sizes = [a.shape[:1] for a in keras.tree.flatten(data) if a is not None]
    if not sizes or any(a is None for a in keras.tree.flatten(data[0])) or sizes[0] in ((), (0,)):
        raise misfit(data, "There must be data, arrays of at least one example.")
    if len(set(sizes)) > 1:
        raise misfit(data, "`x`, `y` and `sample_weight` must have the same first axis.")
    return data


def _array(name, values):
    values = sliceable(values)
    if has_rows(values):
        return values
    with contextlib.suppress(Exception):  # `array` says what NumPy cannot read
        found = np.asarray(values)
        if found.dtype.kind == "O" and all(isinstance(one, (str, bytes)) for one in found.flat):
            return found
    return array(name, values, KINDS)


def rows(data, index):
    """Those examples of nested arrays, by a slice or by numbers."""
    return keras.tree.map_structure(lambda a: None if a is None else rows_of(a, index), data)


def num_examples(data) -> int:
    """Examples in nested arrays."""
    return next(a for a in keras.tree.flatten(data) if a is not None).shape[0]


def tensors(data):
    """Nested arrays as the backend's own; None stays None."""
    return keras.tree.map_structure(lambda a: None if a is None else native_tensor(a), data)


def joined(parts):
    """One batch of several, each of nested arrays or None."""
    if parts[0] is None:
        return None
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def misfit(data, must, advice="Pass what `fit` takes."):
    """The error for data that break a rule, which `must` states."""
    shapes = keras.tree.map_structure(shorten, data)
    words = ", ".join(f"{n}={s}" for n, s in zip(("x", "y", "sample_weight"), shapes, strict=True))
    return ValueError(f"{must} Received: {words}. {advice}")
