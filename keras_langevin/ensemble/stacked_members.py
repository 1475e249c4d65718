"""The weights of all members, one stack for each weight of the network, and what they predict."""

import contextlib
import warnings

import keras
from keras import ops, tree

from keras_langevin.ensemble.members import default_batch_size, default_member_batch_size
from keras_langevin.ensemble.own_copy import take_constants
from keras_langevin.keras_internals import (
    flatten_layers,
    logits_of,
    mask_of,
    reading_keras_variables,
    set_logits,
    set_mask,
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
        names: Of the weights, in the same order; where the network is a copy, the original's.
        batch_size: How many members at once, or None for what suits the network.

    Attributes:
        network, names, batch_size: As above.
    """

    def __init__(self, network, stacks, names, batch_size=None):
        self.network, self._stacks, self.names = network, stacks, list(names)
        if batch_size is None:
            batch_size = default_member_batch_size(network, len(self))
        self.batch_size = min(batch_size, len(self))

    def __len__(self):
        return self._stacks[0].shape[0]

    def take_constants(self):
        """Gives the network the constants that layers make of weights which are not sampled."""
        take_constants(self.network, [stack[0] for stack in self._stacks])

    @contextlib.contextmanager
    def one_at_a_time(self):
        """Inside, members are not vectorised, which no tracer for other formats follows."""
        before, self.batch_size = self.batch_size, 1
        try:
            yield
        finally:
            self.batch_size = before

    def default_batch_size(self):
        """Examples that are evaluated at once."""
        return default_batch_size(self.network, len(self), self.batch_size)

    def arrays(self):
        """From weight name to the NumPy array of all members."""
        return {n: ops.convert_to_numpy(s) for n, s in zip(self.names, self._stacks, strict=True)}

    def outputs(self, inputs):
        """What each member's network returns, tensors of shape `(members, batch, ...)`. Hung on
        them is what the network hangs on its outputs: a mask `(batch, ...)`, and logits."""
        found = self._all_of(inputs)
        outputs = tree.flatten(found["outputs"])
        for index, mask in found["masks"].items():
            set_mask(outputs[int(index)], mask[0])
        for index, logits in found["logits"].items():
            set_logits(outputs[int(index)], logits)
        return found["outputs"]

    def _all_of(self, inputs):
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

        def of_members(start, size):
            return self._outputs_of(inputs, start, size)["outputs"]

        def add_chunk(i, totals):
            chunk = sums(of_members(self._chunk_start(i), self.batch_size))
            return [total + one for total, one in zip(totals, chunk, strict=True)]

        totals = sums(of_members(0, self._first_size))
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
        """Outputs of the members from `start` on, shape `(size, batch, ...)`, float32 or wider,
        and masks and logits of those that have some, by their place among the outputs."""
        stacks = [ops.convert_to_tensor(stack) for stack in self._stacks]
        layers = flatten_layers(self.network)
        with untracked(self.network), reading_keras_variables(layers):
            if size == 1:  # by an index, which copies nothing
                found = self._outputs_with(inputs, [stack[start] for stack in stacks])
                return tree.map_structure(lambda o: ops.expand_dims(o, 0), found)
            weights = [
                ops.slice(stack, [start] + [0] * (len(stack.shape) - 1), [size, *stack.shape[1:]])
                for stack in stacks
            ]
            return _vectorized(lambda w: self._outputs_with(inputs, w), weights, size)

    def _outputs_with(self, inputs, weights):
        variables = named_weights(self.network).values()
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            outputs = self.network(inputs, training=False)
        flat = tree.flatten(outputs)
        return {
            "outputs": tree.map_structure(at_least_float32, outputs),
            "masks": _by_place(map(mask_of, flat)),
            "logits": _by_place(map(logits_of, flat)),
        }


def _by_place(found):
    return {str(place): one for place, one in enumerate(found) if one is not None}


def _vectorized(function, weights, size):
    """`function` of each member's weights, all at once; on torch one after another where `vmap`
    refuses a layer."""
    if keras.backend.backend() != "torch":
        return ops.vectorized_map(function, weights)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            return ops.vectorized_map(function, weights)
    except RuntimeError:
        found = [function([w[member] for w in weights]) for member in range(size)]
        return tree.map_structure(lambda *parts: ops.stack(parts), *found)
