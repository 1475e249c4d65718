"""Priors over weights: log-density and score of each, in `keras.ops`, on every backend.

A prior is given to an optimizer as `prior=`; `None` is the flat prior. A mapping from
patterns of variable paths to priors gives different layers different priors:

>>> prior = {r"embeddings": kl.priors.Normal(0.1), r".*": kl.priors.FanInNormal(10.0)}
"""

import math
import re

import keras
import numpy as np
from keras import ops

from keras_langevin.arguments import instance, number, positive_number, shorten, width
from keras_langevin.arithmetic import multiply_add

__all__ = [
    "ByPattern",
    "FanInNormal",
    "Flat",
    "HierarchicalNormal",
    "Laplace",
    "Normal",
    "Prior",
    "StudentT",
    "TFPDistribution",
    "get",
]

_register = keras.saving.register_keras_serializable(package="keras_langevin")


class Prior:
    """What a prior must say about one variable (all its entries together).

    `log_density(value)` is a scalar, up to no constant; `score(value)` its gradient, shaped
    as the value; `precision(shape)` a representative curvature -d²log p/dθ² of one entry, a
    float that damps the metric of a preconditioner and must not depend on the value.
    """

    def log_density(self, value):
        raise NotImplementedError

    def score(self, value):
        raise NotImplementedError

    def add_score(self, value, scale, slope):
        """slope + scale · score."""
        return slope + scale * self.score(value)

    def precision(self, shape) -> float:
        raise NotImplementedError

    def for_variable(self, variable):
        """The prior of this variable; priors that depend on its shape return another one."""
        return self

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@_register
class Flat(Prior):
    """p(θ) ∝ 1, what `prior=None` means. Improper: weights that no data reach drift away."""

    def log_density(self, value):
        return ops.zeros((), dtype=value.dtype)

    def score(self, value):
        return ops.zeros_like(value)

    def precision(self, shape):
        return 0.0


@_register
class Normal(Prior):
    """Independent N(mean, stddev²) on every entry.

    Args:
        stddev: Standard deviation, in units of the weight; as every scale here from 1e-18 to
            1e18, so that float32 holds its square.
        mean: Centre.
    """

    def __init__(self, stddev=1.0, mean=0.0):
        self.stddev = width("stddev", stddev)
        self.mean = number("mean", mean)

    def log_density(self, value):
        z = (value - self.mean) / self.stddev
        constant = math.log(self.stddev) + 0.5 * math.log(2 * math.pi)
        return ops.sum(-0.5 * z * z - constant)

    def score(self, value):
        return self._offset(value) * (-1.0 / self.stddev**2)

    def add_score(self, value, scale, slope):
        return multiply_add(-scale / self.stddev**2, self._offset(value), slope)

    def _offset(self, value):
        return value - self.mean if self.mean else value

    def precision(self, shape):
        return 1.0 / self.stddev**2

    def get_config(self):
        return {"stddev": self.stddev, "mean": self.mean}


@_register
class FanInNormal(Prior):
    """N(0, scale / fan_in) on kernels, N(0, bias_stddev²) on vectors (biases, offsets).

    The fan-in is the product of all axes but the last: inputs of a Dense unit, patch size
    times channels of a convolution. A depthwise kernel, told by the name of its layer, sees
    one channel, an embedding row one token. This is the default prior, with scale 10. In the
    MNIST study of `examples/` a 784-100-100-10 network underfits with 5 and does best with 20;
    with a thousand examples or fewer, 2 (as wide as the usual initial weights) is worth a try.

    Args:
        scale: Variance of a kernel's entries times the fan-in.
        bias_stddev: Standard deviation of a vector's entries.
    """

    def __init__(self, scale=10.0, bias_stddev=1.0):
        self.scale = width("scale", scale)
        self.bias_stddev = width("bias_stddev", bias_stddev)

    def for_variable(self, variable):
        return Normal(self._stddev(variable))

    def _stddev(self, variable):
        shape = tuple(variable.shape)
        if len(shape) < 2:
            return self.bias_stddev
        *layers, name = variable.path.split("/")
        inputs = shape[:-1]
        if "depthwise" in "/".join([*layers[-1:], name]):
            inputs = shape[:-2]
        elif name.startswith("embeddings"):
            inputs = ()
        return math.sqrt(self.scale / math.prod(inputs))

    def get_config(self):
        return {"scale": self.scale, "bias_stddev": self.bias_stddev}


