"""Whether a chain samples at the right step size and temperature, while `fit` runs it."""

import math

import keras
import numpy as np

from keras_langevin.arguments import integer
from keras_langevin.diagnostics.temperatures import Slope
from keras_langevin.keras_internals import batches_of_fit
from keras_langevin.learning_rate.curvature import CurvatureProbe
from keras_langevin.learning_rate.limits import CURVATURE_BATCHES, measure
from keras_langevin.learning_rate.warm_up import of_one_size
from keras_langevin.model_loss import check_states_a_loss
from keras_langevin.optimizers.snapshots import sampler_of
from keras_langevin.sampling.posterior_sampler import checked_sampler
from keras_langevin.weights import weight_values

FEWEST = 4  # samples, of which the older half is the centre


class SamplingMonitor(keras.callbacks.Callback):
    """Measures and logs what says whether a chain samples the posterior it should.

    At the ends of epochs, on some minibatches of the training data, it adds

    - `stability_limit`: the largest stable learning rate; compare it with `learning_rate`;
    - `recommended_learning_rate`, what `"auto"` would choose, and `minibatch_noise`, the noise of
      minibatches over that injected, measured where the sampler alone knows it for
      outer-product metrics only (`kl.diagnostics.step_size`). Not for `kl.NGD`, `kl.SNGD` and
      `kl.SMILE`, whose noise is that of the minibatches;
    - `configurational_temperature`: the average over epochs since there are 4 samples of
      ⟨θ − c, ∇U⟩/d on those minibatches, c being the mean of the older half of the samples. It is
      the temperature T when the chain samples exp(−U/T): above it the step is too large, below it
      the chain has not arrived. The standard deviation of one epoch's value is about
      T√(2/d) and √(NT/(4Bd)) for the minibatches, for metrics like the curvature. NaN before.

    Progress bar, `History`, `CSVLogger` and `TensorBoard` show them; put it after the sampler and
    before those.

    Args:
        sampler: The `kl.PosteriorSampler` of the same `fit`.
        every: Epochs from one measurement to the next, >= 1; the logs repeat the last one. One
            takes some hundred gradients of minibatches.

    Example:

    >>> sampler = kl.PosteriorSampler(burn_in=10)
    >>> callbacks = [sampler, kl.SamplingMonitor(sampler), keras.callbacks.CSVLogger("log.csv")]
    >>> model.fit(x, y, epochs=50, callbacks=callbacks)
    """

    def __init__(self, sampler, every=1):
        super().__init__()
        self.sampler = checked_sampler(sampler)
        self.every = integer("every", every, at_least=1)
        self._values = {}

    def on_train_begin(self, logs=None):
        optimizer = sampler_of(self.model)
        check_states_a_loss(self.model)
        self._probe = CurvatureProbe(self.model) if optimizer.momentum is not None else None
        self._slope = None
        self._values, self._epochs = {}, 0
        self._temperatures, self._older = [], _RunningMean()

    def on_epoch_end(self, epoch, logs=None):
        if self._epochs % self.every == 0:
            self._measure()
        self._epochs += 1
        logs.update(self._values)

    def _measure(self):
        batches = of_one_size(batches_of_fit(self.model, CURVATURE_BATCHES))
        if not batches:
            raise ValueError(
                "`SamplingMonitor` must find the training data in `fit`. Received: none, from a "
                "training loop of your own or a data set that cannot be read. Use "
                "`kl.diagnostics.step_size(model, x, y, batch_size)` instead."
            )
        if self._probe is not None:
            self._values |= self._limits(batches)
        self._values["configurational_temperature"] = self._temperature(batches)

    def _limits(self, batches):
        found = measure(self._probe, batches)
        rate = self._probe.optimizer.present_learning_rate
        return {
            "stability_limit": found.stability_limit,
            "recommended_learning_rate": found.recommended,
            "minibatch_noise": found.minibatch_noise(rate),
        }

    def _temperature(self, batches):
        store = self.sampler.samples
        for index in range(self._older.count, len(store) // 2):
            self._older.add(store[index])
        if len(store) >= FEWEST:
            self._temperatures.append(self._temperature_about(self._older.mean, batches))
        return float(np.mean(self._temperatures)) if self._temperatures else math.nan

    def _temperature_about(self, centre, batches):
        """⟨θ − c, ∇U⟩/d at the present weights."""
        self._slope = self._slope or Slope(self.model, sampler_of(self.model))
        weights = weight_values(self.model)
        slopes = self._slope(list(weights.values()), batches)
        pairs = [
            (np.sum((θ - centre[name]) * slope), θ.size)
            for (name, θ), slope in zip(weights.items(), slopes, strict=False)
        ]
        return sum(product for product, _ in pairs) / sum(size for _, size in pairs)


class _RunningMean:
    """Of the weights of samples, in float64."""

    def __init__(self):
        self.count, self.mean = 0, {}

    def add(self, sample):
        self.count += 1
        for name, array in sample.items():
            mean = self.mean.get(name, 0.0)
            self.mean[name] = mean + (array - mean) / self.count
