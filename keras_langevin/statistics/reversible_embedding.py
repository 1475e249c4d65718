"""ReversibleEmbedding: a look-up, or with `reverse=True` a product with the same table.

Calls of one layer count as independent, as positions of one example do.
"""

import keras
from keras import ops

from keras_langevin.statistics.block import Block
from keras_langevin.statistics.registry import LayerRule, register_rule


@register_rule(keras.layers.ReversibleEmbedding)
class ReversibleEmbeddingRule(LayerRule):
    """A layer with `tie_weights=False` has a second table for the product: of its two blocks the
    one that a call does not use gets δ = 0."""

    looks_up = True

    def blocks(self, layer):
        blocks = [Block(layer.embeddings, op=_look_up_or_multiply)]
        if not layer.tie_weights:
            blocks.append(Block(layer.reverse_embeddings, op=ops.matmul))
        return blocks

    def features(self, layer, inputs, deltas):
        if _is_reverse(inputs, deltas):
            inputs = ops.cast(inputs, "float32")
            pair = (inputs, _before_cap(layer, inputs, deltas))
            idle = _unused((1,), (1, layer.output_dim), inputs, "int32")
            return [pair] if layer.tie_weights else [idle, pair]
        pair = (ops.cast(inputs, "int32"), deltas)
        idle = _unused((1, layer.output_dim), (1, layer.input_dim), inputs, "float32")
        return [pair] if layer.tie_weights else [pair, idle]


def _is_reverse(inputs, deltas):
    """A look-up has an axis more behind than in front."""
    return len(inputs.shape) == len(deltas.shape)


def _before_cap(layer, inputs, deltas):
    """The derivative by the logits before `logit_soft_cap`."""
    if layer.logit_soft_cap is None:
        return deltas
    table = ops.transpose(layer.embeddings) if layer.tie_weights else layer.reverse_embeddings
    logits = ops.matmul(inputs, ops.cast(table, "float32"))
    return deltas * (1.0 - ops.square(ops.tanh(logits / layer.logit_soft_cap)))


def _unused(features, deltas, inputs, dtype):
    batch = ops.shape(inputs)[0]
    return ops.zeros((batch, *features), dtype), ops.zeros((batch, *deltas))


def _look_up_or_multiply(features, table):
    if keras.backend.is_float_dtype(features.dtype):
        return ops.matmul(features, ops.transpose(table))
    return ops.take(table, features, axis=0)
