"""A probe: measures a layer's statistics during the ordinary backward pass.

The layer's output passes through a gate that is the identity forward. Backward, the gate
hands on the gradient untouched and gives each statistics variable its statistic as if it were
its gradient; those variables are `overwrite_with_gradient`, so every Keras optimizer sets
them to that value.
"""

import keras
from keras import ops

from keras_langevin import keras_internals
from keras_langevin.distribution import num_loss_shares, num_replicas
from keras_langevin.statistics.block import INPUT_MEAN, SHIFT
from keras_langevin.statistics.layer_call import is_running_again
from keras_langevin.statistics.measure import measure, measure_inputs
from keras_langevin.statistics.probed_call import probed_call, take_out
from keras_langevin.statistics.sparse_inputs import dense_rows, is_sparse

LEAST_EXAMPLES = 32  # measured of a batch, that of all replicas, when no stride is given


class Probe:
    """Stands in a layer's call (`probed_call`) and measures of it what one model needs.

    Args:
        layer: The layer.
        rule: Its `LayerRule`.
        blocks: The layer's blocks by that rule.
        variables: For each block, a dict from kind to statistics variable; empty for a block
            that is not trained.
        spatial: `"independent"` or `"exact"`.
        stride: Measures every `stride`-th example; None: as few as leave
            `LEAST_EXAMPLES`.

    `shifts_by_own_mean` takes moments about the mean of the inputs at hand rather than that of
    the last batch, which micro-batches and replicas have in common.
    """

    shifts_by_own_mean = False
    is_measuring = True  # off, it checks the layer's calls alone
    checks_calls = True

    def __init__(self, layer, rule, blocks, variables, spatial, stride):
        self.layer, self.rule, self.blocks = layer, rule, blocks
        self.variables, self.spatial, self.stride = variables, spatial, stride

    def install(self):
        probed_call(self.layer).add(self)

    def remove(self):
        take_out(self.layer, self)

    def run(self, plain_call, inputs, args, kwargs):
        """What stands for `plain_call(*args, **kwargs)`, whose first argument is `inputs`: the
        layer's own call, or one that the probe of another model gates."""
        if self.checks_calls:
            self.rule.check(self.layer, inputs, kwargs)
        if not self.is_measuring or not any(self.variables) or is_running_again():
            return plain_call(*args, **kwargs)
        with self.rule.pre_activation(self.layer) as activation:
            z = plain_call(*args, **kwargs)
        outputs = activation(self.gate(inputs, z))
        keras_internals.set_mask(outputs, keras_internals.mask_of(z))  # a layer may set its own
        return outputs

    def gate(self, inputs, z):
        """z, whose backward pass measures.

        What is measured of is an argument of the function and no constant in it: a call that is
        computed again (`keras.RematScope`) has ended before its backward pass begins. A rule may
        read the layer's weights backward, so they are arguments too, with what they were forward.
        """
        statistics = [v for block in self.variables for v in block.values()]
        weights = list(self.layer.weights)
        inputs, is_thinned = self._dense(inputs, ops.shape(z)[0])
        held = keras.tree.map_structure(ops.stop_gradient, [inputs, weights])
        num_held, shares = len(keras.tree.flatten(held)), num_loss_shares()

        @ops.custom_gradient
        def identity(z, *arguments):
            inputs, own = keras.tree.pack_sequence_as(held, list(arguments[:num_held]))
            values = arguments[num_held:]

            def backward(*args, upstream=None):
                upstream = args[0] if upstream is None else upstream
                batch = ops.cast(ops.shape(upstream)[0] * shares, "float32")
                deltas = ops.cast(upstream, "float32") * batch
                seen = inputs if is_thinned else self._thinned(inputs)
                with keras.StatelessScope(state_mapping=list(zip(weights, own, strict=True))):
                    measured = self.measure(seen, self._thinned(deltas), values)
                return (upstream, *[None] * num_held, *measured)

            return z, backward

        return identity(z, *keras.tree.flatten(held), *map(ops.convert_to_tensor, statistics))

    def measure(self, inputs, deltas, values):
        """The statistics of these examples, in the order of the variables."""
        if not self.rule.looks_up:
            inputs = keras.tree.map_structure(_as_number, inputs)
        values = iter(values)
        of_inputs = any(INPUT_MEAN in variables for variables in self.variables)
        read = self.rule.inputs if of_inputs else self.rule.features
        pairs = self._checked_pairs(read(self.layer, inputs, deltas), read.__name__)
        results = []
        for block, variables, (features, delta) in zip(
            self.blocks, self.variables, pairs, strict=True
        ):
            if not variables:
                continue
            current = {kind: next(values) for kind in variables}
            shift = self._shift(current.get(SHIFT), features)
            if of_inputs:
                measured = measure_inputs(block, features, delta, shift)
            else:
                measured = measure(block, features, delta, shift, set(variables), self.spatial)
            results += [measured[kind] for kind in variables]
        return results

    def _checked_pairs(self, pairs, method):
        if len(pairs) != len(self.blocks):
            raise ValueError(
                f"`{type(self.rule).__name__}.{method}` must return a pair (features, deltas) for "
                f"each block of the layer {self.layer.name!r}. Received: {len(pairs)} pairs for "
                f"{len(self.blocks)} blocks."
            )
        return pairs

    def _shift(self, shift, features):
        if shift is None or not self.shifts_by_own_mean:
            return shift
        mean = ops.mean(ops.reshape(ops.cast(features, "float32"), (-1, shift.shape[1])), axis=0)
        return ops.stack([mean, mean])

    def _dense(self, inputs, examples):
        """Sparse inputs as arrays of the examples that are measured, others as they are, and
        whether that was done."""
        if not any(map(is_sparse, keras.tree.flatten(inputs))):
            return inputs, False
        rows = ops.arange(0, examples, self._stride(examples))
        return keras.tree.map_structure(lambda x: dense_rows(x, rows, examples), inputs), True

    def _thinned(self, arrays):
        return keras.tree.map_structure(self._thin, arrays)

    def _thin(self, array):
        examples = ops.shape(array)[0]
        if isinstance(examples, int):
            return array[:: self._stride(examples)]
        # TensorFlow's batch size, unknown before the step runs; slices would lose their rank.
        return ops.take(array, ops.arange(0, examples, self._stride(examples)), axis=0)

    def _stride(self, examples):
        if self.stride:
            return self.stride
        stride = examples * num_replicas() // LEAST_EXAMPLES
        return max(stride, 1) if isinstance(examples, int) else ops.maximum(stride, 1)


def _as_number(array):
    """Pixels, counts and truth values as the layer takes them: it multiplies by them."""
    return array if keras.backend.is_float_dtype(array.dtype) else ops.cast(array, "float32")
