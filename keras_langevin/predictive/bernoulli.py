"""Yes or no, for each unit by itself."""

import keras
import numpy as np
from keras import ops

from keras_langevin.predictive.entropy import bernoulli_entropy, log_mean_exp, times_log
from keras_langevin.predictive.family import Family
from keras_langevin.predictive.labels import check_whole_labels
from keras_langevin.predictive.probabilities import check_probabilities
from keras_langevin.predictive.quality_of_classes import report_of_classes
from keras_langevin.predictive.quantiles import member_quantiles
from keras_langevin.predictive.registry import register_family


@register_family((keras.losses.BinaryCrossentropy, keras.losses.binary_crossentropy), exact=True)
class Bernoulli(Family):
    """Each number of the outputs is about one yes or no; units are separate observations.

    Args:
        output: `"binary_logits"` or `"binary_probabilities"`.
    """

    support = "counts"
    sums_units = False

    def __init__(self, output):
        self.output = output

    @classmethod
    def choices(cls):
        return {
            "binary_logits": "sigmoid of each number is the probability of a yes",
            "binary_probabilities": "each number is the probability of a yes",
        }

    @classmethod
    def from_name(cls, output):
        return cls(output)

    @classmethod
    def from_loss(cls, loss):
        from_logits = isinstance(loss, keras.losses.Loss) and loss.get_config()["from_logits"]
        return cls("binary_logits" if from_logits else "binary_probabilities")

    @property
    def impossible_activations(self):
        return ("softmax", "sigmoid") if self.output == "binary_logits" else ("linear",)

    def parameters(self, outputs):
        return ops.sigmoid(outputs) if self.output == "binary_logits" else outputs

    def mean(self, parameters):
        return parameters

    def variance(self, parameters):
        return parameters * (1 - parameters)

    def entropy(self, mean):
        return bernoulli_entropy(mean)

    def quantiles(self, outputs, levels):
        """Of the members' probabilities: those of y are 0 or 1."""
        return member_quantiles(self.parameters(outputs), levels)

    def sample(self, parameters, generator):
        return (generator.uniform(size=parameters.shape) < parameters).astype(parameters.dtype)

    def log_likelihood(self, outputs, y):
        return _of_answers(*self._log_yes_no(outputs), y)

    def log_density(self, outputs, y):
        """Of each unit by itself, shape `(batch, ..., units)`."""
        return _of_answers(*map(log_mean_exp, self._log_yes_no(outputs)), self.aligned(y, outputs))

    def _log_yes_no(self, outputs):
        if self.output == "binary_logits":
            return ops.log_sigmoid(outputs), ops.log_sigmoid(-outputs)
        return ops.log(outputs), ops.log(1 - outputs)

    def fisher_scores(self, outputs, draws):
        p = self.parameters(outputs)
        p = ops.clip(p, keras.backend.epsilon(), 1 - keras.backend.epsilon())
        root = ops.sqrt(p * (1 - p))
        return root * draws if self.output == "binary_logits" else draws / root

    def check(self, parameters):
        if self.output == "binary_probabilities":
            check_probabilities(parameters, self.output)

    def check_labels(self, y):
        check_whole_labels(y)

    def component(self, parameters, tfp):
        return tfp.distributions.Bernoulli(probs=parameters, dtype="float32")

    def report(self, parameters, y, outside=None):
        """All units are examples of the classes no and yes."""
        labels = np.asarray(y).reshape(-1).astype(int)
        return report_of_classes(
            _no_and_yes(parameters), labels, None if outside is None else _no_and_yes(outside)
        )


def _of_answers(log_yes, log_no, y):
    return times_log(y, log_yes) + times_log(1 - y, log_no)


def _no_and_yes(members):
    """NumPy: `(members, ...)` to probabilities `(members, n, 2)`."""
    yes = members.reshape(len(members), -1)
    return np.stack([1 - yes, yes], axis=-1)
