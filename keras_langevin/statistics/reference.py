"""What the probes measure, computed slowly: one example at a time, by differentiating the
model as it is. For tests, and for checking a rule of your own.

>>> expected = kl.statistics.reference.per_example_statistics(model, x, y)
>>> expected[model.layers[1].kernel.path]["second_moment"]
"""

import contextlib
import functools

import keras
import numpy as np
from keras import ops

from keras_langevin import arguments, keras_arguments, keras_internals
from keras_langevin.statistics.block import BIAS_SECOND_MOMENT, CROSS_MOMENT, SECOND_MOMENT
from keras_langevin.statistics.check_fit import check_fit
from keras_langevin.statistics.registry import find_rule
from keras_langevin.statistics.track import untracked
from keras_langevin.statistics.units import Units
from keras_langevin.training_data import num_examples, training_data

__all__ = ["per_example_statistics"]


def per_example_statistics(model, x, y, sample_weight=None, spatial="independent"):
    """Moments of the gradients of the examples' own losses, about zero, averaged over examples.

    The model is called on one example after another, as in training. Its layers must be
    deterministic (no dropout) and its weights free of regularizers, whose gradient does not
    belong to an example.

    Args:
        model: A compiled model. Tracked or not makes no difference.
        x, y, sample_weight: Arrays or nested arrays; the first axis counts examples.
        spatial: `"exact"` takes the moments of an example's whole gradient. `"independent"`
            splits it into what every entry z_e of a layer's output adds, δ_e dz_e/dθ, and
            sums the moments of these.

    Returns:
        A dict from the path of a kernel to a dict from kind of statistic to array, float64:
        `second_moment` E[g²] and, where the rule pairs the kernel with a bias, `cross_moment`
        E[g g_bias] and `bias_second_moment` E[g_bias²].

    Raises:
        ValueError: If the data do not fit the model, or weights have regularizers.
    """
    keras_arguments.built_model("model", model)
    arguments.one_of("spatial", spatial, ("independent", "exact"))
    data = training_data(x, y, sample_weight)
    check_fit(model, data)
    count = num_examples(data)
    if any(v.regularizer is not None for v in model.trainable_variables):
        raise ValueError(
            "The reference needs weights without regularizers: their gradient is not that of "
            "an example. Received: a model with regularizers."
        )
    with untracked(model):
        differentiated = _Differentiated(model)
        sums = {}
        for n in range(count):
            example = keras.tree.map_structure(
                lambda a, n=n: None if a is None else ops.convert_to_tensor(a[n : n + 1]), data
            )
            for block, pairs in differentiated.contributions(example, spatial):
                _add_moments(sums.setdefault(block.kernel.path, {}), block, pairs)
    return {
        path: {kind: total / count for kind, total in moments.items()}
        for path, moments in sums.items()
    }


def _add_moments(sums, block, pairs):
    def add(kind, value):
        sums[kind] = sums.get(kind, 0.0) + value

    for kernel, *rest in pairs:
        add(SECOND_MOMENT, np.sum(kernel**2, axis=0))
        for bias in rest:
            add(BIAS_SECOND_MOMENT, np.sum(bias**2, axis=0))
            add(CROSS_MOMENT, np.sum(kernel * bias.reshape(-1, *block.bias_shape), axis=0))


class _Differentiated:
    """Derivatives of one model's loss and of its layers' z, for one example at a time."""

    def __init__(self, model):
        self.model = model
        units = [u for u in Units(model).found if any(_is_trained(b) for b in u.blocks)]
        self.layers = [unit.layer for unit in units if unit.rule is not None]
        self.blocks = [(unit, block) for unit in units for block in unit.blocks]
        self.variables = [v for _, b in self.blocks for v in _variables(b)]
        self.values = [_tensor(v) for v in self.variables]
        self.calls = []
        self.record = _compiled(self._record)
        self.gradients = _compiled(
            lambda values, offsets, example: _gradients(
                lambda values, offsets: self._loss(values, offsets, example), values, offsets
            )
        )
        self.jacobians = {}

    def contributions(self, example, spatial):
        """For each block, gradients of kernel and bias with an axis of contributions in front:
        one for `exact`, one for each entry of z for `independent`."""
        arguments, outputs = self.record(example)
        offsets = [ops.zeros_like(z) for z in outputs]
        gradients, deltas = self.gradients(self.values, offsets, example)
        of = {id(v): _float64(g) for v, g in zip(self.variables, gradients, strict=True)}
        calls = list(zip(self.calls, arguments, deltas, strict=True))

        def pairs(unit, block):
            if spatial == "exact" or unit.rule is None:
                return [tuple(of[id(v)][None] for v in _variables(block))]
            return [self._entries(block, *c) for c in calls if c[0].layer is unit.layer]

        return [(block, pairs(unit, block)) for unit, block in self.blocks]

    def _entries(self, block, call, arguments, delta):
        """δ_e dz_e/dθ for every entry e of one call's z."""
        call.refuse_inner_entries()
        variables = _variables(block)

        def z(values, arguments):
            with _values(variables, values):
                return ops.reshape(call.run(arguments), (-1,))

        jacobian = self.jacobians.setdefault(
            (block, call),
            _compiled(lambda values, args: _jacobians(lambda v: z(v, args), values)),
        )
        delta = _float64(delta).reshape(-1)
        rows = map(_float64, jacobian([_tensor(v) for v in variables], arguments))
        return tuple(delta.reshape(-1, *[1] * (row.ndim - 1)) * row for row in rows)

    def _record(self, example):
        """What every call of a layer received, and its z."""
        self.calls, arguments, outputs = [], [], []

        def hook(layer, plain, args, kwargs):
            call = _Call(layer, plain, args, kwargs)
            z, activation = call.run(call.tensors, with_activation=True)
            self.calls.append(call)
            arguments.append(call.tensors)
            outputs.append(z)
            return _with_mask(activation(z), z)

        with _hooked(self.layers, hook):
            self._model_loss(example)
        return arguments, outputs

    def _loss(self, values, offsets, example):
        """The loss with the variables at `values` and the offsets added to the calls' z."""
        offsets = iter(offsets)

        def hook(layer, plain, args, kwargs):
            call = _Call(layer, plain, args, kwargs)
            z, activation = call.run(call.tensors, with_activation=True)
            return _with_mask(activation(z + next(offsets)), z)

        with _values(self.variables, values), _hooked(self.layers, hook):
            return self._model_loss(example)

    def _model_loss(self, example):
        x, y, sample_weight = example
        y_pred = self.model(x, training=True)
        return self.model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)


