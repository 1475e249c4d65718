"""Real numbers with Gaussian noise, known or predicted."""

import math

import numpy as np
from keras import ops

from keras_langevin.losses import (
    check_same_shape,
    gaussian_log_density,
    split_mean_and_log_scale,
)
from keras_langevin.predictive.entropy import log_mean_exp
from keras_langevin.predictive.mixture import equal_mixture, members_before
from keras_langevin.predictive.quantiles import gaussian_mixture_quantiles


class _GaussianFamily:
    """Variances and quantiles of the mixture over members of N(mean, stddev²)."""

    is_discrete = False

    def uncertainty(self, outputs, quantiles):
        """Law of total variance: Var[y] = E[Var[y | member]] + Var[E[y | member]]."""
        mean, stddev = self.moments(outputs)
        average = ops.mean(mean, axis=0)
        aleatoric = ops.mean(ops.square(stddev), axis=0)
        epistemic = ops.mean(ops.square(mean - average), axis=0)
        total = aleatoric + epistemic
        result = {
            "mean": average,
            "total": total,
            "aleatoric": aleatoric,
            "epistemic": epistemic,
            "stddev": ops.sqrt(total),
        }
        if quantiles:
            result["quantiles"] = gaussian_mixture_quantiles(mean, stddev, quantiles)
        return result

    def log_density(self, outputs, y):
        """Of all numbers of the last axis together, shape `(batch, ...)`."""
        return log_mean_exp(self.log_densities(outputs, y))

    def log_densities(self, outputs, y):
        mean, stddev = self.moments(outputs)
        y = ops.cast(y, mean.dtype)
        if len(y.shape) == len(mean.shape) - 2 and mean.shape[-1] == 1:
            y = ops.expand_dims(y, -1)
        check_same_shape(y, mean[0])
        return gaussian_log_density(y, mean, ops.log(stddev))

    def check(self, prediction):
        pass

    def distribution(self, members, tfp):
        """`members`: what `predict_members` gives, NumPy."""
        mean, stddev = self.member_moments(members)
        normal = tfp.distributions.Normal(
            members_before(mean, event_axes=1), members_before(stddev, event_axes=1)
        )
        return equal_mixture(tfp, tfp.distributions.Independent(normal, 1))


class Gaussian(_GaussianFamily):
    """The outputs are means; the noise is known and the same everywhere.

    Args:
        noise_stddev: In the units of y, > 0, or `"mse"`: what the mean squared error stands for.
            N times the mean over an example's d numbers of (y - f)² is the negative log
            likelihood of the variance d / 2.
    """

    output = "mean"

    def __init__(self, noise_stddev):
        self.noise_stddev = noise_stddev

    def mean(self, outputs):
        return outputs

    members = mean

    def moments(self, outputs):
        return outputs, ops.full_like(outputs, self._stddev(outputs))

    def score(self, outputs, draws):
        """Of the mean loss; see `fisher_scores.py`."""
        positions = 1 if self.noise_stddev == "mse" else math.prod(outputs.shape[1:-1])
        return draws / (self._stddev(ops.expand_dims(outputs, 0)) * positions**0.5)

    def member_moments(self, members):
        """NumPy: means and stddevs `(members, batch, ..., d)` of what `predict_members` gives."""
        return members, np.full_like(members, self._stddev(members))

    def _stddev(self, outputs):
        if self.noise_stddev != "mse":
            return self.noise_stddev
        sizes = outputs.shape[2:]
        if any(size is None for size in sizes):
            raise ValueError(
                "The noise that a mean squared error stands for depends on the number of outputs "
                f"of one example, which must be known. Received: outputs of shape {sizes} per "
                "example. Train with `GaussianNLL(stddev=...)` instead."
            )
        return math.sqrt(math.prod(sizes) / 2)


class HeteroscedasticGaussian(_GaussianFamily):
    """The last axis of the outputs are the means and then as many logarithms of stddevs."""

    output = "mean_and_log_scale"
    noise_stddev = None

    def mean(self, outputs):
        return split_mean_and_log_scale(outputs)[0]

    def members(self, outputs):
        mean, stddev = self.moments(outputs)
        return {"mean": mean, "stddev": stddev}

    def moments(self, outputs):
        mean, log_stddev = split_mean_and_log_scale(outputs)
        # A stddev that underflows to 0 would divide by it.
        return mean, ops.maximum(ops.exp(log_stddev), float(np.finfo("float32").tiny))

    def score(self, outputs, draws):
        """Of the mean loss; see `fisher_scores.py`."""
        _, stddev = self.moments(outputs)
        of_mean, of_scale = split_mean_and_log_scale(draws)
        scores = ops.concatenate([of_mean / stddev, 2**0.5 * of_scale], axis=-1)
        return scores / math.prod(outputs.shape[1:-1]) ** 0.5

    def member_moments(self, members):
        """NumPy: means and stddevs `(members, batch, ..., d)` of what `predict_members` gives."""
        return members["mean"], members["stddev"]
