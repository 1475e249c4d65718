"""Embedding: z = the kernel's row with the number x. Rows that a batch lacks get zero."""

import keras
from keras import ops

from keras_langevin.statistics.block import Block
from keras_langevin.statistics.registry import LayerRule, register_rule


@register_rule(keras.layers.Embedding)
class EmbeddingRule(LayerRule):
    looks_up = True

    def blocks(self, layer):
        return [Block(layer.embeddings, op=_look_up)]

    def features(self, layer, inputs, deltas):
        return [(ops.cast(inputs, "int32"), deltas)]


def _look_up(ids, table):
    return ops.take(table, ids, axis=0)