class _Call:
    """One call of a layer. Its tensors can be replaced, so that it can be run again."""

    def __init__(self, layer, plain, args, kwargs):
        self.layer, self.plain = layer, plain
        self.structure = (args, kwargs)
        leaves = keras.tree.flatten(self.structure)
        self.places = [i for i, leaf in enumerate(leaves) if ops.is_tensor(leaf)]
        self.others = [None if ops.is_tensor(leaf) else leaf for leaf in leaves]
        self.tensors = [leaves[i] for i in self.places]

    def run(self, tensors, with_activation=False):
        leaves = list(self.others)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = keras.tree.pack_sequence_as(self.structure, leaves)
        with find_rule(self.layer).pre_activation(self.layer) as activation:
            z = self.plain(*args, **kwargs)
        return (z, activation) if with_activation else z

    def refuse_inner_entries(self):
        if isinstance(self.layer, (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)):
            raise ValueError(
                "The gradient of a separable convolution's first kernel is a sum over positions "
                "inside the layer. Received: spatial='independent' for the layer "
                f"{self.layer.name!r}. Write it as a DepthwiseConv layer and a Conv layer."
            )


def _with_mask(output, z):
    """A layer may hang its mask on z itself."""
    keras_internals.set_mask(output, keras_internals.mask_of(z))
    return output


def _is_trained(block):
    return any(v.trainable for v in _variables(block))


def _variables(block):
    return [v for v in (block.kernel, block.bias) if v is not None]


def _values(variables, values):
    return keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)))


@contextlib.contextmanager
def _hooked(layers, hook):
    """Inside, `hook(layer, plain call, args, kwargs)` stands for the layers' calls."""
    own = [(layer, layer.__dict__["call"]) for layer in layers if "call" in layer.__dict__]
    for layer in layers:
        layer.__dict__["call"] = functools.partial(_run_hook, hook, layer, layer.call)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["call"]
        for layer, call in own:
            layer.__dict__["call"] = call


def _run_hook(hook, layer, plain, *args, **kwargs):
    return hook(layer, plain, args, kwargs)


# -------------------------------------------------------------- automatic differentiation


def _compiled(function):
    """JAX is slow one operation at a time."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def _gradients(function, *lists):
    """Gradients of `function(*lists)`, a number, by every tensor of the lists of tensors."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.grad(function, argnums=tuple(range(len(lists))))(*lists)
    if backend == "torch":
        import torch

        lists = [[t.detach().clone().requires_grad_() for t in tensors] for tensors in lists]
        flat = [t for tensors in lists for t in tensors]
        gradients = torch.autograd.grad(
            function(*lists), flat, allow_unused=True, materialize_grads=True
        )
        rest = iter(gradients)
        return [[next(rest) for _ in tensors] for tensors in lists]
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(lists)
        value = function(*lists)
    return tape.gradient(value, lists, unconnected_gradients="zero")


def _jacobians(function, tensors):
    """Jacobians of `function(tensors)`, a vector, by every tensor; rows first."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jacrev(function)(tensors)
    if backend == "torch":
        import torch

        leaves = [t.detach().clone().requires_grad_() for t in tensors]
        options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        rows = [torch.autograd.grad(entry, leaves, **options) for entry in function(leaves)]
        return [torch.stack(column) for column in zip(*rows, strict=True)]
    import tensorflow as tf

    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        outputs = function(tensors)
    options = {"experimental_use_pfor": False, "unconnected_gradients": "zero"}
    return tape.jacobian(outputs, tensors, **options)


def _tensor(variable):
    return ops.convert_to_tensor(ops.convert_to_numpy(variable))


def _float64(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")
