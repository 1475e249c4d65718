"""Stochastic microcanonical Langevin dynamics."""

import math
import warnings

import keras
from keras import ops

from keras_langevin.arguments import (
    boolean,
    integer,
    one_of,
    positive_number,
    unit_interval,
)
from keras_langevin.optimizers.gradient_noise import EqualNoise, SuccessiveDifferences
from keras_langevin.optimizers.microcanonical import dot, kick, normalised, product, refresh
from keras_langevin.optimizers.sampler import DEFAULT_PRIOR, Sampler
from keras_langevin.optimizers.step_size_tuner import (
    AbsoluteEnergy,
    EnergyVariance,
    NoTuner,
    first_step_size,
    target_energy_for,
)


@keras.saving.register_keras_serializable(package="keras_langevin")
class SMILE(Sampler):
    """Stochastic microcanonical Langevin dynamics: samples p(θ) ∝ exp(−U(θ)/T). Its
    `learning_rate` is a distance: how far all weights together move in one step.

    The weights θ, d in all, move at unit speed along a direction u, |u| = 1, which the slope g of
    the log density turns; noise of minibatches and a refreshment keep it from coming back. In a
    step of `fit`, with P the scale of each weight (1 unless `preconditioned`):

        g  = −N∇G/T on this minibatch
        u ← B(ε/2, Pg) u       finishes the step before; its energy error S is then known
        u ← (u + νξ)/|u + νξ|
        u ← B(ε/2, Pg) u       begins the next
        θ ← θ + ε P u

    B turns u as the exact flow for a constant slope would. One gradient a step, and every θ is a
    sample. S is the change of energy of the step, with the trapezoid rule over the two slopes in
    the place of the potential, which minibatches would drown in noise: exact on a Gaussian.

    On a Gaussian target the error of the variances falls with E[S²]/d (with exact gradients, as
    ε⁶); what it cannot show is the bias of minibatch noise that differs between weights, of first
    order in ε, which is what `preconditioned` is for. The four published variants: SMILE-naive is
    `preconditioned=False, tuner=None`, pSMILE-naive `tuner=None`, SMILE and pSMILE have
    `tuner="energy_variance"`. With all data in every batch `preconditioned=False` is MCLMC, and
    an ensemble of such chains from warm starts (`kl.sample_chains`) MILE.

    Args:
        learning_rate: ε, the length of a step: of the move of all weights together, √(Σ Δθ²), in
            the units of the weights (with `preconditioned`, in units of P, whose mean square is
            1). With a tuner, that of the first step: small, since the tuner at most adds 2 % a
            step; `"auto"` (the default) is 1e-3. A schedule only with `tuner=None`, which needs a
            number or a schedule.
        num_data: N, the number of training examples; required.
        preconditioned: Whether each weight is scaled so that all see gradient noise of the same
            size, P = 1/√V up to a factor, V the variance of the gradient by successive
            differences, √V floored at a tenth of its median.
        tuner: `"absolute"` brings E[S²]/d to `target_energy` during burn-in and then holds ε;
            `"energy_variance"` is the published rule, for comparison: it does not find a step
            size (see `EnergyVariance` in `optimizers/step_size_tuner.py`); `None`, no tuning.
        target_energy: v*, of the rule `"absolute"`. `"auto"` (the default) is
            1e-4 (60,000/K)^1.2, no more than 0.01, for a `fit` of K steps, so that the bias falls
            with the length of the run as the Monte Carlo error does
            (`examples/studies/reference_posteriors`), and 1e-4 without a `kl.PosteriorSampler`.
            Where minibatch noise dominates, u turns by it over ε/(2√v*) steps.
        decoherence_length: L, over which u forgets, in units of ε: minibatches turn it over
            2(d−1)/(ε σ²), σ² the mean variance of P g, and what is left of 1/L is injected.
            `math.inf` injects nothing. By default the length of a draw from the prior.
        tuning_steps: Steps after which ε is held. `None`: when the burn-in of the
            `kl.PosteriorSampler` ends.
        variance_decay: Of the average of squared differences, in (0, 1].
        freeze_after: Number of gradients after which V is held, or `None`: holding it was worse
            in what we measured, also when ε was tuned on after it.
        temperature, prior, seed, **kwargs: See `kl.Sampler`, and Keras' own; `temperature` is
            above 0.

    A gradient that is not finite, or with `"absolute"` an energy error of 100 times √(d v*), takes
    the step back: θ returns to where it was, u is drawn anew, and each further one in a row is
    made 0.8 times as long. That is what `on_nonfinite="rollback"` means here; it is the default
    and keeps no copy. With `"raise"` and `"skip"` (see `kl.Sampler`) a gradient that is
    not finite leaves θ, u and ε as they were. The logs of `PosteriorSampler` have `step_size`,
    `energy_error` (the average of S²/d) and `rejected`, the share of steps taken back. There is no
    Metropolis test: the samples have a bias that falls with ε.

    State: 1 copy of the weights for u and 1 for the gradient before; 1 more when preconditioned.

    Example:

    >>> model.compile(optimizer="adam", loss=loss)  # a warm start
    >>> model.fit(x, y, epochs=20)
    >>> model.compile(optimizer=kl.SMILE(num_data=len(x)), loss=loss)
    >>> sampler = kl.PosteriorSampler(burn_in=10)
    >>> model.fit(x, y, epochs=50, callbacks=[sampler])

    References:
        E. Sommer, K. Diao, J. Robnik, U. Seljak, D. Rügamer, "Can Microcanonical Langevin
        Dynamics Leverage Mini-Batch Gradient Noise?", ICML 2026, arXiv:2602.06500. From its
        released code, not the text. There, steps take two gradients of one batch (minimal norm)
        and inject nothing, V is taken about a moving average, and S holds the potential of
        minibatches; all of these are other here.
        J. Robnik, U. Seljak, "Fluctuation without dissipation: Microcanonical Langevin Monte
        Carlo", arXiv:2303.18221. E. Sommer et al., "Microcanonical Langevin Ensembles", ICLR 2025,
        arXiv:2502.06335.
    """

    keeps_copy = False
    _has_no_burn_in = False
    _num_steps = None  # of the `fit` to come

    def __init__(
        self,
        learning_rate="auto",
        *,
        num_data,
        temperature=1.0,
        prior=DEFAULT_PRIOR,
        seed=None,
        preconditioned=True,
        tuner="absolute",
        target_energy="auto",
        decoherence_length=None,
        tuning_steps=None,
        variance_decay=0.999,
        freeze_after=None,
        **kwargs,
    ):
        kwargs.setdefault("name", "smile")
        kwargs.setdefault("on_nonfinite", "rollback")
        if kwargs.pop("preconditioner", None) is not None:
            raise ValueError(
                "Microcanonical dynamics has no `preconditioner`: it scales weights by their "
                "gradients' noise. Received: preconditioner. Leave it out, or pass "
                "preconditioned=False for no scaling."
            )
        super().__init__(
            first_step_size(learning_rate, tuner),
            num_data=num_data,
            temperature=temperature,
            prior=prior,
            seed=seed,
            **kwargs,
        )
        positive_number("temperature", self.temperature)
        self.preconditioned = boolean("preconditioned", preconditioned)
        self.tuner = one_of("tuner", tuner, ("absolute", "energy_variance", None))
        is_automatic = isinstance(target_energy, str) and target_energy == "auto"
        if not is_automatic:
            target_energy = positive_number("target_energy", target_energy)
        self.target_energy = target_energy
        is_finite = not (isinstance(decoherence_length, float) and decoherence_length == math.inf)
        if decoherence_length is not None and is_finite:
            decoherence_length = positive_number("decoherence_length", decoherence_length)
        self.decoherence_length = decoherence_length
        if tuning_steps is not None:
            tuning_steps = integer("tuning_steps", tuning_steps)
        self.tuning_steps = tuning_steps
        self.variance_decay = unit_interval("variance_decay", variance_decay)
        if freeze_after is not None:
            freeze_after = integer("freeze_after", freeze_after, at_least=1)
        self.freeze_after = freeze_after

    # ----------------------------------------------------------------------------- build

    def build_state(self):
        layout = self.layout
        self.dimension = layout.num_weights
        if self.dimension < 2:
            raise ValueError(
                "A direction that turns needs at least 2 weights. Received: a model with "
                f"{self.dimension}. Use `kl.SGLD`."
            )
        self.noise = SuccessiveDifferences(
            self.variance_decay, self.freeze_after, elementwise=self.preconditioned
        )
        self.scaling = EqualNoise()
        self.direction = [
            self.add_state(shape, f"{name}_direction")
            for shape, name in zip(layout.shapes, layout.names, strict=True)
        ]
        self.noise.build(layout.shapes, layout.names, self.add_state)
        if self.preconditioned:
            self.scaling.build(self.dimension, self.add_state)
        self.rule = self._make_rule()
        self.rule.build(self.dimension, self.add_state)
        self.step_size = self.add_state((), "step_size")
        self.open_step = self.add_state((), "open_step")  # ε of the drift to be closed, or 0
        self.open_energy = self.add_state((), "open_energy")
        if self.rule.needs_potential:
            self.potential = self.add_state((), "potential")
        self.mean_energy = self.add_state((), "mean_energy")
        self.num_closed = self.add_state((), "closed_steps")
        self.num_rejected = self.add_state((), "rejected_steps")
        self.rejected_in_a_row = self.add_state((), "rejected_in_a_row")
        # There is no burn-in where its end is told before TensorFlow builds, in the first step.
        self.burn_in_is_over = self.add_variable(
            (), "ones" if self._has_no_burn_in else "zeros", "float32", name="burn_in_is_over"
        )

    def _make_rule(self):
        if self.tuner == "absolute":
            return AbsoluteEnergy(self._target())
        return EnergyVariance() if self.tuner == "energy_variance" else NoTuner()

    def _target(self):
        """v*: a number, or a variable, since a later `fit` may be longer."""
        if self.target_energy != "auto":
            return self.target_energy
        start = keras.initializers.Constant(target_energy_for(self._num_steps))
        return self.add_variable((), start, "float32", name="target_energy")

    @property
    def statistics(self):
        return "loss" if self.tuner == "energy_variance" else None

    @property
    def length(self):
        """L, the decoherence length: by default the length of a draw from the prior."""
        if self.decoherence_length is not None:
            return self.decoherence_length
        layout = self.layout
        sizes = [math.prod(shape) for shape in layout.shapes]
        precisions = [p * self.num_data for p in layout.prior_precisions]
        return math.sqrt(sum(n / p if p else n for n, p in zip(sizes, precisions, strict=True)))

    # ------------------------------------------------------------------------------ step

    def advance(self, values, gradients, statistics, metric, learning_rate):
        slopes, noisy, is_finite = self._slopes(values, gradients)
        direction = [ops.convert_to_tensor(u) for u in self.direction]
        scale, used = self._scale(), ops.convert_to_tensor(self.open_step)

        turned, energy = self._finish(direction, product(scale, slopes), used)
        if self.rule.needs_potential:
            potential = self._potential(values, statistics)
            energy = energy + potential - self.potential
        is_open = used > 0
        is_bad = ops.logical_and(is_open, self._is_unacceptable(energy))
        is_bad = ops.logical_or(is_bad, ops.logical_not(is_finite))
        is_nonfinite = ops.logical_and(is_open, ops.logical_not(ops.isfinite(energy)))
        is_nonfinite = ops.logical_or(is_nonfinite, ops.logical_not(is_finite))
        stands = ops.logical_and(is_open, ops.logical_not(is_bad))
        row, changes = self._counted(energy, is_bad, stands)
        step_size, more = self._tuned(energy, used, learning_rate, stands)
        step_size = step_size * self.rule.back_off**row
        changes += more
        back = self._moved(values, scale, direction, -used)

        scale, variance, more = self._rescaled(noisy, is_bad)
        changes += more
        normals = self.normals([v.shape for v in values])
        turned = _chosen(is_open, turned, normalised(normals))
        turned = self._refreshed(turned, normals, step_size, variance)
        turned, open_energy = self._start(turned, product(scale, slopes), step_size)
        if self.rule.needs_potential:
            before = ops.convert_to_tensor(self.potential)
            potential = ops.where(ops.isfinite(potential), potential, before)
            changes.append((self.potential, potential))
        values = _chosen(is_bad, back, self._moved(values, scale, turned, step_size))

        changes += zip(self.direction, turned, strict=True)
        changes.append((self.open_step, ops.where(is_bad, 0.0, step_size)))
        changes.append((self.open_energy, open_energy))
        return values, [*changes, *self._nonfinite.counted(is_nonfinite, self.iterations)]

    def _slopes(self, values, gradients):
        """∇log p of the tempered target, the part of it that has noise, and whether all of it is
        finite; zeros where it is not, if the step is to be taken back."""
        factor = -self.num_data / self.temperature
        slopes = [factor * s for s in self.add_prior(values, gradients)]
        noisy = [factor * g for g in gradients]
        is_finite = ops.isfinite(dot(slopes, slopes))
        if self.on_nonfinite != "rollback":
            return slopes, noisy, is_finite
        zeros = [0.0] * len(slopes)
        return _chosen(is_finite, slopes, zeros), _chosen(is_finite, noisy, zeros), is_finite

    def _finish(self, direction, force, step_size):
        """The second half kick, and the energy error S of the step that it closes."""
        turned, gained = kick(direction, force, 0.5 * step_size, self.dimension)
        return turned, self.open_energy + gained - self._work(force, direction, step_size)

    def _start(self, direction, force, step_size):
        """The first half kick, and its part of the energy error."""
        turned, gained = kick(direction, force, 0.5 * step_size, self.dimension)
        return turned, gained - self._work(force, turned, step_size)

    def _work(self, force, direction, step_size):
        """The part of the fall of the potential that one end of a drift stands for, by the
        trapezoid rule; 0 where the potential itself is known."""
        return 0.0 if self.rule.needs_potential else 0.5 * step_size * dot(force, direction)

    def _potential(self, values, statistics):
        """−log of the tempered target, the likelihood that of the minibatch times N/B."""
        (loss,) = statistics
        log_prior = sum(p.log_density(θ) for p, θ in zip(self._priors, values, strict=True))
        return (self.num_data * loss - log_prior) / self.temperature

    def _moved(self, values, scale, direction, distance):
        steps = product(scale, direction)
        return [θ + distance * s for θ, s in zip(values, steps, strict=True)]

    def _is_unacceptable(self, energy):
        is_far = self.rule.is_unacceptable(energy, self.num_closed)
        return ops.logical_or(ops.logical_not(ops.isfinite(energy)), is_far)

    def _counted(self, energy, is_bad, stands):
        """How many steps in a row were taken back, and the changes of the counters."""
        bad, good = ops.cast(is_bad, "float32"), ops.cast(stands, "float32")
        row = ops.where(stands, 0.0, self.rejected_in_a_row + bad)
        closed = self.num_closed + good
        rate = good * ops.maximum(1.0 / ops.maximum(closed, 1.0), 0.01)
        squared = ops.where(stands, ops.square(energy) / self.dimension, 0.0)
        return row, [
            (self.rejected_in_a_row, row),
            (self.num_rejected, self.num_rejected + bad),
            (self.num_closed, closed),
            (self.mean_energy, self.mean_energy + rate * (squared - self.mean_energy)),
        ]

    def _tuned(self, energy, used, learning_rate, stands):
        if self.rule.follows_learning_rate:
            step_size = learning_rate
        else:
            step_size = ops.convert_to_tensor(self.step_size)
            step_size = ops.where(step_size > 0, step_size, learning_rate)
        tuned, changes = self.rule.update(energy, used, step_size, self._is_tuning())
        counts = stands
        if self.rule.learns_from_rejected:
            counts = ops.logical_and(used > 0, ops.isfinite(energy))
        step_size = ops.where(counts, tuned, step_size)
        changes = [(v, ops.where(counts, new, ops.convert_to_tensor(v))) for v, new in changes]
        return step_size, [*changes, (self.step_size, step_size)]

    def _is_tuning(self):
        if self.tuning_steps is not None:
            return self.num_closed < self.tuning_steps
        return ops.convert_to_tensor(self.burn_in_is_over) == 0

    def _scale(self):
        if not self.preconditioned:
            return None
        return self.scaling.current([ops.convert_to_tensor(v) for v in self.noise.variances])

    def _rescaled(self, noisy, is_bad):
        """The scale for the next step, and the variance of the noise in its coordinates."""
        variances, count, changes = self.noise.update(noisy, is_bad)
        if not self.preconditioned:
            return None, variances[0], changes
        scale, more = self.scaling.update(variances, count)
        squares = (ops.sum(p * p * v) for p, v in zip(scale, variances, strict=True))
        return scale, sum(squares) / self.dimension, changes + more

    def _refreshed(self, direction, normals, step_size, variance):
        """What the noise of minibatches, which turns u over the length 2(d−1)/(εσ²), leaves to
        the noise that is injected."""
        by_minibatches = step_size * variance / (2.0 * (self.dimension - 1))
        rate = ops.maximum(1.0 / self.length - by_minibatches, 0.0)
        return refresh(direction, normals, step_size * rate, self.dimension)

    # ---------------------------------------------------------------------------- the rest

    def begin_burn_in(self, num_steps=None):
        self._num_steps = num_steps
        if self.built and self._tunes_in_burn_in and self.target_energy == "auto":
            self.rule.target.assign(target_energy_for(num_steps))

    def in_words(self, num_steps):
        if not self._tunes_in_burn_in or not self.built:
            return None
        step, target = (float(ops.convert_to_numpy(v)) for v in (self.step_size, self.rule.target))
        words = (
            f"a step moves all weights by {step:.3g}, for an energy error of {target:.1g} a weight"
        )
        if num_steps and self.length < math.inf:
            lengths = num_steps * step / self.length
            words += (
                f"; the {num_steps:,} steps after burn-in cover {lengths:,.0f} decoherence lengths"
            )
        return f"{words}."

    def end_burn_in(self):
        """Holds the step size from here on, unless `tuning_steps` says when."""
        if self._tunes_in_burn_in and not (self.built and ops.convert_to_numpy(self.num_closed)):
            warnings.warn(
                "The step size is tuned during burn-in, and there is none: it stays at "
                f"{float(ops.convert_to_numpy(self.learning_rate)):.3g}. Received: burn_in=0. "
                "Give the sampler a burn-in, or the optimizer `tuning_steps`.",
                stacklevel=4,
            )
        if self.built:
            self.burn_in_is_over.assign(1.0)
        self._has_no_burn_in = not self.built

    @property
    def _tunes_in_burn_in(self):
        return self.tuner == "absolute" and self.tuning_steps is None

    def sampler_logs(self):
        names = ("open_step", "mean_energy", "num_rejected", "num_closed")
        step, energy, rejected, closed = (
            float(ops.convert_to_numpy(getattr(self, name))) for name in names
        )
        return {
            **super().sampler_logs(),
            "step_size": step,
            "energy_error": energy,
            "rejected": rejected / max(rejected + closed, 1.0),
        }

    def get_config(self):
        names = (
            "preconditioned",
            "tuner",
            "target_energy",
            "decoherence_length",
            "tuning_steps",
            "variance_decay",
            "freeze_after",
        )
        return super().get_config() | {name: getattr(self, name) for name in names}

    def preconditioner_config(self):
        return {}


def _chosen(condition, first, second):
    return [ops.where(condition, a, b) for a, b in zip(first, second, strict=True)]
