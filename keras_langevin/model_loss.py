"""A model's mean loss as a function of its weights, without a change to the model."""

import keras
from keras import ops

from keras_langevin.keras_internals import (
    compute_loss,
    has_compiled_loss,
    mask_of,
    set_mask,
    states_a_loss,
)


class ModelLoss:
    """What `compute_loss` gives for values of the weights, layers in inference mode: with what
    regularizers and `add_loss` of layers add, and with masks, as in `fit`.

    Args:
        model: A compiled, built model.
        variables: All weights that are given values.
        x, y, sample_weight: A batch, tensors or nested tensors.

    Raises:
        ValueError: If no loss is stated: the model trains by a `train_step` of its own.
    """

    def __init__(self, model, variables, x, y, sample_weight):
        check_states_a_loss(model)
        self.model, self.variables = model, variables
        self.x, self.y, self.sample_weight = x, y, sample_weight

    def value(self, values):
        """The mean loss, float32."""
        with self._scope(values):
            outputs = self.model(self.x, training=False)
            return self._loss(outputs)

    def outputs(self, values):
        """The model's outputs, a list of arrays in float32."""
        with self._scope(values):
            outputs = self.model(self.x, training=False)
        return [ops.cast(o, "float32") for o in keras.tree.flatten(outputs)]

    def split(self, values):
        """`(of_outputs, of_weights)`: the mean loss as a function of a list like `outputs` alone,
        and as one of the weights while the outputs stay, which is what regularizers and layers
        add, and what a `compute_loss` of the user's own makes of the weights; the latter None
        where there is no such part."""
        with self._scope(values):
            model_outputs = self.model(self.x, training=False)
            own_loss = type(self.model).compute_loss is not keras.Model.compute_loss
            has_more = own_loss or bool(self.model.losses)

        def of_outputs(outputs):
            if not (own_loss or has_compiled_loss(self.model)):  # all of it is what layers add
                return 0.0 * sum(ops.sum(o) for o in outputs)
            with self._scope(values):
                return self._loss(_with_masks(outputs, model_outputs))

        def of_weights(values):
            with self._scope(values):
                self.model(self.x, training=False)  # collects what layers add
                return self._loss(model_outputs)

        return of_outputs, of_weights if has_more else None

    def _loss(self, outputs):
        value = compute_loss(self.model, self.x, self.y, outputs, self.sample_weight)
        return ops.cast(value, "float32")

    def _scope(self, values):
        values = [ops.cast(θ, v.dtype) for θ, v in zip(values, self.variables, strict=True)]
        assigned = list(zip(self.variables, values, strict=True))
        return keras.StatelessScope(state_mapping=assigned, collect_losses=True)


def check_states_a_loss(model):
    if not states_a_loss(model):
        raise ValueError(
            "The loss to be measured must be one that `compile(loss=...)` or `compute_loss` "
            f"states, and `train_step` trains on. Received: model '{model.name}', whose "
            "`train_step` alone knows its loss. "
            "Compute it in `compute_loss(x, y, y_pred, sample_weight)`, or pass a learning rate in "
            'the place of "auto", such as `kl.QDOPLangevin(learning_rate=1e-3, num_data=N)`.'
        )


def _with_masks(outputs, model_outputs):
    flat = keras.tree.flatten(model_outputs)
    for output, like in zip(outputs, flat, strict=True):
        set_mask(output, mask_of(like))
    return keras.tree.pack_sequence_as(model_outputs, outputs)
