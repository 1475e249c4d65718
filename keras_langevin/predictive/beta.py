"""Shares between 0 and 1."""

import numpy as np
from keras import ops

from keras_langevin.losses.beta import BetaNLL, beta_log_densities, beta_shapes
from keras_langevin.losses.targets import split_parts
from keras_langevin.predictive.family import Family
from keras_langevin.predictive.guess import best_constant
from keras_langevin.predictive.registry import register_family
from keras_langevin.special_functions import incomplete_beta, trigamma
from keras_langevin.special_functions.bounds import no_less_than


@register_family(BetaNLL)
class Beta(Family):
    """The last axis of the outputs are logits of means and then as many logarithms of
    precisions."""

    output = "beta"
    meaning = "the last axis are logits of mean shares and log precisions, of `BetaNLL`"

    def parameters(self, outputs):
        a, b = beta_shapes(outputs)
        return {"a": a, "b": b}

    def mean(self, parameters):
        return parameters["a"] / (parameters["a"] + parameters["b"])

    def variance(self, parameters):
        mean, precision = self.mean(parameters), parameters["a"] + parameters["b"]
        return mean * (1 - mean) / (1 + precision)

    def log_likelihood(self, outputs, y):
        return beta_log_densities(y, *beta_shapes(outputs))

    def cdf(self, parameters, y):
        y = ops.clip(y + 0 * parameters["a"], 1e-37, 1 - 1e-7)
        a, b = (p + 0 * y for p in (parameters["a"], parameters["b"]))
        return incomplete_beta(a, b, ops.log(y), ops.log1p(-y))

    def sample(self, parameters, generator):
        drawn = generator.beta(parameters["a"], parameters["b"])
        return drawn.astype(np.asarray(parameters["a"]).dtype)

    def fisher_scores(self, outputs, draws):
        """A Cholesky root for a and b, times how these change with the outputs."""
        first, second = split_parts(draws, ("logits", "precisions"))
        a, b = beta_shapes(outputs)
        both = trigamma(a + b)
        root = ops.sqrt(trigamma(a) - both)
        cross = -both / root
        of_a = root * first
        of_b = cross * first + ops.sqrt(no_less_than(0.0, trigamma(b) - both - cross**2)) * second
        slope = a * b / (a + b)
        return ops.concatenate([slope * (of_a - of_b), a * of_a + b * of_b], axis=-1)

    def guess(self, y):
        y = ops.reshape(y, (-1, y.shape[-1]))
        inside = ops.clip(y, 1e-6, 1 - 1e-6)
        logits = ops.log(inside) - ops.log1p(-inside)
        zero = 0 * logits[0]
        brackets = [(ops.min(logits, axis=0), ops.max(logits, axis=0)), (zero - 6, zero + 14)]

        def log_likelihood(logit, log_precision):
            logit, log_precision = logit + 0 * log_precision, log_precision + 0 * logit
            shapes = beta_shapes(ops.concatenate([logit, log_precision], axis=-1))
            return beta_log_densities(y, *shapes)

        return best_constant(log_likelihood, brackets)

    def component(self, parameters, tfp):
        beta = tfp.distributions.Beta(parameters["a"], parameters["b"])
        return tfp.distributions.Independent(beta, 1)
