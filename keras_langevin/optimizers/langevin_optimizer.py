"""The base of all samplers: target, prior, metric, noise."""

import contextlib
import functools
import math
import random
import warnings

import keras
from keras import ops

from keras_langevin import priors
from keras_langevin.arguments import (
    SMALLEST,
    boolean,
    instance,
    integer,
    non_negative_number,
    number,
    positive_number,
    seed_number,
    shorten,
    unit_interval,
)
from keras_langevin.arithmetic import with_product
from keras_langevin.keras_arguments import keras_name
from keras_langevin.keras_internals import JointOptimizer, learning_rate_schedule, schedule_step
from keras_langevin.noise import standard_normal
from keras_langevin.optimizers.nonfinite import NonfiniteSteps, kept_finite
from keras_langevin.preconditioners.euclidean import Euclidean
from keras_langevin.preconditioners.preconditioner import Layout, Preconditioner, block_layouts
from keras_langevin.statistics.block import SHIFT
from keras_langevin.weights import is_statistic

DEFAULT_PRIOR = priors.FanInNormal(10.0)

_HALF = ("float16", "bfloat16")
_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
# Of every Keras optimizer: how each is checked, and its default.
_KERAS_ARGUMENTS = {
    "name": (keras_name, None),
    "weight_decay": (non_negative_number, None),
    **{name: (positive_number, None) for name in _CLIPS},
    "use_ema": (boolean, False),
    "ema_momentum": (functools.partial(unit_interval, zero_allowed=True), 0.99),
    "ema_overwrite_frequency": (functools.partial(integer, at_least=1), None),
    "loss_scale_factor": (positive_number, None),
    "gradient_accumulation_steps": (functools.partial(integer, at_least=2), None),
}


