"""Real numbers whose noise is what a loss of Keras stands for, scale included."""

import copy
import math

from keras import ops

from keras_langevin.predictive.family import Family
from keras_langevin.predictive.guess import best_constant
from keras_langevin.predictive.quality_of_samples import report_of_samples
from keras_langevin.predictive.quantiles import mixture_quantiles


class NoiseOfTheLoss(Family):
    """y = output + noise, where a loss is the mean over an example's D numbers of ρ(y - output).

    N times that loss is the negative log likelihood of noise with the density exp(-ρ(r) / D) / Z.
    A subclass states that density.
    """

    loss_sets_scale = True
    count = None  # D, where it is not to be read from the outputs' shape

    def log_noise(self, r, count):
        """Log density of the noise at r, normalised, for D = `count`, a number."""
        raise NotImplementedError

    def noise_variance(self, count):
        """A number."""
        raise NotImplementedError

    def noise_information(self, count):
        """E[(∂ log density / ∂r)²], a number."""
        raise NotImplementedError

    def noise_cdf(self, r, count):
        """P(noise <= r)."""
        raise NotImplementedError

    # ------------------------------------------------------------- what follows from it

    def parameters(self, outputs):
        return outputs

    def mean(self, parameters):
        return parameters

    def variance(self, parameters):
        return ops.full_like(parameters, self.noise_variance(self.numbers(parameters)))

    def log_likelihood(self, outputs, y):
        return self.log_noise(y - outputs, self.numbers(outputs))

    def cdf(self, parameters, y):
        return self.noise_cdf(y - parameters, self.numbers(parameters))

    def quantiles(self, outputs, levels):
        return mixture_quantiles(self.for_examples_of(outputs), outputs, levels)

    def fisher_scores(self, outputs, draws):
        count = self.numbers(ops.expand_dims(outputs, 0))
        return draws * math.sqrt(self.noise_information(count))

    def num_labels(self, outputs):
        """1: D counts the numbers of all positions."""
        return 1

    def guess(self, y):
        count = self.count or math.prod(y.shape[1:]) / self.loss_weight
        y = ops.reshape(y, (-1, y.shape[-1]))
        low, high = ops.min(y, axis=0), ops.max(y, axis=0)
        return best_constant(lambda c: self.log_noise(y - c, count), [(low, high)])

    def report(self, parameters, y, outside=None, weights=None):
        return report_of_samples(self.for_examples_of(parameters), parameters, y, weights)

    def numbers(self, outputs):
        """D of outputs that have an axis of members, over the loss' factor."""
        if self.count is not None:
            return self.count
        sizes = outputs.shape[2:]
        if any(size is None for size in sizes):
            raise ValueError(
                "The noise that this loss stands for depends on the number of outputs of one "
                f"example, which must be known. Received: outputs of shape {tuple(sizes)} per "
                "example. Give the model's input a fixed shape, or train with a loss whose noise "
                "has a scale of its own, such as `GaussianNLL(stddev=...)`."
            )
        return math.prod(sizes) / self.loss_weight

    def for_examples_of(self, outputs):
        """The same for arrays of any shape."""
        bound = copy.copy(self)
        bound.count = self.numbers(outputs)
        return bound
