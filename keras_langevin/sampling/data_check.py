"""Warnings before hours are spent on data that the likelihood does not mean."""

import warnings

import keras
import numpy as np

from keras_langevin.keras_internals import (
    batches_of_fit,
    has_data_in_memory,
    labels_of_fit,
    passes_of_fit,
)
from keras_langevin.optimizers.snapshots import as_sampler
from keras_langevin.predictive.constant_loss import constant_loss
from keras_langevin.predictive.output import resolve_families
from keras_langevin.sampling.count_check import num_data_is_wrong
from keras_langevin.sampling.targets import Targets, numbers
from keras_langevin.training_data import joined

FEW_BATCHES = 4
MOST_LABELS = 20_000  # of arrays
FAR = 20.0  # in standard deviations of the noise: no residual of a network that fits
RIGHT_WEIGHTS = 0.5, 2.0


def check_data(model, steps=None, verbose=0):
    """Looks at the first batches of a running `fit`, where they are in memory or are read for
    `learning_rate="auto"` too, and at the labels of arrays.

    Args:
        steps: In an epoch; None where nobody knows.
        verbose: Of `fit`; where it is not 0, prints what may be meant otherwise.

    Returns:
        The `ConstantLoss` that the model should beat. None where it is not known, or there was a
        warning, whose cause would be that of a loss above it.
    """
    sampler = as_sampler(model.optimizer)
    if sampler.num_data is None:
        return None
    is_read = sampler.has_automatic_learning_rate and not sampler.has_learning_rate
    batches = batches_of_fit(model, FEW_BATCHES) if is_read or has_data_in_memory(model) else []
    labels = labels_of_fit(model, MOST_LABELS)
    from_arrays = labels is not None
    y, weights = labels if from_arrays else _joined(batches)
    if _weights_are_wrong(weights):
        return None
    targets = Targets(model, numbers(y))
    counted = min((float(np.mean(values != 0)) for values in numbers(weights)), default=1.0)
    if num_data_is_wrong(model, sampler.num_data, steps, batches, targets.most, counted):
        return None
    if verbose:
        targets.say_what_counts(sampler.num_data, passes_of_fit(model)[0])
    if _targets_are_wrong(model, batches):
        return None
    is_typical = y is not None and (from_arrays or _are_mixed(batches))
    return constant_loss(model, y, weights) if is_typical else None


def _joined(batches):
    """`(y, sample_weight)` of all of them; None where they cannot be joined."""
    try:
        parts = zip(*(batch[1:] for batch in batches), strict=True)
        y, weights = (None if part[0] is None else joined(part) for part in parts)
    except ValueError:  # of no batches, or of positions that differ in number
        return None, None
    return y, weights


def _weights_are_wrong(weights):
    for values in numbers(weights):
        values = values[values != 0]  # what is left out on purpose
        mean = float(np.mean(values)) if values.size else 1.0
        if not RIGHT_WEIGHTS[0] <= mean <= RIGHT_WEIGHTS[1]:
            warnings.warn(
                "`class_weight` and `sample_weight` multiply the likelihoods of the examples, and "
                f"should be 1 on average. Received: weights with mean {mean:.3g}, as if there were "
                f"{mean:.3g} times as many data. Divide them by their mean.",
                stacklevel=4,
            )
            return True
    return False


def _are_mixed(batches):
    """Whether the labels of the first batches differ as those of random batches do: in data that
    are sorted they say nothing of the others."""
    groups = [numbers(batch[1]) for batch in batches]
    if len(groups) < 2:
        return True
    columns = [np.concatenate([a.reshape(-1) for a in one]).astype("float64") for one in groups]
    within = np.mean([c.var() / c.size for c in columns])
    return np.var([c.mean() for c in columns], ddof=1) <= 10 * within


def _targets_are_wrong(model, batches):
    noises, found = _noises(model), [numbers(batch[1]) for batch in batches]
    if not found or any(len(y) != len(noises) for y in found):
        return False
    for place, noise in enumerate(noises):
        if noise is None:
            continue
        y = np.concatenate([one[place].ravel() for one in found]).astype("float64")
        dimension = found[0][place].shape[-1] if found[0][place].ndim > 1 else 1
        stddev = (dimension / 2) ** 0.5 if noise == "mse" else noise
        is_far = max(abs(y.mean()), y.std()) > FAR * stddev
        if is_far and _residual(model, batches[0], place) > FAR * stddev:
            warnings.warn(
                "The targets must be on the scale of the likelihood: the compiled loss means a "
                f"noise of standard deviation {stddev:.2g}, and the prior outputs about 0. "
                f"Received: y with mean {y.mean():.4g} and standard deviation {y.std():.3g}. "
                "Standardise y, or state its noise with `loss=kl.losses.GaussianNLL(stddev)` and "
                "rescale the outputs.",
                stacklevel=4,
            )
            return True
    return False


def _noises(model):
    """What each output's likelihood takes for the noise's standard deviation; None for others."""
    try:
        families = keras.tree.flatten(resolve_families(model))
    except ValueError:  # a loss that has no family, which is said elsewhere
        return []
    return [family.noise_stddev for family in families]


def _residual(model, batch, place):
    """Root mean square of target less prediction, at the present weights."""
    outputs = keras.tree.flatten(model.predict_on_batch(batch[0]))
    y = numbers(batch[1])[place]
    residual = y.reshape(len(y), -1) - outputs[place].reshape(len(y), -1)
    return float(np.sqrt(np.mean(np.square(residual, dtype="float64"))))
