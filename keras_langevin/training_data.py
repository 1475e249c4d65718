"""Checks of data as `fit` takes them: arrays, or nested arrays, whose first axis counts
examples."""

import keras
import numpy as np

from keras_langevin.arguments import array, shorten
from keras_langevin.statistics.track import untracked
from keras_langevin.weights import named_weights

KINDS = "biufUS"  # layers may take strings


def training_data(x, y=None, sample_weight=None):
    """`(x, y, sample_weight)` as NumPy arrays, all of the same examples; None stays None."""
    data = tuple(
        keras.tree.map_structure(lambda a, n=name: None if a is None else array(n, a, KINDS), value)
        for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight))
    )
    sizes = [a.shape[:1] for a in keras.tree.flatten(data) if a is not None]
    if not sizes or any(a is None for a in keras.tree.flatten(data[0])) or sizes[0] in ((), (0,)):
        raise _misfit(data, "There must be data, arrays of at least one example.")
    if len(set(sizes)) > 1:
        raise _misfit(data, "`x`, `y` and `sample_weight` must have the same first axis.")
    return data


def num_examples(data) -> int:
    """Examples in nested arrays."""
    return len(next(a for a in keras.tree.flatten(data) if a is not None))


def joined(parts):
    """One batch of several, each of nested arrays or None."""
    if parts[0] is None:
        return None
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def check_fit(model, data):
    """Whether a model takes such data, by one example."""
    x, y, sample_weight = keras.tree.map_structure(lambda a: None if a is None else a[:1], data)
    values = [(v, keras.ops.convert_to_tensor(v)) for v in named_weights(model).values()]
    try:
        with untracked(model), keras.StatelessScope(values, collect_losses=True):
            outputs = model(x, training=False)
            model.compute_loss(x, y, outputs, sample_weight, training=False)
    except Exception as error:  # whatever layers, losses and backends may raise
        must = "`x`, `y` and `sample_weight` must fit the model and its loss."
        raise _misfit(data, must, f"Keras says: {error}") from error


def _misfit(data, must, advice="Pass what `fit` takes."):
    shapes = keras.tree.map_structure(shorten, data)
    words = ", ".join(f"{n}={s}" for n, s in zip(("x", "y", "sample_weight"), shapes, strict=True))
    return ValueError(f"{must} Received: {words}. {advice}")
