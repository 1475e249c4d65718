"""Losses that are exact negative log densities, so that the posterior is well defined."""

import math

import keras
from keras import ops

from keras_langevin import arguments, keras_arguments

__all__ = ["GaussianNLL"]

REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None)
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@keras.saving.register_keras_serializable("keras_langevin")
class GaussianNLL(keras.losses.Loss):
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
        y_true: Shape `(batch, ..., d)`.
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
        super().__init__(
            name=keras_arguments.keras_name("name", name),
            reduction=arguments.one_of("reduction", reduction, REDUCTIONS),
            dtype=keras_arguments.float_dtype("dtype", dtype),
        )
        self.stddev = None if stddev is None else arguments.width("stddev", stddev)

    def call(self, y_true, y_pred):
        if self.stddev is None:
            mean, log_stddev = split_mean_and_log_scale(y_pred)
        else:
            mean, log_stddev = y_pred, math.log(self.stddev)
        check_same_shape(y_true, mean)
        return -gaussian_log_density(y_true, mean, log_stddev)

    def get_config(self):
        return {**super().get_config(), "stddev": self.stddev}


def gaussian_log_density(y, mean, log_stddev):
    """log N(y; mean, σ²) summed over the last axis, constants included."""
    return ops.sum(gaussian_log_densities(y, mean, log_stddev), axis=-1)


def gaussian_log_densities(y, mean, log_stddev):
    """log N(y; mean, σ²) of each number by itself."""
    error = (y - mean) * ops.exp(-log_stddev)
    return -(0.5 * ops.square(error) + log_stddev + HALF_LOG_2PI)


def split_mean_and_log_scale(outputs):
    """The two halves of the last axis."""
    width = outputs.shape[-1]
    if width is None or width % 2:
        raise ValueError(
            "The last axis of the outputs must have an even length, the means and then as many "
            f"log scales. Received: outputs.shape={tuple(outputs.shape)}. Give the last layer two "
            "units for each target, or use `GaussianNLL(stddev=...)`."
        )
    return outputs[..., : width // 2], outputs[..., width // 2 :]


def check_same_shape(y, mean):
    if len(y.shape) != len(mean.shape) or y.shape[-1] != mean.shape[-1]:
        raise ValueError(
            "The targets must have the shape of the predicted means. Received: "
            f"y.shape={tuple(y.shape)}, mean.shape={tuple(mean.shape)}. Use `y[:, None]` for one "
            "number per example."
        )
