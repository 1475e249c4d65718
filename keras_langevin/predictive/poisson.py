"""Counts whose rate is predicted."""

import keras
import numpy as np
from keras import ops

from keras_langevin.predictive.family import Family
from keras_langevin.predictive.registry import register_family
from keras_langevin.special_functions import log_gamma


@register_family((keras.losses.Poisson, keras.losses.poisson), exact=True)
class Poisson(Family):
    """Each number of the outputs is the rate of a Poisson distribution, plus
    `keras.config.epsilon()`, as in the loss; units are separate observations."""

    output = "rates"
    meaning = "rates of Poisson counts"
    support = "counts"
    sums_units = False

    def parameters(self, outputs):
        return outputs

    def mean(self, parameters):
        return parameters

    def variance(self, parameters):
        return parameters

    def log_likelihood(self, outputs, y):
        rate = outputs + keras.config.epsilon()
        return y * ops.log(rate) - rate - log_gamma(y + 1)

    def sample(self, parameters, generator):
        return generator.poisson(parameters)

    def fisher_scores(self, outputs, draws):
        return draws / ops.sqrt(outputs + keras.config.epsilon())

    def guess(self, y):
        """By the mean of each unit."""
        y = ops.reshape(y, (-1, y.shape[-1]))
        average = ops.mean(y, axis=0)
        return -ops.mean(self.log_likelihood(average, y))

    def check(self, parameters):
        lowest = np.nanmin(parameters, initial=0)
        if lowest < 0:
            raise ValueError(
                'The outputs of a model with output="rates" (the Poisson loss) must be rates, not '
                f"negative. Received: {lowest:.6g}. End the model with the activation "
                '"exponential" or "softplus".'
            )

    def component(self, parameters, tfp):
        return tfp.distributions.Poisson(parameters + keras.config.epsilon())
