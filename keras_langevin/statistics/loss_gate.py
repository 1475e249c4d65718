"""A gate on a model's loss, which sets a statistic of the whole model backward."""

import keras
from keras import ops

from keras_langevin.distribution import num_replicas


def gate_loss(model, variable, measured):
    """Has the backward pass of the model's loss set a variable.

    Args:
        model: The model, whose `compute_loss` is shadowed.
        variable: Its "gradient" is `measured(loss, upstream, batch)`; upstream, the gradient that
            the loss itself receives, is what float16 training multiplies it by, and `batch` the
            number of examples that the outputs have, on all replicas.
    """
    plain = model.compute_loss

    def compute_loss(*args, **kwargs):
        said = dict(zip(("x", "y", "y_pred"), args, strict=False)) | kwargs
        outputs = keras.tree.flatten(said.get("y_pred"))
        loss = plain(*args, **kwargs)
        batch = next((ops.shape(o)[0] for o in outputs if len(o.shape)), 1) * num_replicas()
        return _gate(measured, batch)(loss, ops.convert_to_tensor(variable))

    model.__dict__["compute_loss"] = compute_loss


def _gate(measured, batch):
    @ops.custom_gradient
    def gate(loss, variable):
        def backward(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return upstream, ops.cast(measured(loss, upstream, batch), "float32")

        return loss, backward

    return gate
