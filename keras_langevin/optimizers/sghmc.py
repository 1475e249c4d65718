"""Stochastic gradient Hamiltonian Monte Carlo: Langevin dynamics with a momentum."""

import math

import keras
import numpy as np
from keras import ops

from keras_langevin.arguments import (
    non_negative_number,
    number,
    one_of,
    positive_number,
    shorten,
)
from keras_langevin.optimizers.drift_clip import DriftClip, checked_drift_clip
from keras_langevin.optimizers.gradient_noise import SuccessiveDifferences
from keras_langevin.optimizers.sampler import DEFAULT_PRIOR, Sampler

SCHEMES = ("baoab", "euler")
DECAY = 0.999  # of the running estimate of the minibatch noise


@keras.saving.register_keras_serializable(package="keras_langevin")
class SGHMC(Sampler):
    """Stochastic gradient Hamiltonian Monte Carlo (underdamped Langevin dynamics): samples
    p(θ) ∝ exp(−U(θ)/T) with a momentum r that is N(0, T I) in equilibrium.

        "baoab"   h = √(2ℓ/(N(1+β)))          "euler"   h = √(ℓ/N)
                  r ← r − h N Lᵀ∇G                      r ← β r − h N Lᵀ∇G + √(2T(1−β)) ξ
                  θ ← θ + ½ h L r                       θ ← θ + h L r
                  r ← β r + √(T(1−β²)) ξ
                  θ ← θ + ½ h L r

    with the metric C = L Lᵀ of the `preconditioner`. At T = 0 both are SGD with momentum, in
    Keras' form v ← βv − ℓ C ∇G, θ ← θ + v. r has no units, so that nothing has to be rescaled
    when the metric or the learning rate changes.

    Flat directions move as in SGLD with learning rate ℓ/(1−β), and minibatches add as much noise
    as there, but steep ones see steps of ℓ alone: for posteriors whose curvatures differ widely.
    On a Gaussian target with a fixed C, and x = ℓs/(2(1+β)) for an eigenvalue s of C H, the
    variance of θ is the posterior's times

        "baoab"   1                           "euler"   1/(1−x)

    Both are unstable from x = 1. Minibatches whose gradients vary with variance V in an entry of
    Lᵀ∇G add to the noise the share ρ = ℓNV/(2T(1−β)), about ℓN/(2BT(1−β)) with an outer-product
    metric: the factors become 1 + ρ/(1−x) and (1+ρ)/(1−x). Where ρ < 1 is known, or estimated, that
    much less can be injected (`noise_estimate`): 1 + ρx/(1−x) and 1/(1−x).

    Args:
        learning_rate: ℓ, a float, a Keras schedule or `"auto"` (the default, see
            `kl.Sampler`), which takes the momentum into account. Multiplies the gradient
            of the mean loss, as that of `keras.optimizers.SGD` does.
        num_data: N, the number of training examples; required.
        momentum: β in [0, 1), 0.9 unless there is a friction. β = 0 is `kl.SGLD` with "euler", the
            scheme of Leimkuhler and Matthews with "baoab".
        friction: γ > 0 in the place of β, per unit of the time √(ℓ/N): β = exp(−γ√(ℓ/N)), or
            max(1 − γ√(ℓ/N), 0) with "euler", which follow a schedule of ℓ. Not with `"auto"`.
        scheme: `"baoab"` or `"euler"`, Chen et al.'s and Wenzel et al.'s.
        preconditioner: One of `kl.preconditioners`, Euclidean by default. What a metric owes for
            following the weights, T div L in the force on r, is neglected, as in the other samplers
            here; `RMSProp(divergence=True)`, whose term is that of dynamics without momentum, is
            refused.
        noise_estimate: The variance V ≥ 0 that the injected noise is reduced by: per step 2T(1−β) −
            ℓNV (Chen et al.'s 2(α − β̂)ε), times (1+β)/2 with "baoab", no less than 0. A float for
            all entries of Lᵀ∇G, or `"successive_differences"`: half the mean square of what an
            entry changes by from step to step, over about 1000 steps. That takes some motion for
            noise: V by ℓs too large, and (ℓs/2)²/(1−β) of the whole noise. So it is for ℓs well
            below 1, and it keeps two more copies of the weights.
        drift_clip: Shortens a kick that is longer than so many times the running average; see
            `kl.LangevinOptimizer`.
        temperature, prior, seed, **kwargs: See `kl.Sampler`, and Keras' own.

    The momentum is one copy of the weights, and starts at zero. `kl.PosteriorSampler` logs
    `kinetic_temperature`, which is T in equilibrium, with the bounds `kinetic_temperature_low` and
    `kinetic_temperature_high` that hold 99 % of its values then: above them the step size or the
    noise of minibatches is too large, below them the chain is still at rest.

    Example:

    >>> metric = kl.preconditioners.QuasiDiagonalOuterProduct()
    >>> optimizer = kl.SGHMC(num_data=len(x), preconditioner=metric)
    >>> model.compile(optimizer=optimizer, loss=loss)
    >>> sampler = kl.PosteriorSampler(burn_in=5)
    >>> model.fit(x, y, epochs=20, callbacks=[sampler])

    References:
        T. Chen, E. Fox, C. Guestrin, "Stochastic Gradient Hamiltonian Monte Carlo", ICML 2014,
        in their form with η = ℓ/N and α = 1 − β. F. Wenzel et al., "How Good is the Bayes
        Posterior in Deep Neural Networks Really?", ICML 2020, for the parameters ℓ and β, the
        kinetic temperature and its bounds. B. Leimkuhler, C. Matthews, "Rational Construction of
        Stochastic Numerical Methods for Molecular Sampling", AMRX 2013, for BAOAB. Whitened
        momentum, the laws with minibatches and the reduction for "baoab" are derived here.
    """

    def __init__(
        self,
        learning_rate="auto",
        *,
        num_data,
        temperature=1.0,
        prior=DEFAULT_PRIOR,
        seed=None,
        momentum=None,
        friction=None,
        scheme="baoab",
        preconditioner=None,
        noise_estimate=None,
        drift_clip=None,
        **kwargs,
    ):
        kwargs.setdefault("name", "sghmc")
        super().__init__(
            learning_rate,
            num_data=num_data,
            temperature=temperature,
            prior=prior,
            seed=seed,
            preconditioner=preconditioner,
            **kwargs,
        )
        _refuse_divergence(self.preconditioner)
        self.preconditioner.require("whiten", "sample")
        self.drift_clip = checked_drift_clip(drift_clip, self.has_automatic_learning_rate)
        self._clip = None if self.drift_clip is None else DriftClip(self.drift_clip)
        self.scheme = one_of("scheme", scheme, SCHEMES)
        self._momentum, self.friction = _checked_momentum(momentum, friction, learning_rate)
        self.noise_estimate = _checked_noise_estimate(noise_estimate)

    # ----------------------------------------------------------------------------- build

    def build_state(self):
        shapes, names = self.layout.shapes, self.layout.names
        self.momenta = [
            self.add_state(shape, f"{name}_momentum")
            for shape, name in zip(shapes, names, strict=True)
        ]
        if self._clip is not None:
            self._clip.build(self.add_state)
        if self.noise_estimate == "successive_differences":
            self._differences = SuccessiveDifferences(DECAY, elementwise=True)
            self._differences.build(shapes, names, self.add_state)

    # ------------------------------------------------------------------------------ step

    def advance(self, values, gradients, statistics, metric, learning_rate):
        resting = self.preconditioner.is_at_rest()
        slopes = self.preconditioner.whiten(metric, self.add_prior(values, gradients))
        variances, changes = self._gradient_noise(slopes, resting)
        if self._clip is not None:
            length = sum(ops.sum(g * g) for g in slopes)
            shortened, clip_changes = self._clip.update(length, resting)
            slopes = [shortened * g for g in slopes]
            changes += clip_changes
        β, h = self.momentum_at(learning_rate), self.time_step(learning_rate)
        noise = self._noise(variances, learning_rate, β, [v.shape for v in values])
        move = self._baoab if self.scheme == "baoab" else self._euler
        momenta = [ops.convert_to_tensor(r) for r in self.momenta]
        moved = [
            move(r, h * self.num_data * g, β, n)
            for r, g, n in zip(momenta, slopes, noise, strict=True)
        ]
        velocities = self.preconditioner.sample(metric, [velocity for velocity, _ in moved])
        values = [θ + h * v for θ, v in zip(values, velocities, strict=True)]
        changes += [
            (variable, ops.where(resting, before, after))
            for variable, before, (_, after) in zip(self.momenta, momenta, moved, strict=True)
        ]
        return values, changes

    def restart(self):
        scale = ops.sqrt(ops.cast(self.step_temperature(), "float32"))
        normals = self.normals(self.layout.shapes)
        changes = [(r, scale * ξ) for r, ξ in zip(self.momenta, normals, strict=True)]
        if self.noise_estimate == "successive_differences":
            changes.append((self._differences.count, ops.zeros(())))
        return changes

    def _euler(self, r, kick, β, noise):
        """The velocity of the step in units of the metric, and the momentum after it."""
        r = β * r - kick + noise
        return r, r

    def _baoab(self, r, kick, β, noise):
        kicked = r - kick
        r = β * kicked + noise
        return 0.5 * (kicked + r), r

    def _gradient_noise(self, slopes, resting):
        """The variances V of whitened gradients, one a parameter, and the changes of state."""
        if self.noise_estimate == "successive_differences":
            variances, _, changes = self._differences.update(slopes, resting)
            return variances, changes
        return [self.noise_estimate or 0.0] * len(slopes), []

    def _noise(self, variances, learning_rate, β, shapes):
        if self.temperature == 0:
            return [0.0] * len(shapes)
        scales = [ops.sqrt(self.noise_variance(learning_rate, β, V)) for V in variances]
        return [scale * ξ for scale, ξ in zip(scales, self.normals(shapes), strict=True)]

    def momentum_at(self, learning_rate):
        """β at this learning rate."""
        if self.friction is None:
            return self._momentum
        time = self.friction * ops.sqrt(learning_rate / self.num_data)
        return ops.exp(-time) if self.scheme == "baoab" else ops.maximum(1.0 - time, 0.0)

    def time_step(self, learning_rate):
        """h, in which ℓ is the learning rate of the velocity of either scheme."""
        squared = learning_rate / self.num_data
        if self.scheme == "baoab":
            squared = 2.0 * squared / (1.0 + self.momentum_at(learning_rate))
        return ops.sqrt(squared)

    def noise_variance(self, learning_rate, β, gradient_noise=0.0):
        """Of what is injected into an entry of r, whose gradient already varies by V.

        A kick of variance h²N²V sends θ as far, in the end, as injected noise of (1+β)²/4 that
        variance does with "baoab", and of just that with "euler": ℓNV in both cases, next to
        2T(1−β), which "baoab" both multiplies by (1+β)/2.
        """
        variance = 2.0 * self.step_temperature() * (1.0 - β)
        variance = ops.maximum(variance - learning_rate * self.num_data * gradient_noise, 0.0)
        return 0.5 * (1.0 + β) * variance if self.scheme == "baoab" else variance

    def noise_scale(self, learning_rate):
        """√(2ℓT(1−β)/N), the standard deviation of the noise of one step in the metric's own
        units, before a `noise_estimate` takes from it."""
        β = self.momentum_at(learning_rate)
        return self.time_step(learning_rate) * ops.sqrt(self.noise_variance(learning_rate, β))

    # ---------------------------------------------------------------------------- the rest

    @property
    def momentum(self):
        """β at the present learning rate."""
        return float(ops.convert_to_numpy(self.momentum_at(self.learning_rate)))

    def kinetic_energies(self):
        """The mean of r² for each weight array; with "euler" times (1+β)/2, since its momenta are
        that much hotter than T however short the step."""
        if not self.built:
            return None
        scale = 0.5 * (1.0 + self.momentum) if self.scheme == "euler" else 1.0
        momenta = (np.asarray(ops.convert_to_numpy(r), "float64") for r in self.momenta)
        return [scale * float(np.mean(np.square(r))) for r in momenta]

    def sampler_logs(self):
        logs = super().sampler_logs()
        return logs if self._clip is None else {**logs, **self._clip.logs(self.iterations)}

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self._momentum,
            "friction": self.friction,
            "scheme": self.scheme,
            "noise_estimate": self.noise_estimate,
            "drift_clip": math.inf if self.drift_clip is None else self.drift_clip,
        }


