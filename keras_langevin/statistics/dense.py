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
                bias=layer.bias,
                bias_shape=(1, units),
                shift_shape=(inputs, 1),
            )
        ]
