"""Counts that vary more than a Poisson distribution's."""

from keras import ops

from keras_langevin.losses.negative_binomial import (
    NegativeBinomialNLL,
    negative_binomial_log_densities,
    split_negative_binomial,
)
from keras_langevin.predictive.family import Family
from keras_langevin.predictive.guess import best_constant
from keras_langevin.predictive.registry import register_family
from keras_langevin.special_functions.bounds import no_less_than

_COUNTS = 128  # that the information is summed over one by one
_NEAR_POISSON = 1e-3  # α² μ


@register_family(NegativeBinomialNLL)
class NegativeBinomial(Family):
    """The last axis of the outputs are logarithms of means and then as many of dispersions."""

    output = "negative_binomial"
    meaning = "the last axis are log means and log dispersions, of `NegativeBinomialNLL`"
    support = "counts"

    def parameters(self, outputs):
        log_mean, log_dispersion = split_negative_binomial(outputs)
        return {"mean": ops.exp(log_mean), "dispersion": ops.exp(log_dispersion)}

    def mean(self, parameters):
        return parameters["mean"]

    def variance(self, parameters):
        mean = parameters["mean"]
        return mean + parameters["dispersion"] * ops.square(mean)

    def log_likelihood(self, outputs, y):
        return negative_binomial_log_densities(y, *split_negative_binomial(outputs))

    def sample(self, parameters, generator):
        size = 1 / parameters["dispersion"]
        return generator.poisson(generator.gamma(size, parameters["mean"] / size))

    def fisher_scores(self, outputs, draws):
        """Mean and dispersion are orthogonal."""
        of_mean, of_dispersion = split_negative_binomial(draws)
        log_mean, log_dispersion = split_negative_binomial(outputs)
        mean, dispersion = ops.exp(log_mean), ops.exp(log_dispersion)
        root = ops.sqrt(mean / (1 + mean * dispersion))
        information = _information_of_log_dispersion(log_mean, log_dispersion)
        return ops.concatenate([root * of_mean, ops.sqrt(information) * of_dispersion], axis=-1)

    def guess(self, y):
        y = ops.reshape(y, (-1, y.shape[-1]))
        log_mean = ops.log(no_less_than(1e-20, ops.mean(y, axis=0)))
        brackets = [(log_mean, log_mean), (0 * log_mean - 12, 0 * log_mean + 8)]
        return best_constant(lambda *c: negative_binomial_log_densities(y, *c), brackets)

    def component(self, parameters, tfp):
        dispersion = parameters["dispersion"]
        counts = tfp.distributions.NegativeBinomial(
            1 / dispersion, probs=1 - 1 / (1 + dispersion * parameters["mean"])
        )
        return tfp.distributions.Independent(counts, 1)


def _information_of_log_dispersion(log_mean, log_dispersion):
    """Near a Poisson distribution, where float32 loses the difference of the exact formula, by
    its limit, which is off by a share of about α."""
    mean, dispersion = ops.exp(log_mean), ops.exp(log_dispersion)
    is_near = ops.square(dispersion) * mean < _NEAR_POISSON
    exact = _information_of_size(log_mean, log_dispersion) / ops.square(dispersion)
    product = dispersion * mean
    limit = 0.5 * ops.square(product / (1 + product))
    return ops.where(is_near, limit, no_less_than(0.0, exact))


def _information_of_size(log_mean, log_dispersion):
    """Of r = 1/α: Σ_j P(Y > j) / (r + j)² - μ / (r (r + μ)), the sum up to some j and from there on
    by mean and variance of what is above it."""
    mean, size = ops.exp(log_mean), ops.exp(-log_dispersion)

    counts = ops.reshape(ops.arange(_COUNTS, dtype=mean.dtype), (-1, *[1] * len(mean.shape)))
    p = ops.exp(negative_binomial_log_densities(counts + 0 * mean, log_mean, log_dispersion))
    above = no_less_than(0.0, 1 - ops.cumsum(p, axis=0))
    total = ops.sum(above / ops.square(size + counts), axis=0)
    weight = no_less_than(1e-6, above[-1])
    mean_above = no_less_than(0.0, mean - ops.sum(counts * p, axis=0)) / weight
    square = mean + mean * mean * (1 + 1 / size)
    square_above = no_less_than(0.0, square - ops.sum(counts * counts * p, axis=0)) / weight
    last, typical = size + _COUNTS - 0.5, size - 0.5 + mean_above
    spread = no_less_than(0.0, square_above - ops.square(mean_above))
    inverse = (1 + spread / ops.square(typical)) / ops.where(typical > last, typical, last)
    rest = above[-1] * no_less_than(0.0, 1 / last - inverse)
    return total + rest - mean / (size * (size + mean))
