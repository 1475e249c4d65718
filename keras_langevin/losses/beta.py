"""Shares between 0 and 1."""

import keras
from keras import ops

from keras_langevin.losses.base import NegativeLogLikelihood, sum_of_units
from keras_langevin.losses.targets import aligned_targets, split_parts
from keras_langevin.special_functions import log_gamma
from keras_langevin.special_functions.bounds import no_less_than

SMALLEST = 1e-6  # of the two shape parameters


@keras.saving.register_keras_serializable("keras_langevin")
class BetaNLL(NegativeLogLikelihood):
    """Negative log density of a beta distribution, in nats, summed over the last axis.

    With the mean m = sigmoid(logit) and the precision φ = exp(log precision), a = m φ and
    b = (1 - m) φ,

    -log p(y | x) = Σ_i log B(a, b) - (a - 1) log y - (b - 1) log(1 - y),   Var[y] = m(1-m)/(1+φ)

    The model returns 2d numbers, `[logits of means, log precisions]`. Targets are kept away from
    0 and 1 by `keras.config.epsilon()`, where a density may be infinite; shares that are often
    exactly 0 or 1 need another likelihood.

    Args:
        reduction: How examples are reduced; the default, their mean, is what the samplers of
            this package expect.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Call arguments:
        y_true: Shares, shape `(batch, ..., d)`; for d = 1 also `(batch, ...)`.
        y_pred: Shape `(batch, ..., 2 d)`.

    Raises:
        ValueError: If the last axes do not fit.

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss=kl.losses.BetaNLL())  # one share: [logit of the mean, log precision]
    model.evaluate(np.zeros((4, 3)), np.full((4, 1), 0.5))  # 0.452 = log(pi / 2)
    ```

    References:
        S. Ferrari, F. Cribari-Neto, "Beta Regression for Modelling Rates and Proportions", Journal
        of Applied Statistics 31, 2004.
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "beta_nll",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)

    def call(self, y_true, y_pred):
        a, b = beta_shapes(y_pred)
        return -sum_of_units(beta_log_densities(aligned_targets(y_true, a), a, b))


def beta_log_densities(y, a, b):
    """Of each share by itself."""
    epsilon = keras.config.epsilon()
    y = ops.clip(y, epsilon, 1 - epsilon)
    log_beta = log_gamma(a) + log_gamma(b) - log_gamma(a + b)
    return (a - 1) * ops.log(y) + (b - 1) * ops.log1p(-y) - log_beta


def beta_shapes(outputs):
    """The parameters a and b."""
    logit, log_precision = split_parts(outputs, ("logits of means", "log precisions"))
    a = ops.exp(log_precision + ops.log_sigmoid(logit))
    b = ops.exp(log_precision + ops.log_sigmoid(-logit))
    return no_less_than(SMALLEST, a), no_less_than(SMALLEST, b)
