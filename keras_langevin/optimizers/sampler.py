"""The base of all samplers: target, metric, noise, and steps that are not finite."""

import contextlib
import random
from dataclasses import replace

import keras
from keras import ops

from keras_langevin import priors, weights
from keras_langevin.arguments import boolean, non_negative_number, seed_number
from keras_langevin.keras_internals import (
    JointOptimizer,
    forget_compiled_functions,
    layout_along,
    learning_rate_schedule,
    refusal,
    schedule_step,
    undivided,
)
from keras_langevin.noise import standard_normal
from keras_langevin.optimizers.nonfinite import NonfiniteSteps, kept_finite
from keras_langevin.optimizers.protocol import SamplerProtocol
from keras_langevin.optimizers.sampler_arguments import (
    check_parameters,
    checked_keras_arguments,
    checked_learning_rate,
    checked_num_data,
    checked_preconditioner,
    no_learning_rate,
    not_tracked,
    refuse_what_changes_the_target,
)
from keras_langevin.preconditioners.preconditioner import (
    Layout,
    axes_in_weight,
    batch_size_place,
    block_layouts,
)
from keras_langevin.priors.fan_in import DEFAULT as DEFAULT_PRIOR
from keras_langevin.priors.roles import note_last_as_output, note_roles
from keras_langevin.statistics.block import SHIFT