@_register
class Laplace(Prior):
    """p(θ) = exp(-|θ - mean| / scale) / (2 scale) on every entry: variance 2 scale².

    Args:
        scale: Mean distance from the centre, in units of the weight.
        mean: Centre.
    """

    def __init__(self, scale=1.0, mean=0.0):
        self.scale = width("scale", scale)
        self.mean = number("mean", mean)

    def log_density(self, value):
        return ops.sum(-ops.abs(value - self.mean) / self.scale - math.log(2 * self.scale))

    def score(self, value):
        return ops.sign(self.mean - value) / self.scale

    def precision(self, shape):
        return 0.5 / self.scale**2  # 1 / variance: the density has no curvature of its own

    def get_config(self):
        return {"scale": self.scale, "mean": self.mean}


@_register
class StudentT(Prior):
    """Student's t with `df` degrees of freedom: heavy tails, a few large weights allowed.

    Args:
        df: Degrees of freedom; 1 is the Cauchy distribution, many are a normal one.
        scale: Width, in units of the weight.
        mean: Centre.
    """

    def __init__(self, df=4.0, scale=1.0, mean=0.0):
        self.df = width("df", df)
        self.scale = width("scale", scale)
        positive_number("df * scale**2", self.df * self.scale**2)
        self.mean = number("mean", mean)

    def log_density(self, value):
        z = (value - self.mean) / self.scale
        constant = (
            math.lgamma((self.df + 1) / 2)
            - math.lgamma(self.df / 2)
            - 0.5 * math.log(self.df * math.pi)
            - math.log(self.scale)
        )
        return ops.sum(constant - 0.5 * (self.df + 1) * ops.log1p(z * z / self.df))

    def score(self, value):
        offset = value - self.mean
        return -(self.df + 1) * offset / (self.df * self.scale**2 + offset * offset)

    def precision(self, shape):
        return (self.df + 1) / (self.df * self.scale**2)  # the curvature at the centre

    def get_config(self):
        return {"df": self.df, "scale": self.scale, "mean": self.mean}


@_register
class HierarchicalNormal(Prior):
    """Normal whose precision, shared by the whole variable, is Gamma(concentration, rate)
    and integrated out: with n entries,

        p(θ) ∝ (rate + ‖θ - mean‖² / 2)^-(n/2 + concentration)

    (Marceau-Caron and Ollivier's released code, with its constructor slips mended). The
    variable learns its own scale; concentration = rate / v² expects precisions near 1/v².

    Args:
        concentration, rate: Of the Gamma distribution, whose mean is concentration / rate.
        mean: Centre.
    """

    def __init__(self, concentration=1.0, rate=1.0, mean=0.0):
        self.concentration = width("concentration", concentration)
        self.rate = width("rate", rate)
        self.mean = number("mean", mean)

    def log_density(self, value):
        n = math.prod(value.shape)
        a, b = self.concentration, self.rate
        offset = value - self.mean
        constant = (
            math.lgamma(n / 2 + a)
            - math.lgamma(a)
            + a * math.log(b)
            - n / 2 * math.log(2 * math.pi)
        )
        return constant - (n / 2 + a) * ops.log(b + 0.5 * ops.sum(offset * offset))

    def score(self, value):
        n = math.prod(value.shape)
        offset = value - self.mean
        rate = self.rate + 0.5 * ops.sum(offset * offset)
        return -(n / 2 + self.concentration) / rate * offset

    def precision(self, shape):
        return self.concentration / self.rate  # the prior mean of the precision

    def get_config(self):
        return {"concentration": self.concentration, "rate": self.rate, "mean": self.mean}


