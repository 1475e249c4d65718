"""Installing and removing the probes that an optimizer needs."""

import contextlib
import dataclasses
import math

import keras
import numpy as np
from keras import ops

from keras_langevin import arguments, keras_arguments, keras_internals
from keras_langevin.distribution import variable_scope
from keras_langevin.statistics.block import (
    BATCH_SIZE,
    LOSS,
    LOSS_SCALE,
    SECOND_MOMENT,
    SETS,
    Statistic,
    axes_of,
    statistics_of,
)
from keras_langevin.statistics.loss_gate import gate_loss
from keras_langevin.statistics.measured_parts import MeasuredParts
from keras_langevin.statistics.model_labels import ModelLabels, families_of
from keras_langevin.statistics.probe import Probe
from keras_langevin.statistics.probed_call import plain_calls, probes_of
from keras_langevin.statistics.shared_variables import owners_of, refuse_shared
from keras_langevin.statistics.units import Units
from keras_langevin.statistics.unmeasured import warn_about_unmeasured
from keras_langevin.statistics.whole_layer import WholeLayerProbe
from keras_langevin.weights import parameters

_SPATIAL = ("independent", "exact")
_EUCLIDEAN = (
    "with the Euclidean metric of scale 1, as by `kl.SGLD`, which may need a smaller learning rate"
)
_OF_MINIBATCHES = (
    "with a diagonal metric from the gradients of whole minibatches, which follows the loss less "
    "closely"
)


def track_statistics(model, optimizer, spatial=None):
    """Installs, in place, the probes that measure what the optimizer needs of a model.

    `kl.PosteriorSampler` does this by itself. Call it when training without that callback,
    or to warm the metric up while another optimizer trains.

    The probes add weights that hold statistics to `model.trainable_variables`, so that every
    training loop differentiates by them. They are not parameters: saving, loading, `summary`,
    `get_weights`, `count_params` and `export` show and store the model without them, and a
    model cloned from this one's config is not tracked.

    When layers were frozen, unfrozen, added, replaced or given LoRA weights, the next call of this
    function, of `compile` or of `fit` with a `kl.PosteriorSampler` makes the probes anew. Models
    that share layers are each measured by probes of their own.

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

    Recurrent layers, a `keras.layers.Wrapper` with what is inside of it, layers with LoRA and
    layers of your own that have weights and no rule are run again in the backward pass, for one
    of the measured examples at a time and without dropout: the gradient of an example is exact,
    summed over time and positions before it is squared. Layers that carry a state from batch to
    batch, mix the examples of a batch or are random are named in a warning, with the reason; their
    variables get a diagonal metric from the gradients of minibatches. See
    `kl.statistics.register_rule`.
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
    if wanted is None and tracking and tracking.is_outdated():
        _track_anew(model)
    elif wanted is None:
        pass
    elif tracking and tracking.serves(wanted, spatial, stride, label_seed):
        tracking.forget_divergence()
    else:
        _track(model, wanted, spatial, stride, label_seed)
    _tell(optimizer, model)
    return model


def _track(model, wanted, spatial, stride, label_seed):
    """Makes probes in the place of those that the model has."""
    draws_labels = label_seed is not None
    if draws_labels and model.compiled:
        families_of(model)
    if is_tracked(model):
        _stop(model)
    tracking = Tracking(model, wanted, spatial, stride, label_seed)
    tracking.install()
    if draws_labels:
        with variable_scope(model):
            labels = ModelLabels(model, tracking.probes, label_seed, lambda: tracking.is_hidden)
        labels.install()
        tracking.variables.append(labels.variable)
        keras_internals.add_weights(model, [labels.variable])
    for variable in tracking.variables:
        variable.tracking = tracking
    model.__dict__["keras_langevin_tracking"] = tracking


def _track_anew(model):
    """The same probes for what the model is now."""
    old = _tracking(model)
    _track(model, old.wanted, old.spatial, old.stride, old.label_seed)


def _tell(optimizer, model):
    """Builds the optimizer anew where the model's variables have become others."""
    if optimizer is None:
        return
    inner, tracking = keras_internals.inner_optimizer(optimizer), _tracking(model)
    if isinstance(inner, keras_internals.JointOptimizer):
        inner.finds_nothing_to_measure = tracking is not None and not tracking.variables
    with variable_scope(model):
        keras_internals.rebuild_optimizer(optimizer, model.trainable_variables)


