"""Separable convolutions: a depthwise convolution without bias, then a Dense layer on the
channels of every position."""

import functools

import keras
from keras import ops

from keras_langevin.statistics.block import Block
from keras_langevin.statistics.convolution import channels_last, options, padded, per_example
from keras_langevin.statistics.registry import LayerRule, register_rule


@register_rule((keras.layers.SeparableConv1D, keras.layers.SeparableConv2D))
class SeparableConvolutionRule(LayerRule):
    def blocks(self, layer):
        channels, filters = layer.pointwise_kernel.shape[-2:]
        ones = (1,) * layer.rank
        return [
            Block(
                layer.depthwise_kernel,
                op=functools.partial(ops.depthwise_conv, **options(layer)),
                bias_shape=(*ones, *layer.depthwise_kernel.shape[-2:]),
                shift_shape=(*ones, layer.depthwise_kernel.shape[-2], 1),
                per_example=per_example(layer, layer.depthwise_kernel.shape[-2]),
            ),
            Block(
                layer.pointwise_kernel,
                op=_pointwise,
                bias=layer.bias,
                bias_shape=(*ones, 1, filters),
                shift_shape=(*ones, channels, 1),
            ),
        ]

    def features(self, layer, inputs, deltas):
        inputs = ops.cast(padded(layer, channels_last(layer, inputs)), "float32")
        deltas = channels_last(layer, deltas)
        depthwise, pointwise = (
            ops.cast(kernel, "float32")
            for kernel in (layer.depthwise_kernel, layer.pointwise_kernel)
        )
        middle = ops.depthwise_conv(inputs, depthwise, **options(layer))
        return [(inputs, ops.matmul(deltas, ops.transpose(_matrix(pointwise)))), (middle, deltas)]

    def inputs(self, layer, inputs, deltas):
        (_, depthwise_deltas), pointwise = self.features(layer, inputs, deltas)
        return [(channels_last(layer, inputs), depthwise_deltas), pointwise]


def _pointwise(features, kernel):
    return ops.matmul(features, _matrix(kernel))


def _matrix(kernel):
    return ops.reshape(kernel, kernel.shape[-2:])
