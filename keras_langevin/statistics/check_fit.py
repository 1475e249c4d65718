"""Whether a model takes some data, tracked or not."""

import keras
import numpy as np

from keras_langevin.model_loss import ModelLoss, check_states_a_loss
from keras_langevin.statistics.track import untracked
from keras_langevin.training_data import misfit, rows, tensors
from keras_langevin.weights import named_weights


def check_fit(model, data):
    """Whether a model takes such data, by one example."""
    check_states_a_loss(model)
    if keras.backend.backend() != "tensorflow" and _has_strings(data):
        raise misfit(data, "Compiled functions of this backend take numbers, not strings.")
    weights = list(named_weights(model).values())
    try:
        with untracked(model):
            one = tensors(rows(data, slice(0, 1)))
            values = [keras.ops.convert_to_tensor(v) for v in weights]
            ModelLoss(model, weights, *one).value(values)
    except Exception as error:  # whatever layers, losses and backends may raise
        must = "`x`, `y` and `sample_weight` must fit the model and its loss."
        raise misfit(data, must, f"Keras says: {error}") from error


def _has_strings(data):
    leaves = [a for a in keras.tree.flatten(data) if isinstance(a, np.ndarray)]
    return any(a.dtype.kind in "USO" for a in leaves)
