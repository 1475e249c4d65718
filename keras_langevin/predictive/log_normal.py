"""Numbers from 0 on with the noise that the mean squared logarithmic error stands for."""

import math

import keras
import numpy as np
from keras import ops

from keras_langevin.predictive.noise_of_the_loss import NoiseOfTheLoss
from keras_langevin.predictive.quantiles import gaussian_mixture_quantiles, normal_cdf
from keras_langevin.predictive.registry import register_family
from keras_langevin.special_functions.bounds import no_less_than


@register_family(
    (keras.losses.MeanSquaredLogarithmicError, keras.losses.mean_squared_logarithmic_error),
    exact=True,
)
class LogNormal(NoiseOfTheLoss):
    """log(1 + y) = log(1 + output) + Gaussian noise of the variance D / 2.

    The outputs are medians of y, and so is what is called its mean here: the prediction of the
    model. Outputs are no less than `keras.config.epsilon()`, as in the loss; that takes labels
    below 0 for as much, while a density has to go on to -1.
    """

    output = "log_normal_median"
    meaning = "medians with Gaussian noise of log(1 + y), as of the mean squared logarithmic error"

    def variance(self, parameters):
        growth = math.exp(min(self.numbers(parameters) / 2, 40.0))
        return ops.square(1 + self._clipped(parameters)) * (growth * (growth - 1))

    def log_likelihood(self, outputs, y):
        log_y = ops.log(1 + no_less_than(keras.config.epsilon() - 1, y))
        return _log_density(log_y, self._center(outputs), self.numbers(outputs) / 2)

    def cdf(self, parameters, y):
        log_y = ops.log(1 + no_less_than(keras.config.epsilon() - 1, y))
        stddev = math.sqrt(self.numbers(parameters) / 2)
        return normal_cdf((log_y - self._center(parameters)) / stddev)

    def quantiles(self, outputs, levels):
        center = self._center(outputs)
        stddev = ops.full_like(center, math.sqrt(self.numbers(outputs) / 2))
        return ops.exp(gaussian_mixture_quantiles(center, stddev, levels)) - 1

    def sample(self, parameters, generator):
        stddev = math.sqrt(self.numbers(parameters) / 2)
        center = np.log1p(np.maximum(parameters, keras.config.epsilon()))
        return np.expm1(generator.normal(center, stddev)).astype(parameters.dtype)

    def fisher_scores(self, outputs, draws):
        variance = self.numbers(ops.expand_dims(outputs, 0)) / 2
        slope = ops.where(outputs > keras.config.epsilon(), 1 / (1 + self._clipped(outputs)), 0.0)
        return draws * slope / math.sqrt(variance)

    def guess(self, y):
        """In closed form: the mean of log(1 + y)."""
        count = self.count or math.prod(y.shape[1:])
        log_y = ops.log(1 + ops.reshape(y, (-1, y.shape[-1])))
        center = ops.mean(log_y, axis=0)
        return -ops.sum(ops.mean(_log_density(log_y, center, count / 2), axis=0))

    def distribution(self, parameters, tfp):
        center = np.log1p(np.maximum(parameters, keras.config.epsilon()))
        stddev = math.sqrt(self.numbers(parameters) / 2)
        return super().distribution({"center": center, "stddev": 0 * center + stddev}, tfp)

    def component(self, parameters, tfp):
        log_normal = tfp.distributions.LogNormal(parameters["center"], parameters["stddev"])
        shift = tfp.bijectors.Shift(np.float32(-1))
        shifted = tfp.distributions.TransformedDistribution(log_normal, shift)
        return tfp.distributions.Independent(shifted, 1)

    def _center(self, outputs):
        return ops.log(1 + self._clipped(outputs))

    def _clipped(self, outputs):
        return no_less_than(keras.config.epsilon(), outputs)


def _log_density(log_y, center, variance):
    """Of y, whose log(1 + y) is Gaussian."""
    square = ops.square(log_y - center) / variance
    return -0.5 * (square + math.log(2 * math.pi * variance)) - log_y
