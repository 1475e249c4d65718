"""Checks of data as `fit` takes them: arrays, or nested arrays, whose first axis counts
examples."""

import keras
import numpy as np

from keras_langevin.arguments import array, shorten

KINDS = "biufUS"  # layers may take strings


def training_data(x, y=None, sample_weight=None):
    """`(x, y, sample_weight)` as NumPy arrays, all of the same examples; None stays None."""
    data = tuple(
        keras.tree.map_structure(lambda a, n=name: None if a is None else array(n, a, KINDS), value)
        for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight))
    )
    sizes = [a.shape[:1] for a in keras.tree.flatten(data) if a is not None]
    if not sizes or any(a is None for a in keras.tree.flatten(data[0])) or sizes[0] in ((), (0,)):
        raise misfit(data, "There must be data, arrays of at least one example.")
    if len(set(sizes)) > 1:
        raise misfit(data, "`x`, `y` and `sample_weight` must have the same first axis.")
    return data


def num_examples(data) -> int:
    """Examples in nested arrays."""
    return len(next(a for a in keras.tree.flatten(data) if a is not None))


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
