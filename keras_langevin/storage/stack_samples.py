"""From posterior samples to one stacked array for each weight."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_langevin import arguments
from keras_langevin.weights import named_weights, parameters

_FORMS = (
    "mappings from weight name to array (a `SampleStore` is an iterable of such), or lists of "
    "arrays in the order of `model.trainable_variables`"
)


def stack_samples(model, samples):
    """Checks the samples and stacks them.

    Returns:
        A list with the `chain` of each sample, 0 where it has none; and an iterator that gives,
        for each weight of `named_weights(model)`, an array of shape `(members, *weight.shape)`.

    Raises:
        ValueError: If there are no samples, or one does not fit the model or is not finite.
    """
    samples = arguments.iterator("samples", samples, f"an iterable of {_FORMS}", "sample")
    weights = named_weights(model)
    columns = {name: [] for name in weights}
    chains = []
    for index, sample in enumerate(samples):
        chains.append(getattr(sample, "chain", 0))
        arrays = _as_mapping(sample, index, model, weights)
        for name, weight in weights.items():
            columns[name].append(_checked(arrays[name], weight, name, index))
    if not chains:
        raise ValueError(
            "An ensemble must have at least one sample. Received: samples with no element. Train "
            "longer than the burn-in, and pass a generator only once."
        )
    return chains, (np.stack(columns.pop(name)) for name in weights)


def _as_mapping(sample, index, model, weights):
    if not isinstance(sample, Mapping):
        return _from_list(sample, index, model, weights)
    sampled = [name for name, _ in zip(weights, parameters(model), strict=False)]
    expected = list(weights) if any(name not in sampled for name in sample) else sampled
    missing = [name for name in expected if name not in sample]
    unexpected = [name for name in sample if name not in weights]
    if missing or unexpected:
        raise ValueError(
            "A sample must hold the weights of the model by name, all of them or the parameters "
            f"alone. Received: samples[{index}], missing: {_few(missing)}; not in the model: "
            f"{_few(unexpected)}. Use the model the samples were drawn from; where only automatic "
            "names differ (`dense_1` for `dense`), call `keras.utils.clear_session()` before "
            "building it or name the layers."
        )
    own = {name: weights[name] for name in weights if name not in sample}
    return {**sample, **{name: ops.convert_to_numpy(v) for name, v in own.items()}}


def _from_list(sample, index, model, weights):
    expected = len(parameters(model))
    if not isinstance(sample, (list, tuple)) or len(sample) != expected:
        is_list = isinstance(sample, (list, tuple))
        has = f"{len(sample)} arrays" if is_list else type(sample).__name__
        raise ValueError(
            f"`samples` must be {_FORMS}, here {expected} arrays. Received: samples[{index}] with "
            f"{has}. `model.get_weights()` also holds what is not trained: name the arrays instead."
        )
    names = list(weights)
    own = {name: ops.convert_to_numpy(weights[name]) for name in names[expected:]}
    return {**dict(zip(names, sample, strict=False)), **own}


def _checked(array, weight, name, index):
    array = arguments.array(f"samples[{index}][{name!r}]", array)
    if array.shape != tuple(weight.shape):
        raise ValueError(
            f"The arrays of a sample must have the shapes of the weights: '{name}' has the shape "
            f"{tuple(weight.shape)}. Received: shape {array.shape} in samples[{index}]. Use the "
            "model the samples were drawn from."
        )
    if keras.backend.is_float_dtype(weight.dtype) and not _is_finite(array):
        raise ValueError(
            f"A sample must be finite. Received: NaN or infinity in '{name}' of samples[{index}]. "
            "Leave the sample out, and lower the learning rate."
        )
    return array


def _is_finite(array):
    """In float32 too."""
    is_wide = array.dtype.itemsize > 4 and array.size
    return np.isfinite(array).all() and not (is_wide and np.abs(array).max() > arguments.LARGEST)


def _few(names):
    words = ", ".join(f"'{name}'" for name in names[:3]) or "nothing"
    return f"{words} and {len(names) - 3} more" if len(names) > 3 else words
