"""Real numbers with the noise that the logarithm of the hyperbolic cosine stands for."""

import math

import keras
import numpy as np
from keras import ops

from keras_langevin.predictive.noise_of_the_loss import NoiseOfTheLoss
from keras_langevin.predictive.registry import register_family
from keras_langevin.special_functions import incomplete_beta, trigamma


@register_family((keras.losses.LogCosh, keras.losses.log_cosh), exact=True)
class LogCosh(NoiseOfTheLoss):
    """The noise has the density cosh(r)^(-1/D) / Z: for D = 1 the hyperbolic secant.

    With p = 1/D, X = 1 / (1 + exp(-2 r)) has the distribution Beta(p/2, p/2), which gives
    Z = B(p/2, 1/2), the variance ψ₁(p/2) / 2 and the distribution function.
    """

    output = "log_cosh_center"
    meaning = "centers of noise with the hyperbolic secant's density, as of the log-cosh loss"

    def log_noise(self, r, count):
        size = ops.abs(r)
        log_cosh = size + ops.softplus(-2 * size) - math.log(2)
        return -log_cosh / count - _log_normaliser(1 / count)

    def noise_variance(self, count):
        return 0.5 * float(trigamma(np.float64(0.5 / count)))

    def noise_information(self, count):
        p = 1 / count  # E[p² tanh²] = p E[sech²], and E[sech²] = Z(p + 2) / Z(p) = p / (p + 1)
        return p**2 / (p + 1)

    def noise_cdf(self, r, count):
        log_less = ops.log_sigmoid(-2 * ops.abs(r))
        half = ops.full_like(log_less, 0.5 / count)
        tail = incomplete_beta(half, half, log_less, ops.log_sigmoid(2 * ops.abs(r)))
        return ops.where(r < 0, tail, 1 - tail)

    def sample(self, parameters, generator):
        shape = 0.5 / self.numbers(parameters)
        yes, no = (_log_gamma_draws(generator, shape, parameters.shape) for _ in range(2))
        return (parameters + 0.5 * (yes - no)).astype(parameters.dtype)


def _log_normaliser(p):
    """log ∫ cosh(r)^-p dr."""
    return 0.5 * math.log(math.pi) + math.lgamma(p / 2) - math.lgamma((p + 1) / 2)


def _log_gamma_draws(generator, shape, size):
    """Logarithms of gamma variates, exact where these underflow."""
    power = np.log(generator.uniform(size=size)) / shape
    return np.log(generator.standard_gamma(shape + 1, size)) + power
