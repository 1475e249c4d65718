"""Layers that are measured as a whole, by every example's gradient.

A recurrent layer, a wrapper or a layer with weights of its own kind is no product of one input and
one δ. Backward, its probe runs the layer again for one example at a time and pulls that example's
derivative by the outputs back to the weights. Nothing is neglected: the gradient is summed over
time and positions before it is squared.
"""

import math

import keras
from keras import ops

from keras_langevin import autodiff, keras_internals
from keras_langevin.distribution import num_loss_shares
from keras_langevin.statistics.block import (
    BIAS_SECOND_MOMENT,
    CROSS_MOMENT,
    Block,
)
from keras_langevin.statistics.layer_call import (
    LayerCall,
    float_leaves,
    is_float_tensor,
    is_running_again,
    packed,
    unpacked,
)
from keras_langevin.statistics.probe import LEAST_EXAMPLES, Probe

# Names of a kernel and of the bias of the same units, which a metric may pair.
PAIRS = (("kernel", "bias"), ("lora_kernel_b", "bias"), ("gamma", "beta"))
# Numbers in the gradients of all measured examples: of more, one example is held at a time.
MOST_NUMBERS = 2**24


class WholeLayerProbe(Probe):
    """Stands as `layer.call` on a layer without a rule; see `Probe`.

    Args:
        layer: The layer.
        blocks: Blocks of the weights, by `whole_blocks`.
        variables: For each block, a dict from kind to statistics variable.
        stride: Measures every `stride`-th example; None: as few as leave `LEAST_EXAMPLES`.
        one_by_one: Runs one example after another, rather than all at once by vectorization.
    """

    def __init__(self, layer, blocks, variables, stride, one_by_one=None):
        super().__init__(layer, None, blocks, variables, "exact", stride)
        self.one_by_one = must_run_one_by_one(layer) if one_by_one is None else one_by_one

    def run(self, plain_call, inputs, args, kwargs):
        is_silent = not self.is_measuring or not any(self.variables) or is_running_again()
        if is_silent or _is_symbolic((args, kwargs)):
            return plain_call(*args, **kwargs)
        call = LayerCall(self.layer, plain_call, args, kwargs, in_inference(self.layer))
        # A layer may set its weights before it uses them. JAX differentiates through that, the
        # others by the weights it has set.
        before = held_values(self.layer) if keras.backend.backend() == "jax" else None
        outputs = plain_call(*args, **kwargs)
        values = held_values(self.layer) if before is None else before
        return self._gated(outputs, lambda upstream: self._moments(call, values, upstream))

    def _gated(self, outputs, moments):
        """The outputs, whose derivative brings the statistics theirs."""
        flat = [v for block in self.variables for v in block.values()]

        @ops.custom_gradient
        def identity(z, *statistics):
            def backward(*args, upstream=None):
                upstream = args[0] if upstream is None else upstream
                return (upstream, *moments(upstream))

            return z, backward

        tensors = float_leaves(outputs)
        gated = identity(packed(tensors), *(ops.convert_to_tensor(v) for v in flat))
        parts = iter(unpacked(gated, tensors))
        leaves = keras.tree.flatten(outputs)
        return keras.tree.pack_sequence_as(
            outputs, [_with_mask_of(x, next(parts)) if is_float_tensor(x) else x for x in leaves]
        )

    def _moments(self, call, values, upstream):
        """The statistics of this batch, in the order of the variables."""
        examples, cotangents = self._thinned(call.examples), self._thinned(upstream)
        measured = ops.cast(ops.shape(cotangents)[0], "float32")
        batch = ops.cast(ops.shape(upstream)[0] * num_loss_shares(), "float32")
        scale = batch * ops.rsqrt(measured)
        trained = list({id(v): v for b in self.blocks for v in variables_of(b)}.values())
        found = ExampleGradients(call, trained, values, examples, cotangents)

        def moments(gradients):
            scaled = [ops.cast(g, "float32") * scale for g in gradients]
            return self._summed(dict(zip(map(id, trained), scaled, strict=True)))

        if not self.one_by_one:
            return moments(found.at_once())
        shapes = [tuple(v.shape) for block in self.variables for v in block.values()]
        return found.summed_one_by_one(moments, shapes)

    def _summed(self, gradients):
        """Moments summed over examples, the first axis, by the id of the variable."""
        results = []
        for block, variables in zip(self.blocks, self.variables, strict=True):
            for kind in variables:
                first = gradients[id(block.bias if kind == BIAS_SECOND_MOMENT else block.kernel)]
                second = first
                if kind == CROSS_MOMENT:
                    second = ops.reshape(gradients[id(block.bias)], (-1, *block.bias_shape))
                results.append(ops.sum(first * second, axis=0))
        return results


