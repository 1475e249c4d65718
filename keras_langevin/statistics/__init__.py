"""Per-example gradient statistics, measured during the ordinary backward pass."""

from keras_langevin.statistics import (  # noqa: F401  (rules register themselves)
    convolution,
    dense,
    einsum_dense,
    embedding,
    normalization,
    reference,
    reversible_embedding,
    separable_convolution,
)
from keras_langevin.statistics.block import Block, Statistic
from keras_langevin.statistics.registry import LayerRule, find_rule, register_rule
from keras_langevin.statistics.track import (
    is_tracked,
    track_statistics,
    untrack_statistics,
    untracked,
)

__all__ = [
    "Block",
    "LayerRule",
    "Statistic",
    "find_rule",
    "is_tracked",
    "reference",
    "register_rule",
    "track_statistics",
    "untrack_statistics",
    "untracked",
]
