"""One of several classes per example."""

import keras
import numpy as np
from keras import ops

from keras_langevin.predictive.entropy import categorical_entropy, log_mean_exp, times_log
from keras_langevin.predictive.family import Family
from keras_langevin.predictive.labels import check_whole_labels
from keras_langevin.predictive.probabilities import check_distributions
from keras_langevin.predictive.quality_of_classes import report_of_classes
from keras_langevin.predictive.quantiles import member_quantiles
from keras_langevin.predictive.registry import register_family


@register_family(
    (
        keras.losses.SparseCategoricalCrossentropy,
        keras.losses.CategoricalCrossentropy,
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.categorical_crossentropy,
    ),
    exact=True,
)
class Categorical(Family):
    """The last axis of the outputs are the classes, of which each label is one.

    Args:
        output: `"logits"` or `"probabilities"`.
    """

    support = "classes"

    def __init__(self, output):
        self.output = output

    @classmethod
    def choices(cls):
        return {
            "logits": "softmax of the last axis gives the classes' probabilities",
            "probabilities": "the last axis are the classes' probabilities",
        }

    @classmethod
    def from_name(cls, output):
        return cls(output)

    @classmethod
    def from_loss(cls, loss):
        from_logits = isinstance(loss, keras.losses.Loss) and loss.get_config()["from_logits"]
        return cls("logits" if from_logits else "probabilities")

    @property
    def impossible_activations(self):
        return ("softmax", "sigmoid") if self.output == "logits" else ("linear",)

    def parameters(self, outputs):
        return ops.softmax(outputs) if self.output == "logits" else outputs

    def mean(self, parameters):
        return parameters

    def variance(self, parameters):
        """Of each class' indicator."""
        return parameters * (1 - parameters)

    def entropy(self, mean):
        return categorical_entropy(mean)

    def quantiles(self, outputs, levels):
        """Of the members' probabilities: classes have no order."""
        return member_quantiles(self.parameters(outputs), levels)

    def sample(self, parameters, generator):
        """One-hot."""
        noise = generator.gumbel(size=parameters.shape)
        with np.errstate(divide="ignore"):
            best = np.argmax(np.log(parameters) + noise, axis=-1)
        return np.eye(parameters.shape[-1], dtype=parameters.dtype)[best]

    def log_likelihood(self, outputs, y):
        """`y`: integers, shape `(batch, ...)` or `(batch, ..., 1)`, or one-hot. An integer that
        is no class gives NaN."""
        return self._of_labels(self._log_probabilities(outputs), y, len(outputs.shape) - 1)

    log_densities = log_likelihood

    def log_density(self, outputs, y):
        log_p = log_mean_exp(self._log_probabilities(outputs))
        return self._of_labels(log_p, y, len(outputs.shape) - 1)

    def _log_probabilities(self, outputs):
        return ops.log_softmax(outputs) if self.output == "logits" else ops.log(outputs)

    def _of_labels(self, log_p, y, rank):
        one_hot = self._one_hot(y, rank, log_p.shape[-1])
        return ops.sum(times_log(ops.cast(one_hot, log_p.dtype), log_p), axis=-1)

    def fisher_scores(self, outputs, draws):
        p = self.parameters(outputs)
        root = ops.sqrt(ops.maximum(p, keras.backend.epsilon()))
        if self.output == "logits":
            return root * draws - p * ops.sum(root * draws, axis=-1, keepdims=True)
        return draws / root - ops.sum(root * draws, axis=-1, keepdims=True)

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

    def check(self, parameters):
        if self.output == "probabilities":
            check_distributions(parameters, self.output)

    def check_labels(self, y):
        check_whole_labels(y)

    def component(self, parameters, tfp):
        return tfp.distributions.Categorical(probs=parameters)

    def report(self, parameters, y, outside=None):
        """Positions are examples."""
        classes = parameters.shape[-1]
        one_hot = ops.convert_to_numpy(self._one_hot(np.asarray(y), parameters.ndim - 1, classes))
        labels = one_hot.reshape(-1, classes).argmax(-1)
        return report_of_classes(
            _flat(parameters), labels, None if outside is None else _flat(outside)
        )


def _flat(members):
    """NumPy: `(members, n, classes)`."""
    return members.reshape(len(members), -1, members.shape[-1])
