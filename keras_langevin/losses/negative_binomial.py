"""Counts that vary more than a Poisson distribution's."""

import keras
from keras import ops

from keras_langevin.losses.base import NegativeLogLikelihood, sum_of_units
from keras_langevin.losses.targets import aligned_targets, split_parts
from keras_langevin.special_functions import log_gamma, log_rising

LARGEST = 16.0  # of |log dispersion|: beyond it the distribution is Poisson's, or nothing


@keras.saving.register_keras_serializable("keras_langevin")
class NegativeBinomialNLL(NegativeLogLikelihood):
    """Negative log density of a negative binomial distribution, in nats, summed over the last axis.

    With the mean μ and the dispersion α, r = 1/α and Var[y] = μ + α μ²,

    -log p(y | x) = Σ_i log Γ(r) - log Γ(y + r) + log y! - r log(r / (r + μ)) - y log(μ / (r + μ))

    For α → 0 this is a Poisson distribution. The model returns 2d numbers, `[log means, log
    dispersions]`.

    Args:
        reduction: How examples are reduced; the default, their mean, is what the samplers of
            this package expect.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Call arguments:
        y_true: Counts, shape `(batch, ..., d)`; for d = 1 also `(batch, ...)`.
        y_pred: Shape `(batch, ..., 2 d)`.

    Raises:
        ValueError: If the last axes do not fit.

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss=kl.losses.NegativeBinomialNLL())  # one count: [log mean, log dispersion]
    model.evaluate(np.zeros((4, 3)), np.ones((4, 1)))  # 1.386 = log 4
    ```

    References:
        J. M. Hilbe, "Negative Binomial Regression", 2nd edition, 2011 (NB2).
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "negative_binomial_nll",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)

    def call(self, y_true, y_pred):
        log_mean, log_dispersion = split_negative_binomial(y_pred)
        y = aligned_targets(y_true, log_mean)
        return -sum_of_units(negative_binomial_log_densities(y, log_mean, log_dispersion))


def negative_binomial_log_densities(y, log_mean, log_dispersion):
    """Of each count by itself."""
    size, mean = ops.exp(-log_dispersion), ops.exp(log_mean)
    log_share = log_mean + log_dispersion - ops.softplus(log_mean + log_dispersion)
    zeros = -size * ops.softplus(log_mean + log_dispersion)
    # log(Γ(y + r) / Γ(r)) grows as y log r, which log μ / (r + μ) takes back.
    rising = log_rising(size, y) - y * ops.log(size + mean) + y * log_mean
    small = log_rising(size, y) + y * log_share
    rising = ops.where(size > mean, rising, small)
    return rising + zeros - log_gamma(y + 1)


def split_negative_binomial(outputs):
    """Logarithms of means and of dispersions."""
    log_mean, log_dispersion = split_parts(outputs, ("log means", "log dispersions"))
    return log_mean, ops.clip(log_dispersion, -LARGEST, LARGEST)
