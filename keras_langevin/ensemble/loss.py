"""The loss of an ensemble: minus its log predictive density, averaged as Keras averages losses."""

import math

import keras
from keras import ops

from keras_langevin.keras_internals import as_loss, mask_of, set_mask


def score(family, outputs, y):
    """What the members' outputs say, and how likely the labels are by it.

    Returns:
        A dict of tensors: `"mean"`, the posterior predictive mean, which carries the outputs' mask;
        `"log_density"`, of the ensemble, shape `(batch, ...)`, where the outputs have a likelihood;
        `"counted"`, which labels count, booleans shaped like it or with fewer axes, where some do
        not; `"mask"`, that of the outputs, where they have one.
    """
    mask = mask_of(outputs)
    found = {"mean": ops.mean(family.means(outputs), axis=0)}
    if mask is not None:
        set_mask(found["mean"], mask)
        found["mask"] = mask
    if family.has_likelihood and y is not None:
        y = ops.convert_to_tensor(y)
        found["log_density"] = family.log_density(outputs, y)
        counted = both(mask, family.counted(y, outputs))
        if counted is not None:
            found["counted"] = counted
    return found


def label_scores(family, outputs, y):
    """See `PredictiveModel.label_scores`."""
    if not family.has_likelihood:
        return {}
    y = ops.convert_to_tensor(y)
    densities = family.log_densities(outputs, y)
    counted = both(mask_of(outputs), family.counted(y, outputs))
    if counted is None:
        counted = ops.ones(ops.shape(densities)[1:], "bool")
    else:
        counted = ops.broadcast_to(expanded(counted, densities[0]), ops.shape(densities)[1:])
        densities = ops.where(counted, densities, ops.zeros_like(densities))
    return {"log_densities": ops.moveaxis(densities, 0, 1), "counted": counted}


def mean_loss(family, score, y, sample_weight, loss, name):
    """The loss of one output for a batch that was scored, a tensor of shape ().

    Minus the mean log density, of all labels of an example together where the loss sets the scale
    of their noise; for outputs without a likelihood the compiled loss of their mean.
    """
    if y is None:
        raise ValueError(
            f"`evaluate` needs labels. Received: y=None for the output '{name}'. Pass "
            "`evaluate(x, y)`."
        )
    if "log_density" in score:
        values = -ops.convert_to_tensor(score["log_density"])
        if not family.sums_units and len(values.shape) > 1:  # Keras' losses average over units
            values = ops.mean(values, axis=-1)
        if "counted" in score:
            set_mask(values, ops.convert_to_tensor(score["counted"]))
        average = _Average(name="average")(values, values, sample_weight=sample_weight)
        return average * math.prod(values.shape[1:]) if family.loss_sets_scale else average
    if loss is None:
        raise ValueError(
            f"`evaluate` of values without a likelihood needs the loss they were trained with. "
            f"Received: output '{name}' of a model that was compiled without one. Compile the "
            "model with a loss before the ensemble is made."
        )
    mean = ops.convert_to_tensor(score["mean"])
    if "mask" in score:
        set_mask(mean, ops.convert_to_tensor(score["mask"]))
    return as_loss(loss)(y, mean, sample_weight=sample_weight)


def both(mask, other):
    """Where both are true; None stands for everywhere. The mask may lack the last axes."""
    if mask is None or other is None:
        return other if mask is None else mask
    return expanded(ops.cast(mask, "bool"), other) & ops.cast(other, "bool")


def expanded(mask, like):
    """With axes of length 1 at the end, as many as `like` has."""
    missing = len(like.shape) - len(mask.shape)
    return ops.reshape(mask, (*ops.shape(mask), *[1] * missing)) if missing > 0 else mask


class _Average(keras.losses.Loss):
    """Keras' own mean over a batch, so that masks and `sample_weight` mean here what they mean
    elsewhere."""

    def call(self, y_true, y_pred):
        return y_pred