class ExampleGradients:
    """The gradients of single examples by the trained variables of a call.

    Args:
        call: A `LayerCall`.
        trained: The variables.
        values: Pairs of every variable of the layer and its value.
        examples: Tensors in place of the call's, first axis n.
        cotangents: The derivative of each example's loss by its outputs, first axis n.
    """

    def __init__(self, call, trained, values, examples, cotangents):
        self.call, self.trained = call, trained
        ids = {id(v) for v in trained}
        self.held = [(v, value) for v, value in values if id(v) not in ids]
        of = {id(v): value for v, value in values}
        self.values = [of[id(v)] for v in trained]
        self.examples, self.cotangents = list(examples), cotangents

    def _outputs(self, values, examples):
        return self.call.run([*self.held, *zip(self.trained, values, strict=True)], examples)

    def at_once(self):
        """Arrays with the examples in front."""
        rows = ops.expand_dims(self.cotangents, 1)
        found = autodiff.pulled_back(self._outputs, self.values, self.examples, rows)
        return [ops.squeeze(g, 1) for g in found]

    def summed_one_by_one(self, function, shapes):
        """The sum over examples of a function of their gradients, arrays with one row."""

        def one(arrays):
            *example, cotangent = (ops.expand_dims(a, 0) for a in arrays)

            def product(values):
                outputs = ops.cast(self._outputs(values, example), "float32")
                return ops.sum(outputs * ops.cast(cotangent, "float32"))

            gradients = autodiff.gradient(product, self.values)
            return function([ops.expand_dims(g, 0) for g in gradients])

        return autodiff.summed(one, [*self.examples, self.cotangents], shapes)


def whole_blocks(layers):
    """Blocks of all weights that the layers hold themselves and train."""
    trained = [keras_internals.own_trainable_variables(layer) for layer in layers]
    pairs = [_pair(layer, own) for layer, own in zip(layers, trained, strict=True)]
    blocks = [Block(kernel, _no_product, bias) for kernel, bias in filter(None, pairs)]
    taken = {id(v) for block in blocks for v in variables_of(block)}
    rest = {id(v): v for own in trained for v in own if id(v) not in taken}
    return blocks + [Block(v, _no_product) for v in rest.values()]


def variables_of(block):
    return [v for v in (block.kernel, block.bias) if v is not None]


def must_run_one_by_one(layer):
    """Where vectorization over examples does not work (loops on TensorFlow, convolutions of two
    axes on torch) or takes too much memory."""
    numbers = LEAST_EXAMPLES * sum(math.prod(v.shape) for v in layer.trainable_variables)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        layers = keras_internals.flatten_layers(layer)
        fails = any(isinstance(x, keras.layers.RNN) for x in layers)
    else:
        fails = backend == "torch" and any(len(v.shape) > 3 for v in layer.variables)
    return fails or numbers > MOST_NUMBERS


def in_inference(layer):
    """Whether the layer is run again without its noise, which the run before has used up, or
    without setting its weights, which it has done."""
    layers = keras_internals.flatten_layers(layer)
    sets_weights = any(isinstance(x, keras.layers.SpectralNormalization) for x in layers)
    is_set = sets_weights and keras.backend.backend() != "jax"
    return is_set or keras_internals.draws_random_numbers(layer)


def _pair(layer, own):
    """A kernel and a bias of the layer's own, or None."""
    own = {id(v): v for v in own}
    for names in PAIRS:
        pair = tuple(own.get(id(getattr(layer, name, None))) for name in names)
        if all(v is not None for v in pair):
            kernel, bias = (tuple(v.shape) for v in pair)
            if bias and kernel[-len(bias) :] == bias:
                return pair
    return None


def _no_product(features, kernel):
    raise NotImplementedError("A layer that is measured as a whole is no product of two arrays.")


def held_values(layer):
    """Pairs of every variable of the layer and its value at present."""
    return [(v, ops.stop_gradient(ops.convert_to_tensor(v))) for v in layer.variables]


def _is_symbolic(structure):
    return any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(structure))


def _with_mask_of(output, gated):
    keras_internals.set_mask(gated, keras_internals.mask_of(output))
    return gated
