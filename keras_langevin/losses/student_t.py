"""Real numbers with the heavy tails of Student's t."""

import math

import keras
from keras import ops

from keras_langevin import arguments
from keras_langevin.losses.base import NegativeLogLikelihood, sum_of_units
from keras_langevin.losses.targets import aligned_targets, split_parts
from keras_langevin.special_functions import log_gamma
from keras_langevin.special_functions.bounds import no_more_than


@keras.saving.register_keras_serializable("keras_langevin")
class StudentTNLL(NegativeLogLikelihood):
    """Negative log density of Student's t distribution, in nats, summed over the last axis.

    -log p(y | x) = Σ_i ½ (ν + 1) log(1 + z_i² / ν) + log s_i + log B(ν/2, ½) + ½ log ν

    with z_i = (y_i - m_i) / s_i. An outlier costs no more than the logarithm of its distance,
    where a Gaussian has it squared. The model returns 2d numbers, `[locations m, log scales]`, and
    s = exp(log scale); with `df=None` 3d numbers, `[locations, log scales, log(ν - 2)]`, and ν > 2
    is learnt.

    Args:
        df: Degrees of freedom ν >= 1: the smaller, the heavier the tails. The variance is finite
            above 2. `None` when the model predicts it.
        reduction: How examples are reduced; the default, their mean, is what the samplers of
            this package expect.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Call arguments:
        y_true: Shape `(batch, ..., d)`; for d = 1 also `(batch, ...)`.
        y_pred: Shape `(batch, ..., 2 d)`, or `(batch, ..., 3 d)` with `df=None`.

    Raises:
        ValueError: If `df` is less than 1, or the last axes do not fit.

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss=kl.losses.StudentTNLL(df=3.0))  # one target: [location, log scale]
    model.evaluate(np.zeros((4, 3)), np.ones((4, 1)))  # 1.576
    ```

    References:
        K. L. Lange, R. J. A. Little, J. M. G. Taylor, "Robust Statistical Modeling Using the t
        Distribution", Journal of the American Statistical Association 84, 1989.
    """

    def __init__(
        self,
        df: float | None = 4.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "student_t_nll",
        dtype=None,
    ):
        super().__init__(reduction, name, dtype)
        self.df = None if df is None else checked_df(df)

    def call(self, y_true, y_pred):
        location, log_scale, df = split_student_t(y_pred, self.df)
        y = aligned_targets(y_true, location)
        return -sum_of_units(student_t_log_densities(y, location, log_scale, df))

    def get_config(self):
        return {**super().get_config(), "df": self.df}


def student_t_log_densities(y, location, log_scale, df):
    """Of each number by itself; `df` is a tensor."""
    square = ops.square((y - location) * ops.exp(-log_scale)) / df
    normaliser = log_gamma(0.5 * df + 0.5) - log_gamma(0.5 * df) - 0.5 * ops.log(math.pi * df)
    return normaliser - log_scale - 0.5 * (df + 1) * ops.log1p(square)


def split_student_t(outputs, df):
    """Locations, logarithms of scales and degrees of freedom, tensors of one shape."""
    if df is None:
        names = ("locations", "log scales", "log(df - 2)")
        location, log_scale, log_excess = split_parts(outputs, names)
        return location, log_scale, 2 + ops.exp(no_more_than(20.0, log_excess))
    location, log_scale = split_parts(outputs, ("locations", "log scales"))
    return location, log_scale, ops.full_like(location, df)


def checked_df(df):
    found = arguments.number("df", df)
    if found < 1:
        raise ValueError(f"`df` must be at least 1, or None. Received: df={arguments.shorten(df)}.")
    return found