def _after_compile(model):
    if _tracking(model) and _tracking(model).is_outdated():
        _track_anew(model)
        _tell(model.optimizer, model)


def _asked(optimizer, name):
    """What the optimizer asks for: an attribute that any Keras optimizer may be given."""
    return getattr(optimizer, name, getattr(keras_internals.JointOptimizer, name))


def untrack_statistics(model):
    """Removes the probes and their weights; returns the model. The optimizer that used them
    is built again when the model is tracked or trained again.

    Args:
        model: A `keras.Model`, tracked or not.
    """
    if is_tracked(model):
        _stop(model)
        _tell(getattr(model, "optimizer", None), model)
    return model


def _stop(model):
    _tracking(model).remove()
    del model.__dict__["keras_langevin_tracking"]


def is_tracked(model) -> bool:
    """Whether the model has probes.

    Args:
        model: A `keras.Model`.
    """
    return _tracking(keras_arguments.model("model", model)) is not None


def label_seed(model):
    """Of the labels that a tracked model draws; None for one that draws none."""
    tracking = _tracking(model)
    return None if tracking is None else tracking.label_seed


def untracked(model):
    """A context inside which a tracked model is the user's own: no probes, no statistics among
    its weights.

    Args:
        model: A `keras.Model`, tracked or not.
    """
    return _untracked(keras_arguments.model("model", model))


@contextlib.contextmanager
def _untracked(model):
    layers = keras_internals.flatten_layers(model)
    keras_internals.put_back_weights(model)
    with contextlib.ExitStack() as stack:
        for tracking in filter(None, map(_tracking, layers)):  # of models within it, too
            stack.enter_context(tracking.hidden())
        stack.enter_context(plain_calls(layers))
        yield model


def _tracking(model):
    return model.__dict__.get("keras_langevin_tracking")


