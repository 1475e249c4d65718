"""How large a learning rate may be: the curvature in units of the metric, and the noise of
minibatches."""

import dataclasses
import math
import warnings

import numpy as np

from keras_langevin.arguments import non_negative_number
from keras_langevin.learning_rate.curvature import CurvatureProbe, checked_finite, stability_limit
from keras_langevin.learning_rate.warm_up import METRIC_BATCHES, fill_metric, split
from keras_langevin.optimizers.snapshots import sampler_of
from keras_langevin.statistics.check_fit import check_fit
from keras_langevin.training_data import num_examples

CURVATURE_BATCHES = 4  # are looked at; their median counts
LANCZOS_STEPS, LANCZOS_TOLERANCE = 30, 0.02
SAFETY = 0.9  # share of the stability limit that is never exceeded
LARGEST_SHARE, SHORT_RUN = 0.5, 50.0  # of both limits, and (steps / 50)^(−1/3) of a long run
NOISE_WARNING = 1.0  # share of the noise limit above which there is a warning


@dataclasses.dataclass(frozen=True)
class StepSize:
    """What limits the learning rate η of a model at its present weights.

    Attributes:
        largest_eigenvalue: λ, the largest curvature in units of the metric: of C H, H the
            Gauss-Newton matrix of the mean loss plus the prior's precision over N, on
            minibatches of the size used for training (their median; on more data it is
            smaller). A step covers ηλ of the way to the mode along that direction.
        gradient_noise: v = tr(C V)/d, V the covariance of one example's gradient, d the number
            of weights: about 1 for the outer-product metrics, which are made from V.
        batch_size, num_data, temperature: B, N and T.
        momentum: β, 0 for dynamics without.
        median_eigenvalue: Half of the directions curve less.
    """

    largest_eigenvalue: float
    gradient_noise: float
    batch_size: int
    num_data: float
    temperature: float
    momentum: float = 0.0
    median_eigenvalue: float = 1.0

    @property
    def stability_limit(self) -> float:
        """2(1+β)/λ. A step with a smaller η is a contraction on such a minibatch; with a larger
        one, steps along the stiffest direction grow."""
        return (1.0 + self.momentum) * stability_limit(self.largest_eigenvalue)

    @property
    def noise_limit(self) -> float:
        """2BT(1−β)/(Nv). There minibatches add as much noise as is injected, on average over the
        weights in units of the metric: the variance is twice the posterior's, and more along
        stiff directions. Infinite at T = 0, where there is no law to widen."""
        if self.temperature == 0 or self.gradient_noise == 0:
            return math.inf
        scale = 2.0 * self.batch_size * self.temperature / self.num_data
        return scale * (1.0 - self.momentum) / self.gradient_noise

    @property
    def smaller_limit(self) -> float:
        """The smaller of 2/λ and the noise limit."""
        return min(stability_limit(self.largest_eigenvalue), self.noise_limit)

    @property
    def recommended(self) -> float:
        """`recommended_for` a run of unknown length: half of the smaller limit."""
        return self.recommended_for(None)

    def recommended_for(self, num_steps: int | None) -> float:
        """What `learning_rate="auto"` takes for a run of K steps: the share
        a = min(½, (50/K)^⅓) of 2/λ or of the noise limit, whichever is smaller.

        K steps leave a Monte Carlo error, whose square falls as 1/(aK), and a bias, whose square
        grows as a²: the sum is smallest where a falls as K^(-1/3), and then goes to zero. The
        50 was measured (`examples/studies/reference_posteriors`). At T = 0 there is no bias,
        and a = ½. A momentum adds up how the curvature varies from batch to batch, so that none
        of the factor 1+β is used.
        """
        share = LARGEST_SHARE
        if num_steps and self.temperature > 0:
            share = min(share, (SHORT_RUN / num_steps) ** (1 / 3))
        return share * self.smaller_limit

    def effective_samples(self, learning_rate: float, num_steps: int) -> float:
        """Of a direction with the median curvature s, in so many steps: ηsK/(2(1−β))."""
        slowness = 2.0 * max(1.0 - self.momentum, 1e-12)
        return min(learning_rate * self.median_eigenvalue / slowness, 1.0) * num_steps

    def minibatch_noise(self, learning_rate: float) -> float:
        """The noise of minibatches over what the temperature asks for, at this learning rate."""
        return non_negative_number("learning_rate", learning_rate) / self.noise_limit

    def learning_rate_at(self, minibatch_noise: float = 0.1) -> float:
        """The learning rate at which minibatches add this share of the noise asked for, no more
        than 0.9 · 2/λ."""
        stable = SAFETY * stability_limit(self.largest_eigenvalue)
        share = non_negative_number("minibatch_noise", minibatch_noise)
        return min(stable, share * self.noise_limit)

    @property
    def _limit_in_words(self):
        formula = "2(1+β)/λ" if self.momentum else "2/λ"
        return f"{formula} = {self.stability_limit:.3g}"

    def problems(self, learning_rate: float) -> list[str]:
        """What is wrong with this learning rate, in words; empty when nothing is."""
        words, learning_rate = [], non_negative_number("learning_rate", learning_rate)
        if learning_rate > self.stability_limit:
            words.append(
                f"is above the stability limit {self._limit_in_words}, λ = "
                f"{self.largest_eigenvalue:.4g} being the largest curvature in units of the "
                "metric: steps along that direction grow until the loss is NaN"
            )
        if learning_rate > NOISE_WARNING * self.noise_limit:
            words.append(
                f"lets minibatches of {self.batch_size} add {learning_rate / self.noise_limit:.1f} "
                f"times the noise that temperature {self.temperature:g} asks for (equal at "
                f"{self.noise_limit:.3g}): the samples spread wider than the posterior. Lower it "
                "or use larger batches"
            )
        return words


