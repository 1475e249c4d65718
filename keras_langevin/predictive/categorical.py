"""One of several classes per example."""

import math

import keras
import numpy as np
from keras import ops

from keras_langevin.predictive.entropy import (
    categorical_entropy,
    entropy_parts,
    log_mean_exp,
    times_log,
)
from keras_langevin.predictive.mixture import equal_mixture, members_before
from keras_langevin.predictive.probabilities import check_distributions
from keras_langevin.predictive.quantiles import member_quantiles


class Categorical:
    """The last axis of the outputs are the classes.

    Args:
        output: `"logits"` or `"probabilities"`.
    """

    noise_stddev = None
    is_discrete = True

    def __init__(self, output):
        self.output = output

    def mean(self, outputs):
        return ops.softmax(outputs) if self.output == "logits" else outputs

    members = mean

    def uncertainty(self, outputs, quantiles):
        p = self.members(outputs)
        result = {"mean": ops.mean(p, axis=0), **entropy_parts(p, categorical_entropy)}
        if quantiles:
            result["quantiles"] = member_quantiles(p, quantiles)
        return result

    def log_density(self, outputs, y):
        """`y`: integers, shape `(batch, ...)` or `(batch, ..., 1)`, or one-hot. An integer that
        is no class gives NaN."""
        log_p = self._log_probabilities(outputs)
        return self._of_labels(log_mean_exp(log_p), y, rank=len(outputs.shape) - 1)

    def log_densities(self, outputs, y):
        log_p = self._log_probabilities(outputs)
        return self._of_labels(log_p, y, rank=len(outputs.shape) - 1)

    def _log_probabilities(self, outputs):
        return ops.log_softmax(outputs) if self.output == "logits" else ops.log(outputs)

    def _of_labels(self, log_p, y, rank):
        one_hot = self._one_hot(y, rank, log_p.shape[-1])
        return ops.sum(times_log(ops.cast(one_hot, log_p.dtype), log_p), axis=-1)

    def score(self, outputs, draws):
        """Of the mean loss; see `fisher_scores.py`."""
        p = self.mean(outputs)
        root = ops.sqrt(ops.maximum(p, keras.backend.epsilon()))
        if self.output == "logits":
            scores = root * draws - p * ops.sum(root * draws, axis=-1, keepdims=True)
        else:
            scores = draws / root - ops.sum(root * draws, axis=-1, keepdims=True)
        return scores / math.prod(outputs.shape[1:-1]) ** 0.5

    def _one_hot(self, y, rank, classes):
        if len(y.shape) == rank and y.shape[-1] == classes and classes > 1:
            return y
        if len(y.shape) == rank and y.shape[-1] == 1:
            y = ops.squeeze(y, axis=-1)
        if len(y.shape) != rank - 1:
            raise ValueError(
                "The labels must be class numbers, or one-hot vectors. Received: "
                f"y.shape={tuple(y.shape)} for predictions of {rank} axes with {classes} classes "
                "in the last one."
            )
        y = ops.expand_dims(ops.cast(y, "int32"), -1)
        one_hot = ops.cast(y == ops.arange(classes, dtype="int32"), "float32")
        return ops.where((y >= 0) & (y < classes), one_hot, float("nan"))

    def check(self, prediction):
        if self.output == "probabilities":
            check_distributions(prediction, self.output)

    def flat_classes(self, members, y=None):
        """NumPy: probabilities `(members, n, classes)`, labels `(n,)`; positions are examples."""
        classes = members.shape[-1]
        labels = None
        if y is not None:
            one_hot = ops.convert_to_numpy(self._one_hot(np.asarray(y), members.ndim - 1, classes))
            labels = one_hot.reshape(-1, classes).argmax(-1)
        return members.reshape(len(members), -1, classes), labels

    def distribution(self, members, tfp):
        """`members`: NumPy array `(members, batch, ..., classes)`."""
        probabilities = members_before(members, event_axes=1)
        return equal_mixture(tfp, tfp.distributions.Categorical(probs=probabilities))
