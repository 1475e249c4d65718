"""Real numbers with Gaussian noise, known or predicted."""

import math

import keras
import numpy as np
from keras import ops

from keras_langevin.losses import (
    GaussianNLL,
    gaussian_log_densities,
    split_mean_and_log_scale,
)
from keras_langevin.predictive.family import Family
from keras_langevin.predictive.quality_of_numbers import report_of_gaussians
from keras_langevin.predictive.quantiles import gaussian_mixture_quantiles, normal_cdf
from keras_langevin.predictive.registry import register_family
from keras_langevin.special_functions.bounds import no_less_than


class _GaussianFamily(Family):
    """N(mean, stddev²) with independent noise of each number."""

    def moments(self, parameters):
        """Means and standard deviations, tensors `(..., units)`."""
        raise NotImplementedError

    def member_moments(self, parameters):
        """The same of what `predict_members` gives, NumPy."""
        raise NotImplementedError

    def mean(self, parameters):
        return self.moments(parameters)[0]

    def variance(self, parameters):
        return ops.square(self.moments(parameters)[1])

    def log_likelihood(self, outputs, y):
        mean, stddev = self.moments(self.parameters(outputs))
        return gaussian_log_densities(y, mean, ops.log(stddev))

    def quantiles(self, outputs, levels):
        return gaussian_mixture_quantiles(*self.moments(self.parameters(outputs)), levels)

    def cdf(self, parameters, y):
        mean, stddev = self.moments(parameters)
        return normal_cdf((y - mean) / stddev)

    def sample(self, parameters, generator):
        mean, stddev = self.member_moments(parameters)
        return generator.normal(mean, stddev)

    def distribution(self, parameters, tfp):
        mean, stddev = self.member_moments(parameters)
        return super().distribution({"mean": mean, "stddev": stddev}, tfp)

    def component(self, parameters, tfp):
        normal = tfp.distributions.Normal(parameters["mean"], parameters["stddev"])
        return tfp.distributions.Independent(normal, 1)

    def report(self, parameters, y, outside=None, weights=None):
        return report_of_gaussians(*self.member_moments(parameters), y, weights)


@register_family(GaussianNLL)
@register_family((keras.losses.MeanSquaredError, keras.losses.mean_squared_error), exact=True)
class Gaussian(_GaussianFamily):
    """The outputs are means; the noise is known and the same everywhere.

    Args:
        noise_stddev: In the units of y, > 0, or `"mse"`: what the mean squared error stands for.
            N times the mean over an example's d numbers of (y - f)² is the negative log
            likelihood of the variance d / 2.
    """

    output = "mean"
    meaning = "means of Gaussians, with `noise_stddev=`"

    def __init__(self, noise_stddev):
        self.noise_stddev = noise_stddev

    @classmethod
    def from_loss(cls, loss):
        if isinstance(loss, GaussianNLL):
            return HeteroscedasticGaussian() if loss.stddev is None else cls(loss.stddev)
        return cls("mse")

    @property
    def loss_sets_scale(self):
        return self.noise_stddev == "mse"

    def parameters(self, outputs):
        return outputs

    def mean(self, parameters):
        return parameters

    def moments(self, parameters):
        return parameters, ops.full_like(parameters, self._stddev(parameters))

    def member_moments(self, parameters):
        return parameters, np.full_like(parameters, self._stddev(parameters))

    def fisher_scores(self, outputs, draws):
        return draws / self._stddev(ops.expand_dims(outputs, 0))

    def num_labels(self, outputs):
        return 1 if self.noise_stddev == "mse" else super().num_labels(outputs)

    def _stddev(self, outputs):
        if self.noise_stddev != "mse":
            return self.noise_stddev
        sizes = outputs.shape[2:]
        if any(size is None for size in sizes):
            raise ValueError(
                "The noise that a mean squared error stands for depends on the number of outputs "
                f"of one example, which must be known. Received: outputs of shape {sizes} per "
                "example. Train with `GaussianNLL(stddev=...)` instead."
            )
        return math.sqrt(math.prod(sizes) / (2 * self.loss_weight))


@register_family()
class HeteroscedasticGaussian(_GaussianFamily):
    """The last axis of the outputs are the means and then as many logarithms of stddevs."""

    output = "mean_and_log_scale"
    meaning = "the last axis are means and then logarithms of stddevs"

    def parameters(self, outputs):
        mean, log_stddev = split_mean_and_log_scale(outputs)
        # A stddev that underflows to 0 would divide by it.
        stddev = no_less_than(float(np.finfo("float32").tiny), ops.exp(log_stddev))
        return {"mean": mean, "stddev": stddev}

    def means(self, outputs):
        return split_mean_and_log_scale(outputs)[0]

    def moments(self, parameters):
        return parameters["mean"], parameters["stddev"]

    member_moments = moments

    def fisher_scores(self, outputs, draws):
        of_mean, of_scale = split_mean_and_log_scale(draws)
        stddev = self.parameters(outputs)["stddev"]
        return ops.concatenate([of_mean / stddev, 2**0.5 * of_scale], axis=-1)
