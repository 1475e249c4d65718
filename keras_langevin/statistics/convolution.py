"""Convolutions: at every position z = (a window of x) · K + b.

The rules bring inputs and δ to channels_last and pad the input themselves, so that what is
left is one kind of convolution, and the padding counts as input when features are shifted.
"""

import functools
import itertools

import keras
from keras import ops

from keras_langevin.statistics.block import Block
from keras_langevin.statistics.measure import one_by_one
from keras_langevin.statistics.registry import LayerRule, register_rule


@register_rule((keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D))
class ConvolutionRule(LayerRule):
    def blocks(self, layer):
        inputs, filters = layer.kernel.shape[-2:]
        ones = (1,) * layer.rank
        op = functools.partial(ops.conv, **options(layer))
        return [
            Block(
                layer.kernel,
                op=op,
                bias=layer.bias,
                bias_shape=(*ones, 1, filters),
                # With groups a unit sees a part of the channels only.
                shift_shape=(*ones, inputs, 1) if layer.groups == 1 else None,
                per_example=per_example(layer, layer.groups),
            )
        ]

    def features(self, layer, inputs, deltas):
        return [(padded(layer, channels_last(layer, inputs)), channels_last(layer, deltas))]

    def inputs(self, layer, inputs, deltas):
        return [(channels_last(layer, inputs), channels_last(layer, deltas))]


@register_rule((keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D))
class DepthwiseConvolutionRule(LayerRule):
    def blocks(self, layer):
        channels, multiplier = layer.kernel.shape[-2:]
        ones = (1,) * layer.rank
        return [
            Block(
                layer.kernel,
                op=functools.partial(ops.depthwise_conv, **options(layer)),
                bias=layer.bias,
                bias_shape=(*ones, channels, multiplier),
                shift_shape=(*ones, channels, 1),
                per_example=per_example(layer, channels),
            )
        ]

    def features(self, layer, inputs, deltas):
        return [(padded(layer, channels_last(layer, inputs)), channels_last(layer, deltas))]

    def inputs(self, layer, inputs, deltas):
        return [(channels_last(layer, inputs), channels_last(layer, deltas))]


@register_rule(
    (
        keras.layers.Conv1DTranspose,
        keras.layers.Conv2DTranspose,
        keras.layers.Conv3DTranspose,
    )
)
class TransposedConvolutionRule(LayerRule):
    def blocks(self, layer):
        filters = layer.kernel.shape[-2]
        op = functools.partial(
            ops.conv_transpose,
            strides=layer.strides,
            padding=layer.padding,
            output_padding=layer.output_padding,
            dilation_rate=layer.dilation_rate,
            data_format="channels_last",
        )
        return [
            Block(
                layer.kernel,
                op=op,
                bias=layer.bias,
                bias_shape=(*(1,) * layer.rank, filters, 1),
                per_example=one_by_one,  # no shift: an output is reached by some taps only
            )
        ]

    def features(self, layer, inputs, deltas):
        return [(channels_last(layer, inputs), channels_last(layer, deltas))]


def options(layer):
    """What is left to say of a convolution whose input is padded and channels_last."""
    return {
        "strides": layer.strides,
        "dilation_rate": layer.dilation_rate,
        "padding": "valid",
        "data_format": "channels_last",
    }


def channels_last(layer, x):
    return x if layer.data_format == "channels_last" else ops.moveaxis(x, 1, -1)


def padded(layer, x):
    """The input with the zeros that the layer's `padding` stands for."""
    if layer.padding == "valid":
        return x
    widths = [_padding(layer, axis, n) for axis, n in enumerate(ops.shape(x)[1:-1])]
    return ops.pad(x, [(0, 0), *widths, (0, 0)])


def _padding(layer, axis, size):
    stride = layer.strides[axis]
    reach = layer.dilation_rate[axis] * (layer.kernel_size[axis] - 1)
    if layer.padding == "causal":
        return reach, 0
    total = reach - (size - 1) % stride  # "same": ceil(size / stride) outputs
    total = max(total, 0) if isinstance(total, int) else ops.maximum(total, 0)
    return total // 2, total - total // 2


def per_example(layer, groups):
    """The kernel's gradient of every example as a batched matrix product: no backend runs
    the gradient of a convolution for many examples at once, fast and without a warning."""

    def gradients(block, features, deltas):
        taps = windows(layer, features, ops.shape(deltas)[1:-1])
        batch, channels, filters = ops.shape(deltas)[0], features.shape[-1], deltas.shape[-1]
        taps = ops.reshape(taps, (batch, -1, taps.shape[-2], groups, channels // groups))
        deltas = ops.reshape(deltas, (batch, -1, groups, filters // groups))
        products = ops.einsum("bptgc,bpgf->btcgf", taps, deltas)
        return ops.reshape(products, (-1, *block.kernel.shape))

    return gradients


def windows(layer, features, outputs):
    """What every tap of the window meets at each position, (batch, positions..., taps,
    channels)."""
    taps = []
    for offsets in itertools.product(*map(range, layer.kernel_size)):
        starts = [o * d for o, d in zip(offsets, layer.dilation_rate, strict=True)]
        ranges = [
            slice(start, start + (n - 1) * stride + 1, stride)
            for start, n, stride in zip(starts, outputs, layer.strides, strict=True)
        ]
        taps.append(features[(slice(None), *ranges)])
    return ops.stack(taps, axis=-2)
