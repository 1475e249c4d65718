"""Real numbers with the noise that the Huber loss stands for."""

import math

import keras
import numpy as np
from keras import ops

from keras_langevin.keras_internals import loss_argument
from keras_langevin.predictive.noise_of_the_loss import NoiseOfTheLoss
from keras_langevin.predictive.quantiles import normal_cdf
from keras_langevin.predictive.registry import register_family
from keras_langevin.special_functions.bounds import no_less_than


@register_family((keras.losses.Huber, keras.losses.huber), exact=True)
class Huber(NoiseOfTheLoss):
    """The noise has the density exp(-h(r) / D) / Z, Gaussian up to |r| = δ and with the tails of a
    Laplace distribution beyond.

    Args:
        delta: δ, as of `keras.losses.Huber`.

    References:
        P. J. Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics
        35, 1964.
    """

    output = "huber_center"
    meaning = "centers of noise that is Gaussian with Laplace tails, as of the Huber loss"

    def __init__(self, delta=1.0):
        self.delta = float(delta)

    @classmethod
    def from_loss(cls, loss):
        return cls(loss_argument(loss, "delta", 1.0))

    @property
    def options(self):
        return {} if self.delta == 1.0 else {"delta": self.delta}

    def log_noise(self, r, count):
        size = ops.abs(r)
        loss = ops.where(
            size <= self.delta, 0.5 * ops.square(r), self.delta * (size - 0.5 * self.delta)
        )
        return -loss / count - math.log(sum(self._masses(count)))

    def noise_variance(self, count):
        delta, (inner, outer) = self.delta, self._masses(count)
        edge = math.exp(-(delta**2) / (2 * count))
        square_inside = count * (inner - 2 * delta * edge)
        square_outside = 2 * edge * (delta * count + 2 * count**2 / delta + 2 * count**3 / delta**3)
        return (square_inside + square_outside) / (inner + outer)

    def noise_information(self, count):
        inner, outer = self._masses(count)
        return inner / (inner + outer) / count

    def noise_cdf(self, r, count):
        inner, outer = self._masses(count)
        size, stddev = ops.abs(r), math.sqrt(count)
        rest = no_less_than(0.0, size - self.delta)
        tail = 0.5 * outer * ops.exp(-rest * (self.delta / count))
        body = math.sqrt(2 * math.pi) * stddev * (normal_cdf(size / stddev) - 0.5)
        above = ops.where(size > self.delta, tail, 0.5 * (inner + outer) - body) / (inner + outer)
        return ops.where(r < 0, above, 1 - above)

    def sample(self, parameters, generator):
        count, shape = self.numbers(parameters), parameters.shape
        inner, outer = self._masses(count)
        beyond = self.delta + generator.exponential(count / self.delta, shape)
        noise = np.where(
            generator.uniform(size=shape) < inner / (inner + outer),
            self._inside(generator, math.sqrt(count), shape),
            generator.choice([-1.0, 1.0], shape) * beyond,
        )
        return (parameters + noise).astype(parameters.dtype)

    def _inside(self, generator, stddev, shape):
        """Gaussian draws with |r| <= δ, by rejection of uniform ones, or of Gaussian ones where δ
        is wide."""
        found, missing = np.empty(shape), np.ones(shape, bool)
        while missing.any():
            size = missing.sum()
            if self.delta < 1.5 * stddev:
                drawn = generator.uniform(-self.delta, self.delta, size)
                good = generator.uniform(size=size) < np.exp(-0.5 * (drawn / stddev) ** 2)
            else:
                drawn = generator.normal(0, stddev, size)
                good = np.abs(drawn) <= self.delta
            found[missing] = drawn
            missing[missing] = ~good
        return found

    def _masses(self, count):
        """∫ exp(-h(r) / D) dr inside and outside of |r| = δ."""
        ratio = self.delta / math.sqrt(2 * count)
        inner = math.sqrt(2 * math.pi * count) * math.erf(ratio)
        return inner, 2 * count / self.delta * math.exp(-(ratio**2))
