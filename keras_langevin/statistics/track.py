"""Installing and removing the probes that an optimizer needs."""

import contextlib
import dataclasses
import warnings

import keras
import numpy as np
from keras import ops

from keras_langevin import arguments, keras_arguments, keras_internals
from keras_langevin.statistics.block import LOSS, LOSS_SCALE, Statistic, statistics_of
from keras_langevin.statistics.model_labels import ModelLabels, families_of
from keras_langevin.statistics.probe import Probe
from keras_langevin.statistics.registry import blocks_of, find_rule
from keras_langevin.weights import parameters

_SPATIAL = ("independent", "exact")


def track_statistics(model, optimizer, spatial=None):
    """Installs, in place, the probes that measure what the optimizer needs of a model.

    `kl.PosteriorSampler` does this by itself. Call it when training without that callback,
    or to warm the metric up while another optimizer trains.

    The probes add weights that hold statistics to `model.trainable_variables`, so that every
    training loop differentiates by them. They are not parameters: saving, loading, `summary`,
    `get_weights`, `count_params` and `export` show and store the model without them, and a
    model cloned from this one's config is not tracked.

    Args:
        model: A built `keras.Model`.
        optimizer: The optimizer whose statistics are wanted. One that needs none leaves the
            model as it is; one of Keras' own may be given an attribute `statistics`. An optimizer
            that is built already is built again, keeping its state.
        spatial: For layers that use a kernel at many positions (convolutions, tokens):
            `"independent"` sums δ²x² over positions (cheap; neglects that the gradients at
            two positions of one example are correlated), `"exact"` squares the sum over
            positions, which takes memory for the batch times the kernel. `None` keeps what
            a tracked model has and is `"independent"` otherwise.

    Returns:
        The model.

    Raises:
        ValueError: The model is not built, or a variable is shared between layers; the optimizer
            wants labels drawn from the model, and the compiled loss does not say how.

    Layers without a rule, inside a `keras.layers.Wrapper` or a recurrent layer, with LoRA or
    quantized are named in a warning; their variables use the Euclidean metric of
    scale 1, as in `kl.SGLD`. See `kl.statistics.register_rule`.
    """
    keras_arguments.model("model", model)
    words = "a Keras optimizer, such as `model.optimizer`"
    arguments.instance("optimizer", optimizer, keras.optimizers.Optimizer, words)
    inner = keras_internals.inner_optimizer(optimizer)
    arguments.one_of("spatial", spatial, (*_SPATIAL, None))
    if not model.built:
        raise ValueError(
            "Statistics can be tracked only in a built model. Received: a model named "
            f"{model.name!r} without weights. Begin it with `keras.Input(shape)` or call "
            "`model.build(input_shape)` first."
        )
    if isinstance(inner, keras_internals.JointOptimizer):
        inner.attach(model)
    wanted, stride = _asked(inner, "statistics"), _asked(inner, "statistics_stride")
    draws_labels = _asked(inner, "fisher") == "model"
    label_seed = (_asked(inner, "seed") or 0) if draws_labels else None
    tracking = _tracking(model)
    if spatial is None:
        spatial = tracking.spatial if tracking else "independent"
    if wanted is None:
        return model
    if draws_labels and model.compiled:
        families_of(model)
    if tracking and tracking.serves(wanted, spatial, stride) and tracking.label_seed == label_seed:
        tracking.forget_divergence()
        return model
    if tracking:
        untrack_statistics(model)
    tracking = Tracking(model, wanted, spatial, stride)
    tracking.label_seed = label_seed
    tracking.install()
    if draws_labels:
        with tracking._variable_scope():
            labels = ModelLabels(model, tracking.probes, label_seed, lambda: tracking.is_hidden)
        labels.install()
        tracking.variables.append(labels.variable)
        keras_internals.add_weights(model, [labels.variable])
    model.__dict__["keras_langevin_tracking"] = tracking
    keras_internals.rebuild_optimizer(optimizer, model.trainable_variables)
    return model


def _asked(optimizer, name):
    """What the optimizer asks for: an attribute that any Keras optimizer may be given."""
    return getattr(optimizer, name, getattr(keras_internals.JointOptimizer, name))


