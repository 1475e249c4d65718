"""The diagonal metric of weights that no layer's statistics measure.

Of a minibatch of size B the gradient ḡ is the mean of B examples' gradients g, so that B ḡ² has
the mean E[g²] + (B − 1) (E g)², which is E[g²] where the loss has its minimum and more elsewhere:
steps are then shorter. One number ḡ² says little of its mean, and a weight whose ḡ happens to be
near zero must not jump; so every entry takes half of the variable's own average:

    m = B (ḡ² + mean(ḡ²)) / 2
"""

import dataclasses

from keras import ops

from keras_langevin.preconditioners.preconditioner import BlockLayout
from keras_langevin.statistics.block import SECOND_MOMENT


def with_all_parameters(layout):
    """The layout with a block for every parameter that has none. Its statistic is one of those
    that `minibatch_moments` puts behind the measured ones, counted from the end."""
    blocks, left = tuple(layout.blocks), _left_out(layout)
    if layout.batch_size is None:
        return layout
    more = tuple(
        BlockLayout(position, None, None, None, {SECOND_MOMENT: n - len(left)})
        for n, position in enumerate(left)
    )
    return dataclasses.replace(layout, blocks=blocks + more)


def minibatch_moments(layout, gradients, statistics):
    """m for each of the blocks that `with_all_parameters` has added, in their order."""
    if layout.batch_size is None:
        return []
    batch = ops.maximum(statistics[layout.batch_size], 1.0)
    squares = (ops.square(gradients[i]) for i in _left_out(layout))
    return [0.5 * batch * (s + ops.mean(s)) for s in squares]


def _left_out(layout):
    measured = [(b.kernel, b.bias) for b in layout.blocks if min(b.statistics.values()) >= 0]
    taken = {position for pair in measured for position in pair}
    return [i for i in range(len(layout.shapes)) if i not in taken]
