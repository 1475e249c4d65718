"""Dense: z = x K + b."""

import keras
from keras import ops

from keras_langevin.statistics.block import Block
from keras_langevin.statistics.registry import LayerRule, register_rule


@register_rule(keras.layers.Dense)
class DenseRule(LayerRule):
    def blocks(self, layer):
        return [Block(layer.kernel, ops.matmul, layer.bias)]
