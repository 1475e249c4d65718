"""Whether a model takes some data, tracked or not."""

import keras

from keras_langevin.statistics.track import untracked
from keras_langevin.training_data import misfit
from keras_langevin.weights import named_weights


def check_fit(model, data):
    """Whether a model takes such data, by one example."""
    x, y, sample_weight = keras.tree.map_structure(lambda a: None if a is None else a[:1], data)
    if keras.backend.backend() != "tensorflow" and _has_strings(data):
        raise misfit(data, "Compiled functions of this backend take numbers, not strings.")
    values = [(v, keras.ops.convert_to_tensor(v)) for v in named_weights(model).values()]
    try:
        with untracked(model), keras.StatelessScope(values, collect_losses=True):
            outputs = model(x, training=False)
            model.compute_loss(x, y, outputs, sample_weight, training=False)
    except Exception as error:  # whatever layers, losses and backends may raise
        must = "`x`, `y` and `sample_weight` must fit the model and its loss."
        raise misfit(data, must, f"Keras says: {error}") from error


def _has_strings(data):
    return any(a.dtype.kind in "US" for a in keras.tree.flatten(data) if a is not None)