def _refuse_divergence(preconditioner):
    if preconditioner.correction:
        raise ValueError(
            "The divergence term of a metric is that of dynamics without momentum. Received: "
            "preconditioner with divergence=True. Use "
            "`kl.preconditioners.RMSProp(divergence=False)`."
        )


def _checked_momentum(momentum, friction, learning_rate):
    """β and γ, one of them None."""
    if friction is None:
        momentum = 0.9 if momentum is None else number("momentum", momentum)
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum!r}")
        return momentum, None
    if momentum is not None:
        raise ValueError(
            "Give `momentum` or `friction`, not both: either says how fast momentum is lost. "
            f"Received: momentum={shorten(momentum)}, friction={shorten(friction)}"
        )
    friction = positive_number("friction", friction)
    if learning_rate == "auto":
        raise ValueError(
            "A learning rate is found for a given momentum, and a `friction` makes the momentum "
            f'depend on the learning rate. Received: learning_rate="auto", friction={friction!r}. '
            "Pass `momentum` instead."
        )
    return None, friction


def _checked_noise_estimate(noise_estimate):
    if noise_estimate is None:
        return None
    if isinstance(noise_estimate, str):
        if noise_estimate == "successive_differences":
            return noise_estimate
        raise ValueError(
            '`noise_estimate` must be None, a number >= 0 or "successive_differences". Received: '
            f"noise_estimate={noise_estimate!r}"
        )
    return non_negative_number("noise_estimate", noise_estimate)
