"""Whether a layer can be run for one example alone, tried on random numbers before training."""

import keras
import numpy as np
from keras import ops

from keras_langevin import keras_internals
from keras_langevin.statistics.layer_call import LayerCall
from keras_langevin.statistics.whole_layer import (
    ExampleGradients,
    held_values,
    in_inference,
    must_run_one_by_one,
)

EXAMPLES, UNKNOWN_SIZE = 3, 4
_MIXES = "its output for one example depends on the others of the batch, or is random"
_HIDES = "its output does not follow the weights that Keras knows"


def try_layer(layer, trained):
    """Runs the layer on a batch and on its examples one by one.

    Returns:
        `(reason, one_by_one)`: why it cannot be measured, or None; and whether only one example
        after another can.
    """
    reason = "it was not built from the shapes of its inputs"
    for dtype in ("float32", "int32"):
        arguments = _arguments(layer, dtype)
        if arguments is None:
            continue
        try:
            return _tried(layer, trained, *arguments)
        except Exception as error:  # whatever layers and backends may raise
            said = str(error).strip().splitlines() or [""]
            reason = f"it fails for one example alone, {type(error).__name__}: {said[0][:200]}"
    return reason, False


def _tried(layer, trained, args, kwargs):
    plain = layer.call
    if keras_internals.takes_training(layer):
        kwargs = {**kwargs, "training": True}
    call = LayerCall(layer, plain, args, kwargs, in_inference(layer))
    values = held_values(layer)
    of_batch = _run(call, values, call.examples)
    alone = [_run(call, values, [x[n : n + 1] for x in call.examples]) for n in range(EXAMPLES)]
    if of_batch.shape[0] != EXAMPLES:
        return "its output has no row for every example", False
    if not np.allclose(of_batch, np.concatenate(alone), rtol=1e-3, atol=1e-4):
        return _MIXES, False
    ids = {id(v) for v in trained}
    others = [(v, 1.5 * value + 0.1 if id(v) in ids else value) for v, value in values]
    if np.array_equal(of_batch, _run(call, others, call.examples)):
        return _HIDES, False
    if must_run_one_by_one(layer):
        return None, True
    return None, not _can_vectorize(call, trained, values, of_batch)


def _can_vectorize(call, trained, values, outputs):
    """Whether it agrees with one example after another."""
    found = ExampleGradients(
        call, trained, values, call.examples, ops.convert_to_tensor(np.ones_like(outputs))
    )

    def squares(gradients):
        return [ops.sum(ops.cast(ops.square(g), "float32"), axis=0) for g in gradients]

    expected = found.summed_one_by_one(squares, [tuple(v.shape) for v in trained])
    try:
        value = squares(found.at_once())
    except Exception:  # whatever vectorization may raise
        return False
    pairs = [map(ops.convert_to_numpy, pair) for pair in zip(value, expected, strict=True)]
    return all(np.allclose(a, b, rtol=1e-2, atol=1e-4) for a, b in pairs)


def _run(call, values, examples):
    return ops.convert_to_numpy(ops.cast(call.run(values, examples), "float32"))


def _arguments(layer, dtype):
    """Random arguments of the layer's call, or None where its inputs are not known."""
    symbolic = keras_internals.symbolic_arguments(layer)
    if symbolic is not None:
        return keras.tree.map_structure(_filled, symbolic)
    shapes = keras_internals.build_shapes(layer)
    if not shapes:
        return None
    inputs = {name.removesuffix("_shape"): _random(s, dtype) for name, s in shapes.items()}
    if len(inputs) == 1:
        return tuple(inputs.values()), {}
    return (), inputs


def _filled(value):
    if not isinstance(value, keras.KerasTensor):
        return value
    return _random(value.shape, value.dtype)


def _random(shape, dtype):
    """Shape or nested shapes to arrays: the first axis counts examples."""
    if not _is_shape(shape):
        return keras.tree.map_shape_structure(lambda s: _random(s, dtype), shape)
    shape = (EXAMPLES, *(UNKNOWN_SIZE if n is None else n for n in shape[1:]))
    random = np.random.default_rng(0)
    if keras.backend.is_float_dtype(dtype):
        return ops.convert_to_tensor(random.normal(0.3, 1.0, shape), dtype)
    return ops.convert_to_tensor(random.integers(0, 2, shape), dtype)


def _is_shape(shape):
    return isinstance(shape, (tuple, list)) and all(n is None or isinstance(n, int) for n in shape)
