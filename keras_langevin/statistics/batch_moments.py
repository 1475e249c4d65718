"""BatchNormalization by the moments of the batch: no example has a gradient of its own."""

import keras

from keras_langevin import keras_internals
from keras_langevin.statistics.held_normalization import is_held


def follows_batches(layer):
    """Whether a `BatchNormalization` layer normalizes by the moments of the batch in training."""
    return layer.trainable and not is_held(layer)


def mixes_examples(layer):
    """The error where statistics of examples are to be measured all the same."""
    return ValueError(
        f"The layer {layer.name!r} (BatchNormalization) normalizes by the moments of the batch "
        "while it trains, so that its output for one example depends on all others and the "
        "gradient of one example's likelihood is not defined. Received: training=True. Call "
        "`kl.freeze_batch_normalization(model, x_train)` before `fit`, use `kl.SGLD`, "
        "`kl.RMSPropLangevin` or `kl.BNPLangevin`, which measure no examples, or put "
        "`keras.layers.GroupNormalization` or `keras.layers.LayerNormalization` in its place."
    )


def refuse_batch_moments(model, statistics):
    """Raises that error before `fit` takes a step, where it can be seen that it would be raised in
    one: of layers that are called as the model is.

    Args:
        statistics: Which set the optimizer asks for.
    """
    if statistics not in ("diagonal", "quasi_diagonal"):
        return
    if type(model).train_step is not keras.Model.train_step:
        return
    for layer in keras_internals.layers_called_alike(model):
        if isinstance(layer, keras.layers.BatchNormalization) and follows_batches(layer):
            raise mixes_examples(layer)
