"""The loss that a model must beat: that of one prediction for all examples."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_langevin.keras_internals import as_loss, compile_argument, flatten_layers
from keras_langevin.losses.base import NegativeLogLikelihood
from keras_langevin.predictive.bernoulli import Bernoulli
from keras_langevin.predictive.categorical import Categorical
from keras_langevin.predictive.gaussian import Gaussian, HeteroscedasticGaussian
from keras_langevin.predictive.label_weights import label_weights, weighted_mean
from keras_langevin.predictive.noise_of_the_loss import NoiseOfTheLoss
from keras_langevin.predictive.output import loss_name, one_per_output, resolve_families
from keras_langevin.predictive.poisson import Poisson
from keras_langevin.predictive.quality_of_numbers import guess_of_real_numbers


@dataclasses.dataclass(frozen=True)
class ConstantLoss:
    """What the best constant prediction reaches.

    Attributes:
        value: The compiled loss, without regularizers.
        words: What the prediction is.
        is_in_nats: Whether differences of the loss are nats, whatever its zero.
    """

    value: float
    words: str
    is_in_nats: bool


def constant_loss(model, y, sample_weight=None):
    """The `ConstantLoss` of a compiled model for labels, NumPy, in the structure of its outputs;
    None where it is not known, or all labels are the same."""
    try:
        families = keras.tree.flatten(resolve_families(model))
        losses = one_per_output(model, "loss", compile_argument(model, "loss"))
        factors = one_per_output(model, "loss_weights", compile_argument(model, "loss_weights"))
    except ValueError:  # whatever is not known is said elsewhere
        return None
    labels, weights = keras.tree.flatten(y), keras.tree.flatten(sample_weight)
    weights = weights * len(labels) if len(weights) == 1 else weights
    if not len(families) == len(losses) == len(labels) == len(weights) or has_masks(model):
        return None
    try:
        parts = [
            None if loss is None else _of_output(*one, loss)
            for *one, loss in zip(families, labels, weights, losses, strict=True)
        ]
    except Exception:  # labels that the loss itself refuses, in the first step
        return None
    if any(part is None for part in parts):
        return None
    value = sum(
        (1.0 if factor is None else factor) * part.value
        for factor, part in zip(factors, parts, strict=True)
    )
    return ConstantLoss(float(value), parts[0].words, all(part.is_in_nats for part in parts))


def has_masks(model):
    """Whether layers may leave positions out of the loss."""
    return any(
        getattr(layer, "mask_zero", False) or isinstance(layer, keras.layers.Masking)
        for layer in flatten_layers(model)
    )


def _of_output(family, y, weights, loss):
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "biuf" or not np.isfinite(y).all():
        return None
    reduction = getattr(loss, "reduction", "sum_over_batch_size")
    if weights is not None and reduction == "mean_with_sample_weight":
        return None
    if isinstance(family, Categorical):
        return _of_classes(family, y, weights, loss)
    y = y.astype("float32").reshape(len(y), *(y.shape[1:] or (1,)))
    width = y.shape[-1]
    if not np.ptp(y.reshape(-1, width), axis=0).any():
        return None
    if isinstance(family, Bernoulli):
        return _of_yes_or_no(family, y, weights)
    if isinstance(family, (Gaussian, NoiseOfTheLoss, Poisson)):
        is_in_nats = isinstance(family, Poisson) or isinstance(loss, NegativeLogLikelihood)
        return ConstantLoss(_least(y, weights, loss), "their mean or median", is_in_nats)
    if not isinstance(loss, NegativeLogLikelihood) or weights is not None:
        return None
    if isinstance(family, HeteroscedasticGaussian):
        found = guess_of_real_numbers(y, np.ones_like(y)).value
    else:
        found = family.guess(ops.convert_to_tensor(y))
    return None if found is None else ConstantLoss(float(found), "one distribution", True)


def _of_classes(family, y, weights, loss):
    """Their entropy."""
    if loss_name(loss).replace("_", "").lower().startswith("sparse"):
        y = y.reshape(y.shape[:-1]) if y.ndim > 1 and y.shape[-1] == 1 else y
        weight = label_weights(weights, y.shape)
        if family.ignore_class is not None:
            if weights is not None:
                return None
            weight = weight * (y != family.ignore_class)
        counts = np.bincount(np.unique(y, return_inverse=True)[1].ravel(), weight.ravel())
        shares = counts / counts.sum()
    else:
        y = np.moveaxis(y, family.axis, -1)
        weight = label_weights(weights, y.shape[:-1])
        shares = family.smoothed(weighted_mean(y.reshape(-1, y.shape[-1]), weight.ravel()))
    shares = shares[shares > 0]
    if len(shares) < 2:
        return None
    mean_weight = 1.0 if family.ignore_class is not None else weight.mean()
    value = -mean_weight * np.sum(shares * np.log(shares))
    return ConstantLoss(value, "how often each class occurs", True)


def _of_yes_or_no(family, y, weights):
    width = y.shape[-1]
    weight = label_weights(weights, y.shape).reshape(-1, width)
    totals = weight.sum(axis=0)
    if not totals.all():
        return None
    shares = family.smoothed((weight * y.reshape(-1, width)).sum(axis=0) / totals)
    yes, no = np.maximum(shares, 1e-7), np.maximum(1 - shares, 1e-7)
    entropies = -(shares * np.log(yes) + (1 - shares) * np.log(no))
    value = np.mean(weight.mean(axis=0) * entropies)
    return ConstantLoss(value, "how often each label occurs", True)


def _least(y, weights, loss):
    """The compiled loss of the better of mean and median, of each unit."""
    flat = y.reshape(-1, y.shape[-1])
    compiled = as_loss(loss)
    return min(
        float(compiled(y, np.broadcast_to(constant, y.shape), sample_weight=weights))
        for constant in (flat.mean(axis=0), np.median(flat, axis=0))
    )
