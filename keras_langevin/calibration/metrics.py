"""Streaming Keras metrics for `model.compile(metrics=[...])`, on every backend and compiled.

Each gives, over all batches, the number of the function of the same name.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import keras
import numpy as np
from keras import ops

from keras_langevin import arguments, keras_arguments
from keras_langevin.calibration.reliability import inner_edges
from keras_langevin.keras_internals import mask_of
from keras_langevin.losses import check_same_shape, split_mean_and_log_scale


@keras.saving.register_keras_serializable("keras_langevin")
class BrierScore(keras.metrics.MeanMetricWrapper):
    """Mean of Σ_k (p_k - [k = label])², 0 to 2; lower is better. See `brier_score`.

    Args:
        from_logits: Whether the model returns logits, which then go through `softmax`.
        name, dtype: As in every Keras metric.

    Call arguments:
        y_true: Integer labels `(batch, ...)` or `(batch, ..., 1)`, or one-hot labels of the
            shape of `y_pred`.
        y_pred: `(batch, ..., classes)`, two classes or more.
        sample_weight: `(batch, ...)` or `(batch, ..., 1)`.

    Example:

    >>> model.compile("adam", loss, metrics=[kl.calibration.BrierScore(from_logits=True)])
    """

    _direction = "down"  # for the `mode="auto"` of Keras' callbacks

    def __init__(self, from_logits: bool = False, name: str = "brier_score", dtype=None):
        super().__init__(self._score, **_checked_names(name, dtype))
        self.from_logits = arguments.boolean("from_logits", from_logits)

    def _score(self, y_true, y_pred):
        probabilities = _probabilities(y_pred, self.from_logits, self.dtype)
        return ops.sum(ops.square(probabilities - _one_hot(y_true, probabilities)), axis=-1)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype, "from_logits": self.from_logits}


@keras.saving.register_keras_serializable("keras_langevin")
class ExpectedCalibrationError(keras.metrics.Metric):
    """Σ_b (n_b / n) |accuracy_b - confidence_b|, 0 to 1; lower is better.

    Over bins of equal width; see `expected_calibration_error`, which also has bins of equal mass:
    these need all examples at once and do not stream. The state is one sum of gaps a bin. With
    `sample_weight` an example counts as often as its weight says.

    Args:
        num_bins: Number of bins, >= 1.
        from_logits: Whether the model returns logits, which then go through `softmax`.
        name, dtype: As in every Keras metric.

    Call arguments:
        y_true, y_pred, sample_weight: As in `BrierScore`.

    Example:

    >>> metrics = ["accuracy", kl.calibration.ExpectedCalibrationError(from_logits=True)]
    >>> model.compile("adam", loss, metrics=metrics)
    """

    _direction = "down"

    def __init__(
        self,
        num_bins: int = 15,
        from_logits: bool = False,
        name: str = "expected_calibration_error",
        dtype=None,
    ):
        super().__init__(**_checked_names(name, dtype))
        self.num_bins = arguments.integer("num_bins", num_bins, at_least=1)
        self.from_logits = arguments.boolean("from_logits", from_logits)
        self._gaps = self.add_variable((self.num_bins,), "zeros", name="gaps")
        self._count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        probabilities = _probabilities(y_pred, self.from_logits, self.dtype)
        label = ops.argmax(_one_hot(y_true, probabilities), axis=-1)
        confidence = ops.max(probabilities, axis=-1)
        is_right = ops.cast(ops.argmax(probabilities, axis=-1) == label, self.dtype)
        weight = _weights(sample_weight, confidence, mask_of(y_pred))
        bins = ops.one_hot(self._bin(confidence), self.num_bins, dtype=self.dtype)
        gaps = ops.expand_dims(weight * (is_right - confidence), -1) * bins
        self._gaps.assign_add(ops.sum(ops.reshape(gaps, (-1, self.num_bins)), axis=0))
        self._count.assign_add(ops.sum(weight))

    def result(self):
        return ops.divide_no_nan(ops.sum(ops.abs(self._gaps)), self._count)

    def _bin(self, confidence):
        """Edges are rounded up, so that float32 confidences fall where they do in float64."""
        exact = inner_edges(self.num_bins)
        edges = exact.astype(self.dtype)
        edges = np.where(edges < exact, np.nextafter(edges, edges + 1), edges)
        is_above = ops.expand_dims(confidence, -1) >= ops.convert_to_tensor(edges)
        return ops.sum(ops.cast(is_above, "int32"), axis=-1)

    def get_config(self):
        return {
            "num_bins": self.num_bins,
            "from_logits": self.from_logits,
            "name": self.name,
            "dtype": self.dtype,
        }


class _GaussianMetric(keras.metrics.MeanMetricWrapper):
    """Mean of a score of y under N(mean, stddev²)."""

    of_one_member = True

    def __init__(self, stddev, name, dtype):
        super().__init__(self._score_outputs, **_checked_names(name, dtype))
        self.stddev = None if stddev is None else arguments.width("stddev", stddev)

    def _score_outputs(self, y_true, y_pred):
        y_pred = ops.cast(y_pred, self.dtype)
        if self.stddev is None:
            mean, log_stddev = split_mean_and_log_scale(y_pred)
        else:
            mean, log_stddev = y_pred, ops.full_like(y_pred, math.log(self.stddev))
        y = ops.cast(y_true, self.dtype)
        if len(y.shape) == len(mean.shape) - 1 and mean.shape[-1] == 1:
            y = ops.expand_dims(y, -1)
        check_same_shape(y, mean)
        return self._score((y - mean) * ops.exp(-log_stddev), ops.exp(log_stddev))

    def get_config(self):
        return {"stddev": self.stddev, "name": self.name, "dtype": self.dtype}


@keras.saving.register_keras_serializable("keras_langevin")
class ContinuousRankedProbabilityScore(_GaussianMetric):
    """Mean CRPS of one Gaussian, in the units of y; lower is better.

    CRPS = σ (z (2 Φ(z) - 1) + 2 φ(z) - 1/√π) with z = (y - mean) / σ; of the mixture of an
    ensemble see `continuous_ranked_probability_score`.

    It scores one member: metrics of a `BayesianEnsembleModel` see only the average of its
    members' means, so its `evaluate` leaves this one out, which the attribute
    `of_one_member = True` asks for.

    Args:
        stddev: Standard deviation of the noise in the units of y, > 0, where the model returns
            means; `None` where it returns `[means, log scales]`, as `GaussianNLL()` trains it to.
        name, dtype: As in every Keras metric.

    Call arguments:
        y_true: `(batch, ..., d)`, or `(batch, ...)` for d = 1.
        y_pred: `(batch, ..., d)` with `stddev`, `(batch, ..., 2 d)` without.
        sample_weight: `(batch,)` or `(batch, 1)`.

    Raises:
        ValueError: If `stddev` is not greater than zero, or the last axes do not fit.

    Example:

    >>> crps = kl.calibration.ContinuousRankedProbabilityScore()
    >>> model.compile("adam", kl.losses.GaussianNLL(), metrics=[crps])

    References:
        T. Gneiting, A. E. Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation",
        Journal of the American Statistical Association 102, 2007, equation 21.
    """

    _direction = "down"

    def __init__(
        self,
        stddev: float | None = None,
        name: str = "continuous_ranked_probability_score",
        dtype=None,
    ):
        super().__init__(stddev, name, dtype)

    def _score(self, z, stddev):
        density = ops.exp(-0.5 * ops.square(z)) / math.sqrt(2 * math.pi)
        absolute = 2 * density + z * ops.erf(z / math.sqrt(2))
        return stddev * (absolute - 1 / math.sqrt(math.pi))


@keras.saving.register_keras_serializable("keras_langevin")
class IntervalCoverage(_GaussianMetric):
    """Share of targets in the central interval of one Gaussian; right when it is `level`.

    Like `ContinuousRankedProbabilityScore` it is of one member (`of_one_member = True`); of an
    ensemble's intervals see `interval_coverage`.

    Args:
        level: Probability of the interval, in (0, 1].
        stddev, name, dtype: As in `ContinuousRankedProbabilityScore`.

    Call arguments:
        y_true, y_pred, sample_weight: As in `ContinuousRankedProbabilityScore`.

    Example:

    >>> coverage = kl.calibration.IntervalCoverage(level=0.9, stddev=0.1)
    >>> model.compile("adam", kl.losses.GaussianNLL(0.1), metrics=[coverage])
    """

    def __init__(
        self,
        level: float = 0.9,
        stddev: float | None = None,
        name: str = "interval_coverage",
        dtype=None,
    ):
        super().__init__(stddev, name, dtype)
        self.level = arguments.unit_interval("level", level)

    def _score(self, z, stddev):
        limit = NormalDist().inv_cdf(0.5 + 0.5 * self.level) if self.level < 1 else math.inf
        return ops.abs(z) <= limit

    def get_config(self):
        return {"level": self.level, **super().get_config()}


def _checked_names(name, dtype):
    return {
        "name": keras_arguments.keras_name("name", name),
        "dtype": keras_arguments.float_dtype("dtype", dtype),
    }


def _probabilities(y_pred, from_logits, dtype):
    y_pred = ops.cast(y_pred, dtype)
    if y_pred.shape[-1] == 1:
        raise ValueError(
            "`y_pred` must have two or more classes on its last axis. Received: "
            f"y_pred.shape={tuple(y_pred.shape)}. Give the last layer one unit for each class."
        )
    return ops.softmax(y_pred, axis=-1) if from_logits else y_pred


def _one_hot(y_true, probabilities):
    """Labels `(batch, ...)`, `(batch, ..., 1)` or one-hot, in the shape of `probabilities`."""
    y_true, classes = ops.convert_to_tensor(y_true), probabilities.shape[-1]
    rank = len(probabilities.shape)
    if len(y_true.shape) == rank and y_true.shape[-1] == classes:
        return ops.cast(y_true, probabilities.dtype)
    if len(y_true.shape) == rank and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, axis=-1)
    if len(y_true.shape) != rank - 1:
        raise ValueError(
            "`y_true` must be integer labels with the shape of `y_pred` without its last axis, or "
            f"one-hot labels of its shape. Received: y_true.shape={tuple(y_true.shape)}, "
            f"y_pred.shape={tuple(probabilities.shape)}."
        )
    return ops.one_hot(ops.cast(y_true, "int32"), classes, dtype=probabilities.dtype)


def _weights(sample_weight, like, mask):
    """One weight for each number of `like`, from `(batch, ...)` or `(batch, ..., 1)`."""
    ones = ops.ones_like(like) if mask is None else ops.cast(mask, like.dtype)
    if sample_weight is None:
        return ones
    weight = ops.cast(sample_weight, like.dtype)
    if len(weight.shape) > len(like.shape):
        weight = ops.squeeze(weight, axis=-1)
    while len(weight.shape) < len(like.shape):
        weight = ops.expand_dims(weight, -1)
    return weight * ones