def untrack_statistics(model):
    """Removes the probes and their weights; returns the model. The optimizer that used them
    is built again when the model is tracked or trained again.

    Args:
        model: A `keras.Model`, tracked or not.
    """
    tracking = _tracking(keras_arguments.model("model", model))
    if tracking:
        tracking.remove()
        del model.__dict__["keras_langevin_tracking"]
        if getattr(model, "optimizer", None) is not None:
            keras_internals.rebuild_optimizer(model.optimizer, model.trainable_variables)
    return model


def is_tracked(model) -> bool:
    """Whether the model has probes.

    Args:
        model: A `keras.Model`.
    """
    return _tracking(keras_arguments.model("model", model)) is not None


def untracked(model):
    """A context inside which a tracked model is the user's own: no probes, no statistics among
    its weights.

    Args:
        model: A `keras.Model`, tracked or not.
    """
    return _untracked(keras_arguments.model("model", model))


@contextlib.contextmanager
def _untracked(model):
    tracking = _tracking(model)
    with tracking.hidden() if tracking else contextlib.nullcontext():
        yield model


def _tracking(model):
    return model.__dict__.get("keras_langevin_tracking")


class Tracking:
    """The probes of one model and the variables they fill."""

    def __init__(self, model, wanted, spatial, stride):
        self.model, self.wanted = model, wanted
        self.spatial, self.stride = spatial, stride
        self.probes, self.variables, self.names = [], [], set()
        self.is_hidden = False

    def serves(self, wanted, spatial, stride):
        return (self.wanted, self.spatial, self.stride) == (wanted, spatial, stride)

    def forget_divergence(self):
        """A run that diverged leaves NaN, and moments about NaN stay NaN in the next one."""
        for variable in self.variables:
            value = ops.convert_to_numpy(variable)
            if not np.isfinite(value).all():
                variable.assign(np.where(np.isfinite(value), value, 0.0))

    def make_probes(self):
        layers = keras_internals.flatten_layers(self.model)
        owners, wrapped = _owners(layers), _inside_wrappers(layers)
        with self._variable_scope():
            for layer in layers:
                rule = find_rule(layer)
                if rule is None or not layer.built:
                    continue
                skipped = id(layer) in wrapped or keras_internals.has_replaced_weights(layer)
                self._add_probe(layer, rule, [] if skipped else blocks_of(rule, layer), owners)
        _warn_about(layers, self._unmeasured())

    def install(self):
        if self.wanted == LOSS:
            self._measure_loss()
        else:
            self._install_probes()
        keras_internals.add_weights(self.model, self.variables)
        keras_internals.present_without(self.model, self.hidden)

    def _install_probes(self):
        self.make_probes()
        with self._variable_scope():
            if any(probe.layer.compute_dtype == "float16" for probe in self.probes):
                self.variables.append(self._loss_scale_variable())
        for probe in self.probes:
            probe.install()
        if self._needs_loss_scale():
            self._gate_loss(self.variables[-1], lambda loss, upstream: upstream)

    def _measure_loss(self):
        with self._variable_scope():
            self.variables.append(_make_variable(LOSS, (), Statistic(LOSS, None)))
        self._gate_loss(self.variables[-1], lambda loss, upstream: loss)

    def remove(self):
        for probe in self.probes:
            probe.remove()
        self.model.__dict__.pop("compute_loss", None)
        keras_internals.present_all(self.model)
        keras_internals.remove_weights(self.model, self.variables)

    @contextlib.contextmanager
    def standing(self):
        """Inside, probes that `make_probes` alone made measure what the model computes."""
        for probe in self.probes:
            probe.install()
        try:
            yield
        finally:
            for probe in self.probes:
                probe.remove()

    @contextlib.contextmanager
    def hidden(self):
        if self.is_hidden:
            yield
            return
        self.is_hidden = True
        with keras_internals.without_weights(self.model, self.variables):
            for probe in self.probes:
                probe.remove()
            try:
                yield
            finally:
                for probe in self.probes:
                    probe.install()
                self.is_hidden = False

    def _add_probe(self, layer, rule, blocks, owners):
        """A probe without blocks checks the layer's calls and measures nothing."""
        blocks = [_without_frozen_bias(block) for block in blocks]
        variables = []
        for block in blocks:
            kinds = {}
            if block.kernel.trainable:
                _refuse_shared(block, layer, owners)
                kinds = statistics_of(block, self.wanted)
            variables.append(
                {
                    kind: self._statistic_variable(kind, shape, block)
                    for kind, shape in kinds.items()
                }
            )
        self.variables += [v for block in variables for v in block.values()]
        self.probes.append(Probe(layer, rule, blocks, variables, self.spatial, self.stride))

    def _statistic_variable(self, kind, shape, block):
        # Kernels may share a path, but Keras on torch forgets variables that do.
        name = base = f"{block.kernel.path.replace('/', '_')}_{kind}"
        while name in self.names:
            name = f"{base}_{len(self.names)}"
        self.names.add(name)
        return _make_variable(name, shape, Statistic(kind, block))

    def _variable_scope(self):
        strategy = getattr(self.model, "distribute_strategy", None)
        return strategy.scope() if strategy is not None else contextlib.nullcontext()

    def _unmeasured(self):
        blocks = [v.statistic.block for v in self.variables if v.statistic.block is not None]
        measured = {id(v) for block in blocks for v in (block.kernel, block.bias)}
        return [v for v in parameters(self.model) if id(v) not in measured]

    def _loss_scale_variable(self):
        return _make_variable("loss_scale", (), Statistic(LOSS_SCALE, None), initializer="ones")

    def _needs_loss_scale(self):
        return bool(self.variables) and self.variables[-1].statistic.kind == LOSS_SCALE

    def _gate_loss(self, variable, measured):
        """The variable's "gradient" is `measured(loss, upstream)`; upstream, the gradient that
        the loss itself receives, is what float16 training multiplies it by."""
        plain = self.model.compute_loss

        @ops.custom_gradient
        def gate(loss, unit):
            def backward(*args, upstream=None):
                upstream = args[0] if upstream is None else upstream
                return upstream, ops.cast(measured(loss, upstream), "float32")

            return loss, backward

        def compute_loss(*args, **kwargs):
            return gate(plain(*args, **kwargs), ops.convert_to_tensor(variable))

        self.model.__dict__["compute_loss"] = compute_loss