class LangevinOptimizer(JointOptimizer):
    """Preconditioned Langevin dynamics; the named samplers choose the metric.

    With G(θ) = mean loss − log p(θ) / N on a minibatch, metric M, C = M⁻¹ = L Lᵀ:

        θ ← θ − η C ∇G + √(2ηT/N) L ξ,    ξ ~ N(0, I)

    samples p(θ) ∝ exp(−U(θ)/T), U = N · mean loss − log prior, for small η. With a fixed C the
    covariance on a Gaussian target is (T/N)(H − (η/2) H C H)⁻¹, H the Hessian of G: too wide by
    the factor 1/(1 − ηs/2) along an eigenvector of C H with eigenvalue s, and unstable at
    ηs ≥ 2. Minibatches of size B add about ηN/(2BT) to that.

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
            prior. Defaults to `kl.priors.FanInNormal(10)`: variance 10/fan_in on kernels, 1 on
            vectors. Regularisers of layers enter the
            loss and so add N times their value to U.
        preconditioner: The metric; Euclidean by default.
        batch_size: B, if given, reduces the injected noise by what minibatches of that size
            already add where C ≈ H⁻¹: variance (2ηT/N)(1 − η/2) − η²/B instead of 2ηT/N. Only
            for outer-product metrics.
        seed: Integer; the noise is a pure function of (seed, iteration, variable). Drawn from
            Python's generator when `None`, so `keras.utils.set_random_seed` fixes it.
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

    momentum = 0.0  # β: which share of a step the next one repeats
    has_noise_limit = True  # whether `kl.diagnostics.step_size` limits its learning rate
    keeps_copy = True  # whether on_nonfinite="rollback" is to a copy of the weights

    def __init__(
        self,
        learning_rate,
        num_data=None,
        temperature=1.0,
        prior=DEFAULT_PRIOR,
        preconditioner=None,
        batch_size=None,
        drift_clip=None,
        seed=None,
        on_nonfinite="raise",
        exact_noise=False,
        **kwargs,
    ):
        num_data = _checked_num_data(num_data)
        kwargs = _checked_keras_arguments(kwargs)
        _refuse_what_changes_the_target(num_data, kwargs)
        super().__init__(learning_rate=_checked_learning_rate(learning_rate), **kwargs)
        self.has_automatic_learning_rate = learning_rate == "auto"
        self.has_learning_rate = not self.has_automatic_learning_rate
        self.num_data = num_data
        self.temperature = non_negative_number("temperature", temperature)
        self.prior = priors.get(prior)
        self.preconditioner = _checked_preconditioner(preconditioner)
        # v = tr(C V)/d, V the covariance of one example's gradient; "auto" measures it.
        is_known = self.preconditioner.approximates_fisher and self.has_learning_rate
        self.gradient_noise = 1.0 if is_known else None
        self.batch_size = batch_size
        if batch_size is not None:
            self.batch_size = integer("batch_size", batch_size, at_least=1)
            self._check_noise_correction(_checked_learning_rate(learning_rate))
        self.drift_clip = checked_drift_clip(drift_clip, self.has_automatic_learning_rate)
        self.seed = random.randint(1, 10**9) if seed is None else seed_number("seed", seed)
        self._nonfinite = NonfiniteSteps(on_nonfinite, keeps_copy=self.keeps_copy)
        self.exact_noise = boolean("exact_noise", exact_noise)

    @property
    def statistics(self):
        return self.preconditioner.statistics

    @property
    def statistics_stride(self):
        return self.preconditioner.statistics_stride

    @property
    def fisher(self):
        return getattr(self.preconditioner, "fisher", "empirical")

    @keras.optimizers.Optimizer.learning_rate.setter
    def learning_rate(self, learning_rate):
        keras.optimizers.Optimizer.learning_rate.fset(self, learning_rate)
        self.has_learning_rate = True

    # ----------------------------------------------------------------------------- build

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        parameters = [v for v in variables if not is_statistic(v)]
        positions = {id(v): i for i, v in enumerate(parameters)}
        self._places = {self.position(v): place for place, v in enumerate(parameters)}
        self._priors = tuple(self.prior.for_variable(v) for v in parameters)
        _warn_about(parameters)
        layout = Layout(
            shapes=tuple(tuple(v.shape) for v in parameters),
            names=tuple(v.path.replace("/", "_") for v in parameters),
            prior_precisions=tuple(
                prior.precision(tuple(v.shape)) / self.num_data
                for prior, v in zip(self._priors, parameters, strict=True)
            ),
            blocks=block_layouts(variables, positions),
        )
        known = {id(v) for v in self.variables}
        self.preconditioner.build(layout, self._add_state)
        self._of_metric = frozenset(id(v) for v in self.variables) - known
        self._shapes = layout.shapes
        if self.drift_clip is not None:
            self.drift_average = self._add_state((), "drift_average")
            self.drift_clips = self._add_state((), "drift_clips")
        self._nonfinite.build(layout.shapes, layout.names, self._add_state)

    def _add_state(self, shape, name):
        return self.add_variable(shape=shape, initializer="zeros", dtype="float32", name=name)

    @contextlib.contextmanager
    def at_rest(self):
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

    # ------------------------------------------------------------------------------ step

    def step(self, parameters, gradients, learning_rate):
        self._check_learning_rate()
        statistics = self.read_statistics()
        learning_rate = ops.cast(learning_rate, "float32")
        learning_rate = ops.where(self.preconditioner.is_at_rest(), 0.0, learning_rate)
        values, gradients, present = self._complete(parameters, gradients)
        metric, changes = self.preconditioner.update(values, gradients, statistics)
        values, own_changes = self.advance(values, gradients, statistics, metric, learning_rate)
        for position, variable in present:
            yield variable, values[position]
        yield from [*changes, *own_changes]

    def settle(self, results):
        shifts = [v for v in self.statistic_variables if v.statistic.kind == SHIFT]
        results += [(v, ops.convert_to_tensor(v)) for v in shifts]
        used = [(v, ops.stack([v[0], v[0]])) for v in shifts]  # not the mean of a bad batch
        metric = [(v, value) for v, value in results if id(v) in self._of_metric]
        rest = [(v, value) for v, value in results if id(v) not in self._of_metric]
        is_finite, rest = self._nonfinite.settle(
            rest, self.read_statistics(), used, self.iterations, self._place, self.restart
        )
        return [*rest, *kept_finite(metric, is_finite)]

    def restart(self):
        """The changes of state where the weights go back, but for theirs."""
        return []

    def _place(self, variable):
        """Among the parameters; None for a variable of the optimizer's own."""
        return self._places.get(self.position(variable))

    def advance(self, values, gradients, statistics, metric, learning_rate):
        """The weights after the step, and the changes of state that the dynamics make."""
        slopes = self.add_prior(values, gradients)
        rate, noise_scale, normals, changes = learning_rate, 0.0, None, []
        if self.drift_clip is not None:
            clip, changes = self._clip(self.preconditioner.squared_length(metric, slopes))
            rate = learning_rate * clip
        if self.temperature > 0:
            noise_scale, normals = self.noise_scale(learning_rate), self.normals(self._shapes)
        moves = self.preconditioner.displacement(metric, slopes, rate, normals, noise_scale)
        values = _added(values, moves)
        divergence = self.preconditioner.divergence(metric, gradients, statistics)
        if self.temperature > 0 and divergence is not None:
            rate = learning_rate * self.step_temperature() / self.num_data
            values = _added(values, [rate * d for d in divergence])
        return values, changes

    def _clip(self, length):
        """What the drift is multiplied by, and the changes of state, from its squared length."""
        average = ops.convert_to_tensor(self.drift_average)
        limit = ops.where(average > 0, self.drift_clip * average, length)
        clipped = ops.minimum(length, limit)
        scale = ops.sqrt(clipped / ops.maximum(length, 1e-30))
        counts = 1.0 - ops.cast(self.preconditioner.is_at_rest(), "float32")
        change = ops.where(average > 0, 0.01 * (clipped - average), length)
        clips = self.drift_clips + counts * ops.cast(length > limit, "float32")
        changes = [(self.drift_average, average + counts * change), (self.drift_clips, clips)]
        return scale, changes

    def step_temperature(self):
        """T, and 0 in steps in which a schedule of the learning rate explores (`kl.schedules`)."""
        schedule = learning_rate_schedule(self)
        if not hasattr(schedule, "is_sampling"):
            return self.temperature
        is_sampling = schedule.is_sampling(schedule_step(self))
        return self.temperature * ops.cast(is_sampling, "float32")

    def noise_scale(self, learning_rate):
        """√(2ηT/N), the standard deviation of the noise in the metric's own units."""
        variance = 2.0 * learning_rate * self.step_temperature() / self.num_data
        if self.batch_size is not None:
            variance = variance * (1.0 - learning_rate / 2.0) - learning_rate**2 / self.batch_size
            variance = ops.maximum(variance, 0.0)
        return ops.sqrt(variance)

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
        if self.statistics is not None and not self.statistic_variables:
            raise ValueError(
                f"{type(self).__name__} needs per-example statistics, and the model it trains is "
                "not tracked. Received: no statistics. Either add "
                "`callbacks=[kl.PosteriorSampler(...)]` to `fit`, which installs the probes, or "
                "call `kl.track_statistics(model, optimizer)` before training."
            )
        return super().read_statistics()

    def _check_learning_rate(self):
        if not self.has_learning_rate:
            raise ValueError(
                'Nothing has set the learning rate yet. Received: learning_rate="auto", and no '
                "`kl.PosteriorSampler` among the callbacks of `fit`. Add one, or call "
                "`model.optimizer.learning_rate = kl.find_learning_rate(model, x, y, batch_size)`."
            )

    def _complete(self, variables, gradients):
        """Values and gradients of all parameters, float32, in the order of `build`; zeros where
        the loss does not depend on a variable (Keras warns), which then stays where it is."""
        given = {self.position(v): (v, g) for v, g in zip(variables, gradients, strict=True)}
        values, full, present = [], [], []
        for index, variable in enumerate(self._trainable_variables):
            if is_statistic(variable):
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

    # ---------------------------------------------------------------------------- the rest

    def minibatch_noise(self, batch_size):
        """ηNv/(2BT): the noise of minibatches of size B over the injected noise, averaged over
        the weights. None where v is not known, and at T = 0."""
        if self.gradient_noise is None or self.temperature == 0:
            return None
        learning_rate = float(ops.convert_to_numpy(self.learning_rate))
        ratio = learning_rate * self.num_data / (2.0 * batch_size * self.temperature)
        return ratio * self.gradient_noise

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
        learning_rate = float(ops.convert_to_numpy(self.learning_rate))
        logs["noise_scale"] = float(ops.convert_to_numpy(self.noise_scale(learning_rate)))
        if self.drift_clip is not None:
            clips, steps = (
                float(ops.convert_to_numpy(v)) for v in (self.drift_clips, self.iterations)
            )
            logs["drift_clipped"] = clips / max(steps, 1.0)
        return logs

    def _check_noise_correction(self, learning_rate):
        n, t, b = self.num_data, self.temperature, self.batch_size
        limit = 2 * t * b / (n + t * b)
        if not callable(learning_rate) and learning_rate > limit:
            raise ValueError(
                "With this `batch_size` the noise of the minibatches alone exceeds what the "
                f"temperature asks for: expected learning_rate <= {limit:.3g}. Received: "
                f"learning_rate={learning_rate}, batch_size={b}, num_data={n}, temperature={t}. "
                "Lower the learning rate, enlarge the batch, or leave `batch_size` out."
            )

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if not callable(self._learning_rate):
            saved = float(ops.convert_to_numpy(self.learning_rate))
            self.has_learning_rate = self.has_learning_rate or saved > 0

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
            batch_size=self.batch_size,
            drift_clip=math.inf if self.drift_clip is None else self.drift_clip,
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


