"""Dense: z = x K + b."""

import keras
from keras import ops

from keras_langevin.statistics.block import Block
from keras_langevin.statistics.registry import LayerRule, register_rule


@register_rule(keras.layers.Dense)
class DenseRule(LayerRule):
    def blocks(self, layer):
        inputs, units = layer.kernel.shape
        return [
            Block(
                layer.kernel,
                op=ops.matmul,
                adjoint=_adjoint,
                bias=layer.bias,
                bias_shape=(1, units),
                shift_shape=(inputs, 1),
            )
        ]


def _adjoint(features, cotangent):
    flat = (ops.reshape(array, (-1, array.shape[-1])) for array in (features, cotangent))
    features, cotangent = flat
    return ops.matmul(ops.transpose(features), cotangent)
