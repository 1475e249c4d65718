"""What of a model decides how it is measured, to notice when that has become another."""

from keras_langevin import keras_internals
from keras_langevin.statistics.registry import find_rule


class MeasuredParts:
    """The layers of a model with their rules and trained variables, at one time.

    Args:
        model: A built `keras.Model`.
    """

    def __init__(self, model):
        layers = keras_internals.flatten_layers(model)
        self.rows = [_row(layer) for layer in layers]
        # Kept alive, so that no new one takes the id of an old one.
        self.kept = [(x, keras_internals.own_trainable_variables(x)) for x in layers]

    def are_those_of(self, model):
        """Whether the model has the same parts now: none frozen, added, replaced, given LoRA
        weights or a rule since."""
        return self.rows == [_row(x) for x in keras_internals.flatten_layers(model)]


def _row(layer):
    return (
        id(layer),
        id(find_rule(layer)),
        layer.built,
        layer.trainable,
        layer.compute_dtype,
        keras_internals.has_replaced_weights(layer),
        *map(id, keras_internals.own_trainable_variables(layer)),
    )