def _added(values, moves):
    """The sums; the moves are used up."""
    return [with_product(move, 1, θ) for θ, move in zip(values, moves, strict=True)]


def _warn_about(parameters):
    for variable in parameters:
        if getattr(variable, "constraint", None) is not None:
            warnings.warn(
                f"The constraint of {variable.path!r} is applied after each step: the samples "
                "follow the target folded by it, not the target.",
                stacklevel=3,
            )
    half = [v for v in parameters if keras.backend.standardize_dtype(v.dtype) in _HALF]
    if half:
        dtype = keras.backend.standardize_dtype(half[0].dtype)
        warnings.warn(
            f"The weights {[v.path for v in half]} are {dtype}: steps below a few thousandths of "
            "a weight, noise among them, are lost in rounding, so the samples do not follow the "
            f"target. Use the policy 'mixed_{dtype}', which keeps float32 weights.",
            stacklevel=3,
        )


def _checked_preconditioner(preconditioner):
    if preconditioner is None:
        return Euclidean()
    words = "one of `kl.preconditioners`, or None"
    return instance("preconditioner", preconditioner, Preconditioner, words)


def _checked_learning_rate(learning_rate):
    """The initial value; 0 for "auto", so that nothing moves before it is found."""
    if isinstance(learning_rate, str):
        if learning_rate != "auto":
            raise ValueError(
                '`learning_rate` must be a number >= 0, a schedule or "auto". Received: '
                f"learning_rate={learning_rate!r}"
            )
        return 0.0
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return learning_rate
    return non_negative_number("learning_rate", learning_rate)


