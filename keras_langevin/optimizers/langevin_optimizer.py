"""Overdamped Langevin dynamics with any metric."""

import math

import keras
from keras import ops

from keras_langevin.arithmetic import with_product
from keras_langevin.optimizers.drift_clip import DriftClip, checked_drift_clip
from keras_langevin.optimizers.minibatch_correction import checked_correction, reduced
from keras_langevin.optimizers.sampler import DEFAULT_PRIOR, Sampler


@keras.saving.register_keras_serializable(package="keras_langevin")
class LangevinOptimizer(Sampler):
    """Preconditioned Langevin dynamics; the named samplers choose the metric.

    With G(θ) = mean loss − log p(θ) / N on a minibatch, metric M, C = M⁻¹ = L Lᵀ:

        θ ← θ − η C ∇G + √(2ηT/N) L ξ,    ξ ~ N(0, I)

    samples p(θ) ∝ exp(−U(θ)/T), U = N · mean loss − log prior, for small η. With a fixed C the
    covariance on a Gaussian target is (T/N)(H − (η/2) H C H)⁻¹, H the Hessian of G: too wide by
    the factor 1/(1 − ηs/2) along an eigenvector of C H with eigenvalue s, and unstable at
    ηs ≥ 2. Minibatches of size B add about ηN/(2BT) to that.

    Args:
        learning_rate, num_data, temperature, prior, seed: See `kl.Sampler`.
        preconditioner: The metric; Euclidean by default.
        minibatch_correction: B, the batch size, if given, reduces the injected noise by what
            minibatches of that size already add where C ≈ H⁻¹: variance (2ηT/N)(1 − η/2) − η²/B
            instead of 2ηT/N. Only for outer-product metrics.
        drift_clip: Shortens a drift −ηC∇G whose squared length exceeds so many times its running
            average, at least 1; `math.inf` for never. `None`, the default, is 10 with
            `learning_rate="auto"`, whose first rate is found far from the posterior, and never
            otherwise. The noise stays. The logs of `kl.PosteriorSampler` have `drift_clipped`,
            the share of steps that were shortened: well above 0.01 the samples are off the target.
        **kwargs: See `kl.Sampler`: `on_nonfinite`, `exact_noise`, and Keras' own.
    """

    momentum = 0.0

    def __init__(
        self,
        learning_rate="auto",
        *,
        num_data,
        temperature=1.0,
        prior=DEFAULT_PRIOR,
        seed=None,
        preconditioner=None,
        minibatch_correction=None,
        drift_clip=None,
        **kwargs,
    ):
        super().__init__(
            learning_rate,
            num_data=num_data,
            temperature=temperature,
            prior=prior,
            seed=seed,
            preconditioner=preconditioner,
            **kwargs,
        )
        self.minibatch_correction = checked_correction(
            minibatch_correction, learning_rate, self.num_data, self.temperature
        )
        self.drift_clip = checked_drift_clip(drift_clip, self.has_automatic_learning_rate)
        self._clip = None if self.drift_clip is None else DriftClip(self.drift_clip)

    def build_state(self):
        if self._clip is not None:
            self._clip.build(self.add_state)

    def advance(self, values, gradients, statistics, metric, learning_rate):
        slopes = self.add_prior(values, gradients)
        rate, noise_scale, normals, changes = learning_rate, 0.0, None, []
        if self._clip is not None:
            length = self.preconditioner.squared_length(metric, slopes)
            shortened, changes = self._clip.update(length, self.preconditioner.is_at_rest())
            rate = learning_rate * shortened
        if self.temperature > 0:
            noise_scale, normals = self.noise_scale(learning_rate), self.normals(self.layout.shapes)
        # −η C ∇G + √(2ηT/N) L ξ
        moves = self.preconditioner.displacement(metric, slopes, rate, normals, noise_scale)
        values = _added(values, moves)
        divergence = self.preconditioner.divergence(metric, gradients, statistics)
        if self.temperature > 0 and divergence is not None:
            rate = learning_rate * self.step_temperature() / self.num_data
            values = _added(values, [rate * d for d in divergence])
        return values, changes

    def noise_scale(self, learning_rate):
        """√(2ηT/N), the standard deviation of the noise in the metric's own units, less what a
        `minibatch_correction` takes from it."""
        variance = 2.0 * learning_rate * self.step_temperature() / self.num_data
        return ops.sqrt(reduced(variance, learning_rate, self.minibatch_correction))

    def sampler_logs(self):
        logs = super().sampler_logs()
        return logs if self._clip is None else {**logs, **self._clip.logs(self.iterations)}

    def get_config(self):
        return {
            **super().get_config(),
            "minibatch_correction": self.minibatch_correction,
            "drift_clip": math.inf if self.drift_clip is None else self.drift_clip,
        }


def _added(values, moves):
    """The sums; the moves are used up."""
    return [with_product(move, 1, θ) for θ, move in zip(values, moves, strict=True)]
