"""What the outputs of a network say about y: the loss that trains it, the function that is
compared, and the log density of each example, in NumPy and apart from the package's own."""

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np

import keras_langevin as kl

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Of one kind of target.

    Attributes:
        loss: Makes the Keras loss, mean negative log density up to a constant.
        function: From outputs `(..., units)` to what is compared, the function that one draw of the
            weights stands for: regression means, probabilities, rates.
        log_density: From y `(rows,)` and outputs `(..., rows, units)` to nats `(..., rows)`.
    """

    loss: Callable
    function: Callable
    log_density: Callable


def gaussian(stddev):
    """Real numbers under noise of a known standard deviation."""

    def log_density(y, outputs):
        return _gaussian(y, outputs[..., 0], math.log(stddev))

    return Likelihood(lambda: kl.losses.GaussianNLL(stddev=stddev), np.asarray, log_density)


def gaussian_with_log_scale():
    """Real numbers under noise that the network predicts too; both outputs are compared."""

    def log_density(y, outputs):
        return _gaussian(y, outputs[..., 0], outputs[..., 1])

    return Likelihood(kl.losses.GaussianNLL, np.asarray, log_density)


def bernoulli():
    """Yes or no by one logit."""

    def log_density(y, logits):
        return -np.logaddexp(0.0, (1 - 2 * y) * logits[..., 0])

    def loss():
        return keras.losses.BinaryCrossentropy(from_logits=True)

    return Likelihood(loss, lambda logits: np.exp(-np.logaddexp(0.0, -logits)), log_density)


def categorical():
    """One of several classes by a logit each."""

    def log_probabilities(logits):
        return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)

    def log_density(y, logits):
        return log_probabilities(logits)[..., np.arange(len(y)), y.astype(int)]

    def loss():
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    return Likelihood(loss, lambda logits: np.exp(log_probabilities(logits)), log_density)


def poisson():
    """Counts by their rate."""

    def log_density(y, rates):
        constant = np.array([math.lgamma(count + 1) for count in y])
        return y * np.log(rates[..., 0]) - rates[..., 0] - constant

    return Likelihood(keras.losses.Poisson, np.asarray, log_density)


def _gaussian(y, mean, log_stddev):
    return -0.5 * ((y - mean) * np.exp(-log_stddev)) ** 2 - log_stddev - HALF_LOG_2PI
