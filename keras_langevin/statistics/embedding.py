"""Embedding: z = the kernel's row with the number x. Rows that a batch lacks get zero."""

import keras
from keras import ops

from keras_langevin.statistics.block import Block
from keras_langevin.statistics.registry import LayerRule, register_rule


@register_rule(keras.layers.Embedding)
class EmbeddingRule(LayerRule):
    def blocks(self, layer):
        return [Block(layer.embeddings, op=_look_up)]

    def features(self, layer, inputs, deltas):
        return [(ops.cast(inputs, "int32"), deltas)]


@register_rule(keras.layers.ReversibleEmbedding)
class ReversibleEmbeddingRule(LayerRule):
    """Not measured: its `reverse=True` meets the same weights as a matrix product."""

    def blocks(self, layer):
        return []


def _look_up(ids, table):
    return ops.take(table, ids, axis=0)
