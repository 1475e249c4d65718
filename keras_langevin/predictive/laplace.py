"""Real numbers with the noise that the mean absolute error stands for."""

import math

import keras
from keras import ops

from keras_langevin.predictive.noise_of_the_loss import NoiseOfTheLoss
from keras_langevin.predictive.registry import register_family


@register_family((keras.losses.MeanAbsoluteError, keras.losses.mean_absolute_error), exact=True)
class Laplace(NoiseOfTheLoss):
    """The outputs are medians: the noise has the density exp(-|r| / D) / 2D."""

    output = "median"
    meaning = "medians with Laplace noise of scale d, as of the mean absolute error of d numbers"

    def log_noise(self, r, count):
        return -ops.abs(r) / count - math.log(2 * count)

    def noise_variance(self, count):
        return 2.0 * count**2

    def noise_information(self, count):
        return 1 / count**2

    def noise_cdf(self, r, count):
        tail = 0.5 * ops.exp(-ops.abs(r) / count)
        return ops.where(r < 0, tail, 1 - tail)

    def sample(self, parameters, generator):
        return generator.laplace(parameters, self.numbers(parameters)).astype(parameters.dtype)

    def distribution(self, parameters, tfp):
        return super().distribution(
            {"median": parameters, "scale": 0 * parameters + self.numbers(parameters)}, tfp
        )

    def component(self, parameters, tfp):
        laplace = tfp.distributions.Laplace(parameters["median"], parameters["scale"])
        return tfp.distributions.Independent(laplace, 1)
