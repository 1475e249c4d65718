"""Normalization layers: z = x̂ γ + β, a unit with one input for every γ.

A layer without γ has β as the kernel of an input that is always 1.
"""

import keras
from keras import ops

from keras_langevin.keras_internals import refusal
from keras_langevin.statistics.batch_moments import follows_batches, mixes_examples
from keras_langevin.statistics.block import Block
from keras_langevin.statistics.registry import LayerRule, register_rule


class NormalizationRule(LayerRule):
    """What the rules share; one says which weights a layer has and what its x̂ is."""

    def weights(self, layer):
        """γ and β, None for one that the layer lacks."""
        return layer.gamma, layer.beta

    def normalized(self, layer, inputs):
        """x̂ from the layer's input, float32."""
        raise NotImplementedError

    def blocks(self, layer):
        gamma, beta = self.weights(layer)
        if gamma is None and beta is None:
            return []
        kernel, bias = (beta, None) if gamma is None else (gamma, beta)
        shape = tuple(kernel.shape)
        axes = tuple(range(-len(shape), 0))
        return [Block(kernel, _scale, bias, bias_shape=shape, bias_axes=axes, shift_shape=shape)]

    def features(self, layer, inputs, deltas):
        gamma, beta = self.weights(layer)
        if gamma is None and beta is None:
            return []
        if gamma is None:
            normalized = ops.ones_like(deltas)
        else:
            normalized = self.normalized(layer, ops.cast(inputs, "float32"))
        return [tuple(_with_axes_last(x, layer.axis) for x in (normalized, deltas))]


@register_rule(keras.layers.LayerNormalization)
class LayerNormalizationRule(NormalizationRule):
    def normalized(self, layer, inputs):
        mean, variance = ops.moments(inputs, axes=_sorted_axes(inputs, layer.axis), keepdims=True)
        if layer.rms_scaling:
            mean = ops.zeros_like(mean)
        return (inputs - mean) * ops.rsqrt(variance + layer.epsilon)


@register_rule(keras.layers.RMSNormalization)
class RMSNormalizationRule(NormalizationRule):
    def weights(self, layer):
        return layer.scale, None

    def normalized(self, layer, inputs):
        squares = ops.mean(ops.square(inputs), axis=_sorted_axes(inputs, layer.axis), keepdims=True)
        return inputs * ops.rsqrt(squares + layer.epsilon)


@register_rule(keras.layers.GroupNormalization)
class GroupNormalizationRule(NormalizationRule):
    def normalized(self, layer, inputs):
        last = ops.moveaxis(inputs, layer.axis, -1)
        shape = ops.shape(last)
        grouped = ops.reshape(last, (shape[0], -1, layer.groups, shape[-1] // layer.groups))
        mean, variance = ops.moments(grouped, axes=(1, 3), keepdims=True)
        grouped = (grouped - mean) * ops.rsqrt(variance + layer.epsilon)
        return ops.moveaxis(ops.reshape(grouped, shape), -1, layer.axis)


@register_rule(keras.layers.BatchNormalization)
class BatchNormalizationRule(NormalizationRule):
    def check(self, layer, inputs, kwargs):
        if kwargs.get("training") and follows_batches(layer):
            raise refusal(mixes_examples(layer))

    def inputs(self, layer, inputs, deltas):
        if not follows_batches(layer) or layer.gamma is None:
            return self.features(layer, inputs, deltas)
        axis = layer.axis % len(inputs.shape)
        others = tuple(a for a in range(len(inputs.shape)) if a != axis)
        mean, variance = ops.moments(ops.cast(inputs, "float32"), axes=others, keepdims=True)
        normalized = (inputs - mean) * ops.rsqrt(variance + layer.epsilon)
        return [tuple(_with_axes_last(x, layer.axis) for x in (normalized, deltas))]

    def normalized(self, layer, inputs):
        shape = [1] * len(inputs.shape)
        shape[layer.axis] = -1
        mean, variance = (
            ops.reshape(ops.cast(v, "float32"), shape)
            for v in (layer.moving_mean, layer.moving_variance)
        )
        return (inputs - mean) * ops.rsqrt(variance + layer.epsilon)


def _scale(normalized, gamma):
    return normalized * ops.reshape(gamma, normalized.shape[-len(gamma.shape) :])


def _sorted_axes(x, axis):
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return tuple(sorted(a % len(x.shape) for a in axes))


def _with_axes_last(x, axis):
    axes = _sorted_axes(x, axis)
    return ops.moveaxis(x, axes, tuple(range(-len(axes), 0)))