class Tracking:
    """The probes of one model and the variables they fill."""

    def __init__(self, model, wanted, spatial, stride, label_seed=None):
        self.model, self.wanted = model, wanted
        self.spatial, self.stride, self.label_seed = spatial, stride, label_seed
        self.parts = MeasuredParts(model)
        self.probes, self.variables, self.names = [], [], _names_taken(model)
        self.is_hidden = False

    def serves(self, wanted, spatial, stride, label_seed):
        wishes = (self.wanted, self.spatial, self.stride, self.label_seed)
        return wishes == (wanted, spatial, stride, label_seed) and not self.is_outdated()

    def is_outdated(self):
        """Whether the model is another than the one that the probes were made for."""
        are_trained = all(v.trainable for v in self.variables) or not self.model.trainable
        return not are_trained or not self.parts.are_those_of(self.model)

    def forget_divergence(self):
        """A run that diverged leaves NaN, and moments about NaN stay NaN in the next one."""
        for variable in self.variables:
            value = ops.convert_to_numpy(variable)
            if not np.isfinite(value).all():
                variable.assign(np.where(np.isfinite(value), value, 0.0))

    def make_probes(self, instead=_EUCLIDEAN):
        """Args:
        instead: What is said to become of the weights that nothing measures.
        """
        units = Units(self.model, measures_whole=SECOND_MOMENT in SETS[self.wanted])
        owners = owners_of(keras_internals.flatten_layers(self.model))
        with variable_scope(self.model):
            for unit in units.found:
                self._add_probe(unit, owners)
        layers = keras_internals.flatten_layers(self.model)
        num_weights = sum(math.prod(v.shape) for v in parameters(self.model))
        warn_about_unmeasured(layers, self._unmeasured(), units.reasons, instead, num_weights)

    def install(self):
        if self.wanted == LOSS:
            self._measure_loss()
        else:
            self._install_probes()
        keras_internals.add_weights(self.model, self.variables)
        keras_internals.present_without(self.model, self.hidden)
        keras_internals.notice_compile(self.model, lambda: _after_compile(self.model))

    def _install_probes(self):
        reads_moments = SECOND_MOMENT in SETS[self.wanted]
        self.make_probes(_OF_MINIBATCHES if reads_moments else _EUCLIDEAN)
        with variable_scope(self.model):
            if reads_moments and self._unmeasured():
                self.variables.append(_make_variable(BATCH_SIZE, (), Statistic(BATCH_SIZE, None)))
                gate_loss(self.model, self.variables[-1], lambda _, __, batch: batch)
            if any(probe.layer.compute_dtype == "float16" for probe in self.probes):
                self.variables.append(self._loss_scale_variable())
        for probe in self.probes:
            probe.checks_calls = self.wanted != "inputs"  # which belong to no example
            probe.install()
        if self._needs_loss_scale():
            gate_loss(self.model, self.variables[-1], lambda _, upstream, __: upstream)

    def _measure_loss(self):
        with variable_scope(self.model):
            self.variables.append(_make_variable(LOSS, (), Statistic(LOSS, None)))
        gate_loss(self.model, self.variables[-1], lambda loss, *_: loss)

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
        layers = [probe.layer for probe in self.probes]
        hidden_weights = keras_internals.without_weights(self.model, self.variables)
        try:
            with hidden_weights, plain_calls(layers):
                yield
        finally:
            self.is_hidden = False

    def _add_probe(self, unit, owners):
        """A probe without blocks checks the layer's calls and measures nothing."""
        layer = unit.layer
        blocks = [_without_frozen_bias(block) for block in unit.blocks]
        variables = []
        for block in blocks:
            kinds = {}
            if block.kernel.trainable:
                if unit.rule is not None:
                    refuse_shared(block, layer, owners)
                kinds = statistics_of(block, self.wanted)
            variables.append(
                {
                    kind: self._statistic_variable(kind, shape, block)
                    for kind, shape in kinds.items()
                }
            )
        self.variables += [v for block in variables for v in block.values()]
        if unit.rule is None:
            probe = WholeLayerProbe(layer, blocks, variables, self.stride, unit.one_by_one)
        else:
            probe = Probe(layer, unit.rule, blocks, variables, self.spatial, self.stride)
        self.probes.append(probe)

    def _statistic_variable(self, kind, shape, block):
        # Kernels may share a path, but Keras on torch forgets variables that do.
        name = base = f"{block.kernel.path.replace('/', '_')}_{kind}"
        while name in self.names:
            name = f"{base}_{len(self.names)}"
        self.names.add(name)
        layout = keras_internals.layout_along(*axes_of(kind, block))
        return _make_variable(name, shape, Statistic(kind, block), layout=layout)

    def _unmeasured(self):
        blocks = [v.statistic.block for v in self.variables if v.statistic.block is not None]
        measured = {id(v) for block in blocks for v in (block.kernel, block.bias)}
        return [v for v in parameters(self.model) if id(v) not in measured]

    def _loss_scale_variable(self):
        return _make_variable("loss_scale", (), Statistic(LOSS_SCALE, None), initializer="ones")

    def _needs_loss_scale(self):
        return bool(self.variables) and self.variables[-1].statistic.kind == LOSS_SCALE


def _names_taken(model):
    """By statistics that other models have of the same layers."""
    probes = [p for x in keras_internals.flatten_layers(model) for p in probes_of(x)]
    return {v.name for p in probes for block in p.variables for v in block.values()}


def _without_frozen_bias(block):
    if block.bias is None or block.bias.trainable:
        return block
    return dataclasses.replace(block, bias=None)


def _make_variable(name, shape, statistic, initializer="zeros", layout=None):
    variable = keras.Variable(
        initializer,
        shape=shape,
        dtype="float32",
        autocast=False,
        aggregation="mean",
        layout=layout or keras_internals.undivided(len(shape)),
        name=name,
    )
    variable.overwrite_with_gradient = True
    variable.statistic = statistic
    return variable