class Sampler(SamplerProtocol, JointOptimizer):
    """An optimizer whose steps sample p(θ) ∝ exp(−U(θ)/T), U = N · mean loss − log prior.

    The base owns what all dynamics share. A sampler of your own writes one method, and where it
    keeps state a second (`examples/add_a_sampler.py` is one to copy):

        advance(values, gradients, statistics, metric, learning_rate)
            one step: the new weights, and `(variable, new value)` pairs of its state
        build_state()
            makes state by `self.add_state(shape, name)`, which starts at zero;
            `self.layout.shapes` and `self.layout.names` are those of the weights
        restart()
            such pairs of state for the moment when weights go back to an earlier copy

    and asks the base, within a step, for

        add_prior(values, gradients)    ∇G = ∇(mean loss − log prior / N)
        normals(shapes)                 standard normal arrays, new in every step
        step_temperature()              T, and 0 while a schedule of the rate explores
        preconditioner                  `solve`, `sample`, `whiten` with this step's metric

    What callbacks and reports may then ask is listed in `SamplerProtocol`, each with an honest
    default; override what the sampler can state.

    Args:
        learning_rate: η, a float, a schedule (Keras' or of `kl.schedules`, some of which turn the
            noise off in parts of a cycle), or `"auto"`. Multiplies the gradient of the
            MEAN loss, as in every Keras optimizer; Welling and Teh's step is 2η/N. `"auto"`
            needs a `kl.PosteriorSampler` in `fit`, which sets it from the curvature and the
            noise of minibatches (see `kl.diagnostics.step_size`) before the first step and
            again during burn-in; without one call `kl.find_learning_rate`.
        num_data: N, the number of training examples. Required: the posterior's width depends
            on it and nothing in `fit` tells it. Losses must have the (default) mean reduction;
            sample and class weights multiply the examples' log-likelihoods. Where a loss
            averages over tokens or pixels, N counts those that are independent observations.
        temperature: T. 1 is the Bayesian posterior, 0 no noise at all (preconditioned gradient
            descent on G), between them a cold posterior.
        prior: One of `kl.priors`, a mapping from patterns of variable paths to priors, a
            TensorFlow Probability distribution (TensorFlow backend), or `None` for a flat
            prior. Defaults to `kl.priors.LayerwiseNormal()`, whose width follows from what a
            variable is in its layer; `kl.priors.describe(model)` shows it. Regularisers of layers
            enter the loss and so add N times their value to U.
        seed: Integer; the noise is a pure function of (seed, iteration, variable). Drawn from
            Python's generator when `None`, so `keras.utils.set_random_seed` fixes it.
        preconditioner: The metric, one of `kl.preconditioners`; Euclidean by default.
        on_nonfinite: What becomes of a step in which a gradient, a statistic or a new weight is NaN
            or infinite, of any layer. It is never taken: weights, momentum and metric, of all
            layers, are left as they were, and only `iterations`, which number the noise, go on.
            `nonfinite_steps` counts it. `"raise"`: at the end of the batch or epoch
            `kl.PosteriorSampler` raises a `FloatingPointError`; without one, training goes on.
            `"skip"`: training goes on, for data with bad examples. At weights where every batch is
            bad, the chain stays for ever. `"rollback"`: training goes on, and with the third bad
            step in a row the weights go back to a copy, taken every 100 steps, and a momentum is
            drawn anew; the metric stays. A learning rate that is too large diverges again. The copy
            is one more of the weights. Under the policy "mixed_float16" such gradients never come
            here: Keras' `LossScaleOptimizer` leaves the step out, which is not counted, and halves
            the loss scale; when that is used up `kl.PosteriorSampler` raises.
        exact_noise: Draw the noise from the normal distribution's own quantiles. The default, a
            sum of bytes put through a polynomial, takes half the time; its distribution function
            is within 2e-5 of the normal one, its moments up to the sixth within 3e-5 and the share
            beyond five standard deviations within 2 % (`keras_langevin/normal_numbers.py`). On
            torch both are `torch.randn`.
        **kwargs: Of every Keras optimizer. `weight_decay` and `use_ema` are refused, clipping
            warns: they change the target. `gradient_accumulation_steps` does not.
    """

    keeps_copy = True  # whether on_nonfinite="rollback" is to a copy of the weights

    def __init__(
        self,
        learning_rate,
        *,
        num_data,
        temperature=1.0,
        prior=DEFAULT_PRIOR,
        seed=None,
        preconditioner=None,
        on_nonfinite="raise",
        exact_noise=False,
        **kwargs,
    ):
        num_data = checked_num_data(num_data)
        kwargs = checked_keras_arguments(kwargs)
        refuse_what_changes_the_target(num_data, kwargs)
        self._refuse_automatic(learning_rate)
        super().__init__(learning_rate=checked_learning_rate(learning_rate), **kwargs)
        self.has_automatic_learning_rate = learning_rate == "auto"
        self.has_learning_rate = not self.has_automatic_learning_rate
        self.num_data = num_data
        self.temperature = non_negative_number("temperature", temperature)
        self.prior = priors.get(prior)
        self.preconditioner = checked_preconditioner(preconditioner)
        # v = tr(C V)/d, V the covariance of one example's gradient; "auto" measures it.
        is_known = self.preconditioner.approximates_fisher and self.has_learning_rate
        self.gradient_noise = 1.0 if is_known else None
        self.seed = random.randint(1, 10**9) if seed is None else seed_number("seed", seed)
        self._nonfinite = NonfiniteSteps(on_nonfinite, keeps_copy=self.keeps_copy)
        self.exact_noise = boolean("exact_noise", exact_noise)

    def _refuse_automatic(self, learning_rate):
        if (
            isinstance(learning_rate, str)
            and learning_rate == "auto"
            and type(self).momentum is None
        ):
            raise ValueError(
                f"No rule finds the learning rate of {type(self).__name__}, which does not state "
                'its `momentum` (see `SamplerProtocol`). Received: learning_rate="auto". Pass a '
                "number or a schedule."
            )

    @keras.optimizers.Optimizer.learning_rate.setter
    def learning_rate(self, learning_rate):
        keras.optimizers.Optimizer.learning_rate.fset(self, learning_rate)
        self.has_learning_rate = True

    # ------------------------------------------------------- what a sampler of your own writes

    def advance(self, values, gradients, statistics, metric, learning_rate):
        """One step of the dynamics.

        Args:
            values: The weights, one float32 array for each parameter.
            gradients: Of the mean loss on the minibatch, without the prior, shaped alike.
            statistics: What `statistics` asked the layers to measure; an empty list for most.
            metric: The preconditioner's for this step, which its methods take; None for Euclidean.
            learning_rate: A float32 scalar; 0 while the preconditioner fills its metric.

        Returns:
            `(values, changes)`: the new weights, and a list of `(variable, new value)` pairs.
        """
        raise NotImplementedError(
            f"`{type(self).__name__}` must implement `advance(values, gradients, statistics, "
            "metric, learning_rate)`, which returns the new weights and the changes of state."
        )

    def build_state(self):
        """Makes the state of the dynamics by `add_state`."""

    def restart(self):
        """The changes of state where the weights go back to their copy, but for theirs."""
        return []

    # ----------------------------------------------------------------------------------- build

    def build(self, variables):
        if self.built:
            return
        parameters = [v for v in variables if not weights.is_statistic(v)]
        check_parameters(parameters)
        super().build(variables)
        places = {id(v): i for i, v in enumerate(parameters)}
        self._places = {self.index(v): place for place, v in enumerate(parameters)}
        note_last_as_output(parameters)
        self._priors, precisions = self._priors_of(parameters)
        self.layout = Layout(
            shapes=tuple(tuple(v.shape) for v in parameters),
            names=tuple(v.path.replace("/", "_") for v in parameters),
            prior_precisions=precisions,
            blocks=block_layouts(variables, places),
            batch_size=batch_size_place(variables),
        )
        known = {id(v) for v in self.variables}
        self.preconditioner.build(self.layout, self.add_state)
        self._of_metric = frozenset(id(v) for v in self.variables) - known
        self._nonfinite.build(self.layout.shapes, self.layout.names, self.add_state)
        self.build_state()

    def _priors_of(self, parameters):
        """Of every parameter the prior, and its precision in the units of the mean loss."""
        chosen = tuple(self.prior.for_variable(v) for v in parameters)
        pairs = zip(chosen, parameters, strict=True)
        return chosen, tuple(p.precision(tuple(v.shape)) / self.num_data for p, v in pairs)

    def parameters_changed(self, has_new):
        """New parameters have no metric yet; a momentum or an open step is drawn anew."""
        self._nonfinite.forget_copy()
        for variable, value in self.restart():
            variable.assign(value)
        if has_new:
            self.preconditioner.begin_again()
            if self.has_automatic_learning_rate:
                self.has_learning_rate = False

    def add_state(self, shape, name):
        """A float32 variable of the optimizer that starts at zero and is saved with it.

        Where `keras.distribution` splits the weights over devices, a state that is shaped as a
        weight is split as that weight: as the one whose name in `self.layout.names` its own begins
        with.
        """
        layout = self._state_layout(tuple(shape), name)
        return self.add_variable(shape, "zeros", "float32", layout=layout, name=name)

    def _state_layout(self, shape, name):
        names = self.layout.names
        for i in sorted(range(len(names)), key=lambda i: -len(names[i])):
            if name.startswith(f"{names[i]}_"):
                axes = axes_in_weight(shape, i, self.layout)
                if axes is not None:
                    return layout_along(self.sampled_variables[i], axes)
        return undivided(len(shape))

    @contextlib.contextmanager
    def filling_metric(self):
        """Inside, training fills the metric: no weight moves and no iteration counts."""
        has_learning_rate, self.has_learning_rate = self.has_learning_rate, True
        iterations = ops.convert_to_numpy(self.iterations)
        self.preconditioner.resting.assign(1.0)
        try:
            yield
        finally:
            self.preconditioner.resting.assign(0.0)
            self.iterations.assign(iterations)
            self.has_learning_rate = has_learning_rate

    # ------------------------------------------------------------------------------------ step

    def step(self, parameters, gradients, learning_rate):
        self._check_learning_rate()
        statistics = self.read_statistics()
        learning_rate = ops.cast(learning_rate, "float32")
        learning_rate = ops.where(self.preconditioner.is_at_rest(), 0.0, learning_rate)
        values, gradients, present = self._complete(parameters, gradients)
        metric, changes = self.preconditioner.update(values, gradients, statistics)
        values, own_changes = self.advance(values, gradients, statistics, metric, learning_rate)
        for place, variable in present:
            yield variable, values[place]
        yield from [*changes, *own_changes]

    def accept(self, results):
        shifts = [v for v in self.statistic_variables if v.statistic.kind == SHIFT]
        results += [(v, ops.convert_to_tensor(v)) for v in shifts]
        used = [(v, ops.stack([v[0], v[0]])) for v in shifts]  # not the mean of a bad batch
        metric = [(v, value) for v, value in results if id(v) in self._of_metric]
        rest = [(v, value) for v, value in results if id(v) not in self._of_metric]
        is_finite, rest = self._nonfinite.accept(
            rest, self.read_statistics(), used, self.iterations, self._place, self.restart
        )
        return [*rest, *kept_finite(metric, is_finite)]

    def _place(self, variable):
        """Among the parameters; None for a variable of the optimizer's own."""
        return self._places.get(self.index(variable))

    def step_temperature(self):
        """T, and 0 in steps in which a schedule of the learning rate explores (`kl.schedules`)."""
        schedule = learning_rate_schedule(self)
        if not hasattr(schedule, "is_sampling"):
            return self.temperature
        is_sampling = schedule.is_sampling(schedule_step(self))
        return self.temperature * ops.cast(is_sampling, "float32")

    def add_prior(self, values, gradients):
        """∇G from the gradient of the mean loss."""
        return [
            prior.add_score(θ, -1.0 / self.num_data, g)
            for prior, θ, g in zip(self._priors, values, gradients, strict=True)
        ]

    def normals(self, shapes, iteration=None):
        """Independent standard normal arrays for this step, one a parameter."""
        iteration = self.iterations if iteration is None else iteration
        return [self.normal(shape, iteration, i) for i, shape in enumerate(shapes)]

    def normal(self, shape, iteration, stream):
        return standard_normal(shape, self.seed, iteration, stream, self.exact_noise)

    def read_statistics(self):
        is_missing = self.statistics is not None and not self.statistic_variables
        if is_missing and not self.finds_nothing_to_measure:
            raise refusal(not_tracked(type(self).__name__))
        return super().read_statistics()

    def _check_learning_rate(self):
        if not self.has_learning_rate:
            raise refusal(no_learning_rate())

    def _complete(self, variables, gradients):
        """Values and gradients of all parameters, float32, in the order of `build`; zeros where
        the loss does not depend on a variable (Keras warns), which then stays where it is."""
        given = {self.index(v): (v, g) for v, g in zip(variables, gradients, strict=True)}
        values, full, present = [], [], []
        for index, variable in enumerate(self._trainable_variables):
            if weights.is_statistic(variable):
                continue
            value = ops.cast(ops.convert_to_tensor(variable), "float32")
            if index in given:
                variable, gradient = given[index]
                present.append((len(values), variable))
                full.append(ops.cast(gradient, "float32"))
            else:
                full.append(ops.zeros_like(value))
            values.append(value)
        return values, full, present

    # ------------------------------------------------------------- what callbacks may ask of it

    @property
    def statistics(self):
        return self.preconditioner.statistics

    @property
    def statistics_stride(self):
        return self.preconditioner.statistics_stride

    @property
    def fisher(self):
        return self.preconditioner.fisher

    def attach(self, model):
        """The layers say more of a variable than its name, by which an optimizer that was built
        before, as one from a file, had to go."""
        note_roles(model)
        if self.built:
            self._priors, precisions = self._priors_of(self.sampled_variables)
            if precisions != self.layout.prior_precisions:
                layout = self.preconditioner.layout
                self.preconditioner.layout = replace(layout, prior_precisions=precisions)
                self.layout = replace(self.layout, prior_precisions=precisions)
                forget_compiled_functions(model)
        self.preconditioner.attach(model)

    def begin_burn_in(self, num_steps=None):
        if self.built:
            self.preconditioner.release()

    def end_burn_in(self):
        """Holds the metric, unless a schedule of the rate goes on to explore."""
        if self.built and not hasattr(learning_rate_schedule(self), "is_sampling"):
            self.preconditioner.hold()

    def minibatch_noise(self, batch_size):
        """ηNv/(2BT(1−β)): the noise of minibatches of size B over what the temperature asks for,
        averaged over the weights. None where β or v is not known, and at T = 0."""
        if self.gradient_noise is None or self.temperature == 0 or self.momentum is None:
            return None
        ratio = self.present_learning_rate * self.num_data / (2.0 * batch_size * self.temperature)
        return ratio * self.gradient_noise / max(1.0 - self.momentum, 1e-12)

    @property
    def present_learning_rate(self) -> float:
        """The learning rate of the step to come, as a number."""
        return float(ops.convert_to_numpy(self.learning_rate))

    @property
    def on_nonfinite(self):
        return self._nonfinite.action

    @property
    def nonfinite_steps(self) -> int:
        """How many steps were not taken so far, being NaN or infinite."""
        return int(ops.convert_to_numpy(self._nonfinite.count)) if self.built else 0

    @property
    def last_nonfinite_step(self) -> int:
        """The number of the last of them, the first step of all being 1; 0 if there was none."""
        return int(ops.convert_to_numpy(self._nonfinite.last)) if self.built else 0

    def sampler_logs(self):
        """Sampler quantities for the logs of `fit`, by name."""
        logs = {"nonfinite_steps": self.nonfinite_steps}
        scale = self.noise_scale(self.present_learning_rate)
        if scale is not None:
            logs["noise_scale"] = float(ops.convert_to_numpy(scale))
        return logs

    # ------------------------------------------------------------------------------ files, config

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if not callable(self._learning_rate):
            self.has_learning_rate = self.has_learning_rate or self.present_learning_rate > 0

    def get_config(self):
        config = super().get_config()
        for name in ("weight_decay", "use_ema", "ema_momentum", "ema_overwrite_frequency"):
            config.pop(name, None)
        if self.has_automatic_learning_rate:
            config["learning_rate"] = "auto"
        config.update(
            num_data=self.num_data,
            temperature=self.temperature,
            prior=keras.saving.serialize_keras_object(self.prior),
            seed=self.seed,
            on_nonfinite=self.on_nonfinite,
            exact_noise=self.exact_noise,
            **self.preconditioner_config(),
        )
        return config

    def preconditioner_config(self):
        """What `get_config` says of the metric; named samplers take its arguments directly."""
        return {"preconditioner": keras.saving.serialize_keras_object(self.preconditioner)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("prior", "preconditioner"):
            if isinstance(config.get(name), dict) and "class_name" in config[name]:
                config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return super().from_config(config, custom_objects)