def _owners(layers):
    owners = {}
    for layer in layers:
        for variable in keras_internals.own_trainable_variables(layer):
            owners.setdefault(id(variable), []).append(layer)
    return owners


def _refuse_shared(block, layer, owners):
    for variable in (block.kernel, block.bias):
        names = [owner.name for owner in owners.get(id(variable), [])]
        if len(names) > 1:
            raise ValueError(
                f"The variable {variable.path!r} is shared between the layers "
                f"{' and '.join(map(repr, names))}, so that its per-example gradient is not "
                "the product of one layer's input and output gradient. Call one layer twice "
                "instead, or use an optimizer that needs no statistics (`kl.SGLD`, "
                "`kl.RMSPropLangevin`)."
            )


def _inside_wrappers(layers):
    """Layers that another one calls in its own way: in a loop over time, or with weights that
    it changes first."""
    outer = [x for x in layers if isinstance(x, (keras.layers.Wrapper, keras.layers.RNN))]
    inner = (x for layer in outer for x in keras_internals.flatten_layers(layer)[1:])
    return {id(x) for x in inner}


def _without_frozen_bias(block):
    if block.bias is None or block.bias.trainable:
        return block
    return dataclasses.replace(block, bias=None)


def _make_variable(name, shape, statistic, initializer="zeros"):
    variable = keras.Variable(
        initializer, shape=shape, dtype="float32", autocast=False, aggregation="mean", name=name
    )
    variable.overwrite_with_gradient = True
    variable.statistic = statistic
    return variable


def _warn_about(layers, variables):
    if not variables:
        return
    unmeasured = {id(v) for v in variables}
    names = [
        f"{type(layer).__name__} {layer.name!r}"
        for layer in layers
        if any(id(v) in unmeasured for v in keras_internals.own_trainable_variables(layer))
    ]
    warnings.warn(
        f"No rule measures the variables {[v.path for v in variables]}"
        f"{' of the layers ' + ', '.join(names) if names else ''}. They are sampled with the "
        "Euclidean metric of scale 1, as by `kl.SGLD`, which may need a smaller learning rate. "
        "A rule for a layer class is registered with "
        "`kl.statistics.register_rule(LayerClass)`; layers inside a `keras.layers.Wrapper` or a "
        "recurrent layer are never measured.",
        stacklevel=4,
    )
