"""Yes or no, for each unit by itself."""

import keras
import numpy as np
from keras import ops

from keras_langevin.keras_internals import logits_of, loss_argument
from keras_langevin.predictive.entropy import bernoulli_entropy, times_log
from keras_langevin.predictive.family import Family
from keras_langevin.predictive.label_weights import label_weights
from keras_langevin.predictive.probabilities import away_from_0_and_1, check_probabilities
from keras_langevin.predictive.quality_of_classes import report_of_classes
from keras_langevin.predictive.quantiles import member_quantiles
from keras_langevin.predictive.registry import register_family


@register_family((keras.losses.BinaryCrossentropy, keras.losses.binary_crossentropy), exact=True)
class Bernoulli(Family):
    """Each number of the outputs is about one yes or no; units are separate observations.

    A label between 0 and 1 is a share q of yes, with the density p^q (1 - p)^(1 - q) for each
    member, as in Keras' loss. Probabilities are kept away from 0 and 1 by `keras.config.epsilon()`
    where their logarithm is taken, as there.

    Args:
        output: `"binary_logits"` or `"binary_probabilities"`.
        label_smoothing: As of `keras.losses.BinaryCrossentropy`.
    """

    support = "counts"
    sums_units = False

    def __init__(self, output, label_smoothing=0.0):
        self.output = output
        self.label_smoothing = label_smoothing

    @classmethod
    def choices(cls):
        return {
            "binary_logits": "sigmoid of each number is the probability of a yes",
            "binary_probabilities": "each number is the probability of a yes",
        }

    @classmethod
    def from_name(cls, output, **options):
        return cls(output, **options)

    @classmethod
    def from_loss(cls, loss):
        from_logits = loss_argument(loss, "from_logits", False)
        output = "binary_logits" if from_logits else "binary_probabilities"
        return cls(output, loss_argument(loss, "label_smoothing", 0.0))

    @property
    def options(self):
        return {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}

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
        log_yes, log_no = self._log_yes_no(outputs)
        y = self.smoothed(y)
        return times_log(y, log_yes) + times_log(1 - y, log_no)

    def smoothed(self, y):
        """The labels as the loss takes them."""
        return y * (1 - self.label_smoothing) + 0.5 * self.label_smoothing

    def _log_yes_no(self, outputs):
        logits = outputs if self.output == "binary_logits" else logits_of(outputs)
        if logits is not None:
            return ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
        p = away_from_0_and_1(outputs)
        return ops.log(p), ops.log(1 - p)

    def fisher_scores(self, outputs, draws):
        p = away_from_0_and_1(self.parameters(outputs))
        root = ops.sqrt(p * (1 - p))
        return root * draws if self.output == "binary_logits" else draws / root

    def check(self, parameters):
        if self.output == "binary_probabilities":
            check_probabilities(parameters, self.output)

    def component(self, parameters, tfp):
        return tfp.distributions.Bernoulli(probs=parameters, dtype="float32")

    def report(self, parameters, y, outside=None, weights=None):
        """All units are examples of the classes no and yes."""
        y = ops.convert_to_numpy(self.aligned(y, parameters)).astype("float64")
        return report_of_classes(
            _no_and_yes(parameters),
            _no_and_yes(y[None])[0],
            None if outside is None else _no_and_yes(outside),
            label_weights(weights, y.shape).reshape(-1),
            _no_and_yes(self.smoothed(y)[None])[0],
        )


def _no_and_yes(members):
    """NumPy: `(members, ...)` to probabilities `(members, n, 2)`."""
    yes = members.reshape(len(members), -1)
    return np.stack([1 - yes, yes], axis=-1)
