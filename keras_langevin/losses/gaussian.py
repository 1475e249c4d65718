"""Real numbers with Gaussian noise."""

import math

import keras
from keras import ops

from keras_langevin import arguments
from keras_langevin.losses.base import NegativeLogLikelihood, sum_of_units
from keras_langevin.losses.targets import aligned_targets, split_parts

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@keras.saving.register_keras_serializable("keras_langevin")
class GaussianNLL(NegativeLogLikelihood):
    """Negative log density of a Gaussian, in nats, summed over the last axis.

    -log p(y | x) = Σ_i ½ ((y_i - mean_i) / σ_i)² + log σ_i + ½ log 2π

    With `stddev` the noise σ is known and the model returns the means, last axis d. With
    `stddev=None` the model returns 2d numbers, `[means, log scales]`, and σ = exp(log scale).
    `num_data` times this loss is the exact negative log likelihood, constants included, which
    makes the posterior the one of that noise. `"mse"` in its place stands for σ² = d / 2.

    Args:
        stddev: Standard deviation of the noise in the units of y, > 0; `None` when the model
            predicts it.
        reduction: How examples are reduced; the default, their mean, is what the samplers of
            this package expect.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Call arguments:
        y_true: Shape `(batch, ..., d)`; for d = 1 also `(batch, ...)`.
        y_pred: Shape `(batch, ..., d)` with `stddev`, `(batch, ..., 2 d)` without.

    Raises:
        ValueError: If `stddev` is not greater than zero, or the last axes do not fit.

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss=kl.losses.GaussianNLL())  # one target: [mean, log scale]
    model.evaluate(np.zeros((4, 3)), np.ones((4, 1)))  # 1.419 = ½ + ½ log 2π
    ```
    """

    def __init__(
        self,
        stddev: float | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "gaussian_nll",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        self.stddev = None if stddev is None else arguments.width("stddev", stddev)

    def call(self, y_true, y_pred):
        if self.stddev is None:
            mean, log_stddev = split_mean_and_log_scale(y_pred)
        else:
            mean, log_stddev = y_pred, ops.full_like(y_pred, math.log(self.stddev))
        log_densities = gaussian_log_densities(aligned_targets(y_true, mean), mean, log_stddev)
        return -sum_of_units(log_densities)

    def get_config(self):
        return {**super().get_config(), "stddev": self.stddev}


def gaussian_log_densities(y, mean, log_stddev):
    """log N(y; mean, σ²) of each number by itself."""
    error = (y - mean) * ops.exp(-log_stddev)
    return -(0.5 * ops.square(error) + log_stddev + HALF_LOG_2PI)


def split_mean_and_log_scale(outputs):
    """The two halves of the last axis."""
    names = ("means", "log scales")
    return split_parts(outputs, names, ", or use `GaussianNLL(stddev=...)`")