def step_size(model, x, y, batch_size=32, sample_weight=None) -> StepSize:
    """Measures what limits the learning rate of a compiled model with a sampling optimizer.

    An empty metric is filled first (`warm_up_metric`); the weights stay where they are. Then
    Lanczos' method finds the largest eigenvalue of C H on four minibatches, layers in inference
    mode. Warns when the optimizer's present learning rate is above a limit.

    Args:
        model: Built, and compiled with an optimizer of this package.
        x, y, sample_weight: Training data as for `fit`, arrays or nested arrays. Some
            thousand examples are enough.
        batch_size: As in `fit`.

    Raises:
        ValueError: If the optimizer is another, or there are no data that fit the model.
        FloatingPointError: If the curvature or the gradient is NaN or infinite.

    Example:

    >>> kl.diagnostics.step_size(model, x, y, batch_size=500).stability_limit
    """
    optimizer = sampler_of(model)
    if optimizer.momentum is None:
        raise ValueError(
            "The limits of a learning rate are those of Langevin dynamics, with a momentum or "
            f"without. Received: optimizer={type(optimizer).__name__}, which does not state its "
            "`momentum` (see `kl.SamplerProtocol`). `kl.diagnostics.curvature` measures the "
            "curvature for any sampler."
        )
    batches = split(x, y, sample_weight, batch_size, METRIC_BATCHES)
    check_fit(model, batches[0])
    fill_metric(model, batches)
    found = measure(CurvatureProbe(model), batches[:CURVATURE_BATCHES])
    checked_finite("gradient", found.gradient_noise)
    if optimizer.has_learning_rate:
        _warn_about(found, optimizer)
    return found


def measure(probe, batches):
    optimizer = probe.optimizer
    spectra = [
        probe.measure(*batch, num_steps=LANCZOS_STEPS, tolerance=LANCZOS_TOLERANCE)
        for batch in batches
    ]
    return StepSize(
        float(np.median([found.largest for found in spectra])),
        probe.gradient_noise(batches),
        num_examples(batches[0]),
        optimizer.num_data,
        optimizer.temperature,
        optimizer.momentum,
        float(np.median([found.median for found in spectra])),
    )


def _warn_about(found, optimizer):
    learning_rate = optimizer.present_learning_rate
    problems = found.problems(learning_rate)
    if problems:
        warnings.warn(
            f"The learning rate {learning_rate:.3g} {'; it also '.join(problems)}. Recommended: "
            f"{found.recommended:.3g}.",
            stacklevel=3,
        )
