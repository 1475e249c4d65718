"""From inputs and output gradients to the statistics of a block."""

import math

import keras
from keras import ops

from keras_langevin.autodiff import kernel_vjp
from keras_langevin.distribution import num_replicas
from keras_langevin.statistics.block import (
    BIAS_SECOND_MOMENT,
    CROSS_MOMENT,
    INPUT_MEAN,
    INPUT_SECOND_MOMENT,
    SECOND_MOMENT,
    SHIFT,
    UNIT_SCALE,
)


def measure(block, features, deltas, shift, kinds, spatial) -> dict:
    """Statistics of one block on one batch, float32.

    Args:
        features: What meets the kernel, shape (batch, positions..., features...); integers
            for a look-up.
        deltas: δ, the derivative of each example's own loss by z, shaped as z.
        shift: Rows (last, current) of what is subtracted from the features, or None.
        kinds: Which statistics to return.
        spatial: `"independent"` sums δ²x² over positions, as if the gradients at two
            positions of one example were uncorrelated; `"exact"` squares the sum.
    """
    # All are quadratic in δ: dividing it by √batch makes means of sums, in the smallest array.
    deltas = deltas * ops.rsqrt(ops.cast(ops.shape(deltas)[0], "float32"))
    if keras.backend.is_float_dtype(features.dtype):
        features = ops.cast(features, "float32")
    centred = features if shift is None else features - _like(features, shift[1])
    moments = _exact if spatial == "exact" else _independent
    values = moments(block, centred, deltas, kinds)
    if SHIFT in kinds:
        # Any shift is exact as long as measuring and using it agree; the mean is precise.
        means = _mean(ops.reshape(features, (-1, shift.shape[1])), shift[1])
        values[SHIFT] = ops.stack([shift[1], means])
    return values


def measure_inputs(block, features, deltas, shift) -> dict:
    """Moments of what a block's kernel meets, about the shift, and what balances the layers.

    Args:
        features: Shape (batch, positions..., features...), without padding.
        deltas: Shaped as z, for its shape alone.
    """
    flat = ops.reshape(ops.cast(features, "float32"), (-1, shift.shape[1]))
    centred = flat - shift[1]
    return {
        INPUT_MEAN: _mean(centred, 0.0),
        INPUT_SECOND_MOMENT: _mean(ops.square(centred), 0.0),
        SHIFT: ops.stack([shift[1], _mean(flat, shift[1])]),
        UNIT_SCALE: _unit_scale(block, deltas),
    }


def _mean(rows, of_none):
    """The mean over rows. A replica has none where the last batch has fewer examples than there
    are replicas."""
    mean = ops.mean(rows, axis=0)
    if num_replicas() == 1:
        return mean
    return ops.where(ops.shape(rows)[0] > 0, mean, of_none)


def _unit_scale(block, deltas):
    """q² = max(inputs of a unit / batch, √positions): Lange et al. (2022), propositions 5, 11."""
    batch = ops.cast(ops.shape(deltas)[0] * num_replicas(), "float32")
    batch = ops.maximum(batch, 1.0)
    units = math.prod(block.bias_shape)
    inputs = math.prod(block.kernel.shape) // units
    positions = math.prod(ops.shape(deltas)[1:]) / units
    return ops.maximum(inputs / batch, ops.sqrt(ops.cast(positions, "float32")))


def _independent(block, features, deltas, kinds):
    squared = ops.square(deltas)
    values = {SECOND_MOMENT: _kernel_gradient(block, _squared(features), squared)}
    if BIAS_SECOND_MOMENT in kinds:
        values[BIAS_SECOND_MOMENT] = _bias_gradient(block, squared)
    if CROSS_MOMENT in kinds:
        values[CROSS_MOMENT] = _kernel_gradient(block, features, squared)
    return values


def _exact(block, features, deltas, kinds):
    kernel_gradients = per_example_kernel_gradients(block, features, deltas)
    values = {SECOND_MOMENT: ops.sum(ops.square(kernel_gradients), axis=0)}
    if BIAS_SECOND_MOMENT in kinds:
        bias_gradients = _bias_gradient(block, deltas, keep_examples=True)
        values[BIAS_SECOND_MOMENT] = ops.sum(ops.square(bias_gradients), axis=0)
        if CROSS_MOMENT in kinds:
            like_kernel = ops.reshape(bias_gradients, (-1, *block.bias_shape))
            values[CROSS_MOMENT] = ops.sum(kernel_gradients * like_kernel, axis=0)
    return values


def per_example_kernel_gradients(block, features, deltas):
    """Shape (batch, *kernel.shape): memory grows with the batch times the kernel."""
    if block.per_example is not None:
        return block.per_example(block, features, deltas)
    return ops.vectorized_map(lambda pair: _one_example(block, *pair), (features, deltas))


def one_by_one(block, features, deltas):
    """The same in a loop, for an `op` whose gradient cannot be vectorized everywhere."""
    return ops.map(lambda pair: _one_example(block, *pair), (features, deltas))


def _one_example(block, features, deltas):
    return _kernel_gradient(block, ops.expand_dims(features, 0), ops.expand_dims(deltas, 0))


def _kernel_gradient(block, features, cotangent):
    if block.adjoint is not None:
        return block.adjoint(features, cotangent)
    return kernel_vjp(
        lambda kernel: block.op(features, kernel), tuple(block.kernel.shape), cotangent
    )


def _bias_gradient(block, deltas, keep_examples=False):
    rank = len(deltas.shape)
    kept = {axis % rank for axis in block.bias_axes} | ({0} if keep_examples else set())
    total = ops.sum(deltas, axis=tuple(a for a in range(rank) if a not in kept))
    return ops.reshape(total, (*([-1] if keep_examples else []), *block.bias.shape))


def _like(features, shift):
    """One number for each feature, shaped as the last axes of the features."""
    shape, axis = [], len(features.shape)
    while math.prod(shape) < shift.shape[0]:
        axis -= 1
        shape.insert(0, features.shape[axis])
    return ops.reshape(shift, shape)


def _squared(features):
    return ops.square(features) if keras.backend.is_float_dtype(features.dtype) else features