class TFPDistribution(Prior):
    """Any scalar, continuous TensorFlow Probability distribution, applied to every entry.

    Only on the TensorFlow backend, where the score is automatic differentiation. A model
    that holds it cannot be saved with its optimizer, since TFP distributions have no config.

    Args:
        distribution: The distribution of one number, in float32.

    Example:

    >>> prior = kl.priors.TFPDistribution(tfp.distributions.Cauchy(0.0, 1.0))
    """

    def __init__(self, distribution):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "A TensorFlow Probability distribution can be a prior on the TensorFlow backend "
                f"only. Received: {shorten(distribution)} on backend={keras.backend.backend()!r}. "
                "Use one of `kl.priors`, which work on every backend."
            )
        import tensorflow_probability as tfp

        words = "a distribution of TensorFlow Probability in float32"
        instance("distribution", distribution, tfp.distributions.Distribution, words)
        if distribution.dtype != "float32":
            raise ValueError(
                f"`distribution` must be {words}. Received: distribution={distribution!r} of "
                f"dtype={distribution.dtype}. Make it of Python's numbers."
            )
        if tuple(distribution.event_shape) or tuple(distribution.batch_shape):
            raise ValueError(
                "A prior must be a distribution of one number; it is applied to every entry. "
                f"Received: batch_shape={tuple(distribution.batch_shape)}, "
                f"event_shape={tuple(distribution.event_shape)}."
            )
        self.distribution = distribution

    def log_density(self, value):
        return ops.sum(self.distribution.log_prob(value))

    def score(self, value):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(value)
            log_density = self.log_density(value)
        return tape.gradient(log_density, value)

    def precision(self, shape):
        """1 / the square of the standard deviation that a normal distribution with the same
        median distance from the median has: also heavy tails have one."""
        import tensorflow as tf

        with tf.init_scope():  # a number, also where `fit` builds the optimizer in a graph
            draws = self.distribution.sample(9999, seed=(0, 0)).numpy()
        distance = np.median(np.abs(draws - np.median(draws)))
        return float((0.6745 / distance) ** 2)

    def get_config(self):
        raise ValueError(
            "A prior made from a TensorFlow Probability distribution cannot be serialised. "
            f"Received: {self.distribution!r}. Use one of `kl.priors` to save the optimizer."
        )


def get(prior):
    """The prior that the user's `prior=` stands for.

    Args:
        prior: A prior, a mapping from patterns of variable paths to priors, a TensorFlow
            Probability distribution, or None for a flat prior.
    """
    if prior is None:
        return Flat()
    if isinstance(prior, Prior):
        return prior
    if isinstance(prior, dict):
        return ByPattern(prior)
    if hasattr(prior, "log_prob"):
        return TFPDistribution(prior)
    raise ValueError(
        "`prior` must be one of `kl.priors`, a mapping from patterns of variable paths to them, "
        f"a TensorFlow Probability distribution, or None. Received: prior={shorten(prior)}"
    )


def _check_pattern(pattern):
    try:
        re.compile(instance("pattern", pattern, str, "a string"))
    except (ValueError, re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            "The keys of a mapping of priors must be regular expressions for variable paths. "
            f"Received: {shorten(pattern)} ({error}). Use `'.*'` for all variables."
        ) from error


@_register
class ByPattern(Prior):
    """The first pattern (a regular expression searched in the variable's path) decides.

    Args:
        priors: A mapping from patterns to priors.
    """

    def __init__(self, priors):
        if not isinstance(priors, dict) or not priors:
            raise ValueError(
                "`priors` must be a mapping from patterns of variable paths to priors, one at "
                f"least. Received: priors={shorten(priors)}. Use `'.*'` for all variables."
            )
        for pattern in priors:
            _check_pattern(pattern)
        self.priors = {pattern: get(prior) for pattern, prior in priors.items()}

    def for_variable(self, variable):
        for pattern, prior in self.priors.items():
            if re.search(pattern, variable.path):
                return prior.for_variable(variable)
        raise ValueError(
            f"No pattern of the prior matches the variable {variable.path!r}. Received: "
            f"patterns={list(self.priors)}. Add a last entry `'.*': prior` for all others."
        )

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {"priors": {pattern: serialize(p) for pattern, p in self.priors.items()}}

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        return cls({pattern: deserialize(p) for pattern, p in config["priors"].items()})
