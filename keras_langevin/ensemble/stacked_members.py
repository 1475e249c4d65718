"""The weights of all members, one stack for each weight of the network, and what they predict."""

import keras
from keras import ops, tree

from keras_langevin.ensemble.members import (
    default_batch_size,
    default_member_batch_size,
    take_constants,
)
from keras_langevin.predictive.output import at_least_float32
from keras_langevin.statistics import untracked
from keras_langevin.weights import named_weights


class StackedMembers:
    """One network with the weights of many members, evaluated some members at a time.

    A plain object, so that Keras does not track the network: its own weights are not the
    ensemble's. The stacks are variables of the ensemble.

    Args:
        network: A built model.
        stacks: A variable of shape `(members, *weight.shape)` for each of
            `named_weights(network)`.
        batch_size: How many members at once, or None for what suits the network.

    Attributes:
        network, batch_size: As above.
    """

    def __init__(self, network, stacks, batch_size=None):
        self.network, self._stacks = network, stacks
        if batch_size is None:
            batch_size = default_member_batch_size(network, len(self))
        self.batch_size = min(batch_size, len(self))

    def __len__(self):
        return self._stacks[0].shape[0]

    def take_constants(self):
        """Gives the network the constants that layers make of weights which are not sampled."""
        take_constants(self.network, [stack[0] for stack in self._stacks])

    def default_batch_size(self):
        """Examples that are evaluated at once."""
        return default_batch_size(self.network, len(self), self.batch_size)

    def arrays(self):
        """From weight name to the NumPy array of all members."""
        names = named_weights(self.network)
        return {n: ops.convert_to_numpy(s) for n, s in zip(names, self._stacks, strict=True)}

    def outputs(self, inputs):
        """What each member's network returns, tensors of shape `(members, batch, ...)`."""
        first = self._outputs_of(inputs, 0, self._first_size)
        if not self._num_chunks:
            return first
        rest = ops.map(
            lambda i: self._outputs_of(inputs, self._chunk_start(i), self.batch_size),
            ops.arange(self._num_chunks, dtype="int32"),
        )
        size = self._num_chunks * self.batch_size
        return tree.map_structure(
            lambda one, chunks: ops.concatenate(
                [one, ops.reshape(chunks, (size, *ops.shape(chunks)[2:]))]
            ),
            first,
            rest,
        )

    def averages(self, inputs, sums):
        """A list of averages over members of what `sums(outputs)` adds up, one chunk after the
        other, so that memory does not grow with the members."""

        def add_chunk(i, totals):
            chunk = sums(self._outputs_of(inputs, self._chunk_start(i), self.batch_size))
            return [total + one for total, one in zip(totals, chunk, strict=True)]

        totals = sums(self._outputs_of(inputs, 0, self._first_size))
        if self._num_chunks:
            totals = ops.fori_loop(0, self._num_chunks, add_chunk, totals)
        return [total / len(self) for total in totals]

    # The first chunk takes what is left over, and the loop starts from its result.

    @property
    def _first_size(self):
        return len(self) % self.batch_size or self.batch_size

    @property
    def _num_chunks(self):
        return (len(self) - self._first_size) // self.batch_size

    def _chunk_start(self, index):
        return self._first_size + index * self.batch_size

    def _outputs_of(self, inputs, start, size):
        """Outputs of the members from `start` on, shape `(size, batch, ...)`, float32 or wider."""
        stacks = [ops.convert_to_tensor(stack) for stack in self._stacks]
        with untracked(self.network):
            if size == 1:  # by an index, which copies nothing
                outputs = self._outputs_with(inputs, [stack[start] for stack in stacks])
                return tree.map_structure(lambda o: ops.expand_dims(o, 0), outputs)
            weights = [
                ops.slice(stack, [start] + [0] * (len(stack.shape) - 1), [size, *stack.shape[1:]])
                for stack in stacks
            ]
            return ops.vectorized_map(lambda w: self._outputs_with(inputs, w), weights)

    def _outputs_with(self, inputs, weights):
        variables = named_weights(self.network).values()
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            outputs = self.network(inputs, training=False)
        return tree.map_structure(at_least_float32, outputs)