def checked_drift_clip(drift_clip, has_automatic_learning_rate):
    """The clip in use, None for no clip."""
    if drift_clip is None:
        return 3.0 if has_automatic_learning_rate else None
    if isinstance(drift_clip, float) and drift_clip == math.inf:
        return None
    found = number("drift_clip", drift_clip)
    if found < 1:
        raise ValueError(
            "`drift_clip` must be None or at least 1, the multiple of the average that is let "
            f"through. Received: drift_clip={drift_clip!r}"
        )
    return found


def _checked_num_data(num_data):
    if num_data is None:
        raise ValueError(
            "`num_data` is required: the number of training examples N. The posterior is "
            "exp(-N * mean loss) times the prior, and nothing else tells the optimizer how large "
            "N is. Received: num_data=None. Pass `num_data=len(x_train)`."
        )
    value = number("num_data", num_data)
    if value < SMALLEST:
        raise ValueError(
            f"`num_data` must be greater than zero. Received: num_data={num_data!r}. Pass the "
            "number of training examples, `num_data=len(x_train)`."
        )
    is_whole = value == math.floor(value) and value < 2**31  # which backends take for integers
    return int(value) if is_whole else value


def _checked_keras_arguments(kwargs):
    found = {}
    for name, value in kwargs.items():
        if name not in _KERAS_ARGUMENTS:
            raise TypeError(
                f"A sampler got an unexpected keyword argument '{name}'. Received: "
                f"{name}={shorten(value)}. Keras' own are {', '.join(_KERAS_ARGUMENTS)}."
            )
        check, default = _KERAS_ARGUMENTS[name]
        found[name] = None if default is None and value is None else check(name, value)
    clips = {name: found[name] for name in _CLIPS if found.get(name) is not None}
    if len(clips) > 1:
        raise ValueError(f"Give one of {_CLIPS} at most. Received: {clips}")
    return found


def _refuse_what_changes_the_target(num_data, kwargs):
    weight_decay = kwargs.get("weight_decay")
    if weight_decay is not None and non_negative_number("weight_decay", weight_decay) > 0:
        raise ValueError(
            "`weight_decay` would shift the samples off the declared target. Received: "
            f"weight_decay={weight_decay}. Declare it as a prior instead: "
            f"`prior=kl.priors.Normal(stddev={(num_data * weight_decay) ** -0.5:.4g})`, of "
            "variance 1 / (num_data * weight_decay)."
        )
    for name in ("use_ema", "ema_overwrite_frequency"):
        if kwargs.get(name):
            raise ValueError(
                "An average of the weights in their place collapses the variance of the samples. "
                f"Received: {name}={kwargs[name]}. Average predictions instead: "
                "`sampler.ensemble()`."
            )
    for name in _CLIPS:
        if kwargs.get(name) is not None:
            warnings.warn(
                f"`{name}` bends the drift wherever it bites, so the samples no longer follow "
                f"exp(-U/T) there. Received: {name}={kwargs[name]}. A smaller `learning_rate` "
                "or another preconditioner keeps the target.",
                stacklevel=4,
            )
