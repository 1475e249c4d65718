"""Priors from TensorFlow Probability."""

import keras
import numpy as np
from keras import ops

from keras_langevin.arguments import instance, shorten
from keras_langevin.priors.prior import Prior


class TFPDistribution(Prior):
    """Any scalar, continuous TensorFlow Probability distribution, applied to every entry.

    Only on the TensorFlow backend, where the score is automatic differentiation. A model
    that holds it cannot be saved with its optimizer, since TFP distributions have no config.

    Args:
        distribution: The distribution of one number, in float32.

    Example:

    >>> prior = kl.priors.TFPDistribution(tfp.distributions.Cauchy(0.0, 1.0))
    """

    def __init__(self, distribution):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "A TensorFlow Probability distribution can be a prior on the TensorFlow backend "
                f"only. Received: {shorten(distribution)} on backend={keras.backend.backend()!r}. "
                "Use one of `kl.priors`, which work on every backend."
            )
        import tensorflow_probability as tfp

        words = "a distribution of TensorFlow Probability in float32"
        instance("distribution", distribution, tfp.distributions.Distribution, words)
        if distribution.dtype != "float32":
            raise ValueError(
                f"`distribution` must be {words}. Received: distribution={distribution!r} of "
                f"dtype={distribution.dtype}. Make it of Python's numbers."
            )
        if tuple(distribution.event_shape) or tuple(distribution.batch_shape):
            raise ValueError(
                "A prior must be a distribution of one number; it is applied to every entry. "
                f"Received: batch_shape={tuple(distribution.batch_shape)}, "
                f"event_shape={tuple(distribution.event_shape)}."
            )
        self.distribution = distribution

    def log_density(self, value):
        return ops.sum(self.distribution.log_prob(value))

    def score(self, value):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(value)
            log_density = self.log_density(value)
        return tape.gradient(log_density, value)

    def precision(self, shape):
        """1 / the square of the standard deviation that a normal distribution with the same
        median distance from the median has: also heavy tails have one."""
        import tensorflow as tf

        with tf.init_scope():  # a number, also where `fit` builds the optimizer in a graph
            draws = self.distribution.sample(9999, seed=(0, 0)).numpy()
        distance = np.median(np.abs(draws - np.median(draws)))
        return float((0.6745 / distance) ** 2)

    def __str__(self):
        return str(self.distribution)

    def get_config(self):
        raise ValueError(
            "A prior made from a TensorFlow Probability distribution cannot be serialised. "
            f"Received: {self.distribution!r}. Use one of `kl.priors` to save the optimizer."
        )
