"""A probe: measures a layer's statistics during the ordinary backward pass.

The layer's output passes through a gate that is the identity forward. Backward, the gate
hands on the gradient untouched and gives each statistics variable its statistic as if it were
its gradient; those variables are `overwrite_with_gradient`, so every Keras optimizer sets
them to that value.
"""

import inspect

import keras
from keras import ops

from keras_langevin.distribution import num_replicas
from keras_langevin.statistics.block import INPUT_MEAN, SHIFT
from keras_langevin.statistics.measure import measure, measure_inputs

LEAST_EXAMPLES = 32  # measured of a batch, where it has them, when no stride is given


class Probe:
    """Stands as `layer.call` on a tracked layer.

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

    def __init__(self, layer, rule, blocks, variables, spatial, stride):
        self.layer, self.rule, self.blocks = layer, rule, blocks
        self.variables, self.spatial, self.stride = variables, spatial, stride

    def install(self):
        self.layer.__dict__.pop("call", None)
        self.plain_call = self.layer.call
        self.first_argument = next(iter(inspect.signature(self.plain_call).parameters))
        self.layer.__dict__["call"] = self

    def remove(self):
        self.layer.__dict__.pop("call", None)

    def __call__(self, *args, **kwargs):
        inputs = args[0] if args else kwargs[self.first_argument]
        if isinstance(inputs, keras.KerasTensor):
            return self.plain_call(*args, **kwargs)
        self.rule.check(self.layer, inputs, kwargs)
        if not self.is_measuring or not any(self.variables):
            return self.plain_call(*args, **kwargs)
        with self.rule.pre_activation(self.layer) as activation:
            z = self.plain_call(*args, **kwargs)
        return activation(self.gate(ops.stop_gradient(inputs), z))

    def gate(self, inputs, z):
        flat = [v for block in self.variables for v in block.values()]
        replicas = num_replicas()
        # A rule may read the layer's weights backward: it gets what they were forward.
        weights = [(v, ops.stop_gradient(v)) for v in self.layer.weights]

        @ops.custom_gradient
        def identity(z, *statistics):
            def backward(*args, upstream=None):
                upstream = args[0] if upstream is None else upstream
                batch = ops.cast(ops.shape(upstream)[0] * replicas, "float32")
                deltas = ops.cast(upstream, "float32") * batch
                with keras.StatelessScope(state_mapping=weights):
                    return (upstream, *self.measure(inputs, deltas, statistics))

            return z, backward

        return identity(z, *(ops.convert_to_tensor(v) for v in flat))

    def measure(self, inputs, deltas, values):
        """The statistics of this batch, in the order of the variables."""
        inputs, deltas = self._thinned(inputs, deltas)
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

    def _thinned(self, inputs, deltas):
        examples, stride = ops.shape(deltas)[0], self.stride
        if isinstance(examples, int):
            stride = stride or max(examples // LEAST_EXAMPLES, 1)
            return inputs[::stride], deltas[::stride]
        # TensorFlow's batch size, unknown before the step runs; slices would lose their rank.
        stride = stride or ops.maximum(examples // LEAST_EXAMPLES, 1)
        rows = ops.arange(0, examples, stride)
        return ops.take(inputs, rows, axis=0), ops.take(deltas, rows, axis=0)
