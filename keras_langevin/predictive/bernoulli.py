"""Yes or no, for each unit by itself."""

import math

import keras
import numpy as np
from keras import ops

from keras_langevin.losses import check_same_shape
from keras_langevin.predictive.entropy import (
    bernoulli_entropy,
    entropy_parts,
    log_mean_exp,
    times_log,
)
from keras_langevin.predictive.mixture import equal_mixture, members_before
from keras_langevin.predictive.probabilities import check_probabilities
from keras_langevin.predictive.quantiles import member_quantiles


class Bernoulli:
    """Each number of the outputs is about one yes or no; units are separate observations.

    Args:
        output: `"binary_logits"` or `"binary_probabilities"`.
    """

    noise_stddev = None
    is_discrete = True

    def __init__(self, output):
        self.output = output

    def mean(self, outputs):
        return ops.sigmoid(outputs) if self.output == "binary_logits" else outputs

    members = mean

    def uncertainty(self, outputs, quantiles):
        p = self.members(outputs)
        result = {"mean": ops.mean(p, axis=0), **entropy_parts(p, bernoulli_entropy)}
        if quantiles:
            result["quantiles"] = member_quantiles(p, quantiles)
        return result

    def log_density(self, outputs, y):
        """Of each unit by itself, shape `(batch, ..., units)`."""
        return self._of_answers(*map(log_mean_exp, self._log_yes_no(outputs)), outputs, y)

    def log_densities(self, outputs, y):
        return self._of_answers(*self._log_yes_no(outputs), outputs, y)

    def _log_yes_no(self, outputs):
        if self.output == "binary_logits":
            return ops.log_sigmoid(outputs), ops.log_sigmoid(-outputs)
        return ops.log(outputs), ops.log(1 - outputs)

    def _of_answers(self, log_yes, log_no, outputs, y):
        if len(y.shape) == len(outputs.shape) - 2 and outputs.shape[-1] == 1:
            y = ops.expand_dims(y, -1)
        check_same_shape(y, outputs[0])
        y = ops.cast(y, outputs.dtype)
        return times_log(y, log_yes) + times_log(1 - y, log_no)

    def score(self, outputs, draws):
        """Of the mean loss; see `fisher_scores.py`."""
        p = ops.clip(self.mean(outputs), keras.backend.epsilon(), 1 - keras.backend.epsilon())
        root = ops.sqrt(p * (1 - p))
        scores = root * draws if self.output == "binary_logits" else draws / root
        return scores / math.prod(outputs.shape[1:]) ** 0.5

    def check(self, prediction):
        if self.output == "binary_probabilities":
            check_probabilities(prediction, self.output)

    def flat_classes(self, members, y=None):
        """NumPy: probabilities of no and yes `(members, n, 2)`, labels `(n,)`, all units as
        examples."""
        yes = members.reshape(len(members), -1)
        labels = None if y is None else np.asarray(y).reshape(-1).astype(int)
        return np.stack([1 - yes, yes], axis=-1), labels

    def distribution(self, members, tfp):
        """`members`: NumPy array `(members, batch, ..., units)`."""
        probabilities = members_before(members, event_axes=0)
        return equal_mixture(tfp, tfp.distributions.Bernoulli(probs=probabilities, dtype="float32"))
