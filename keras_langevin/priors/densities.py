"""Priors with one density for every entry of a variable."""

import math

from keras import ops

from keras_langevin.arguments import number, positive_number, width
from keras_langevin.arithmetic import multiply_add
from keras_langevin.priors.prior import Prior, register


@register
class Flat(Prior):
    """p(θ) ∝ 1, what `prior=None` means. Improper: weights that no data reach drift away."""

    def log_density(self, value):
        return ops.zeros((), dtype=value.dtype)

    def score(self, value):
        return ops.zeros_like(value)

    def precision(self, shape):
        return 0.0

    def __str__(self):
        return "flat"


@register
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

    def __str__(self):
        return f"N({self.mean:.3g}, {self.stddev:.3g}^2)"

    def get_config(self):
        return {"stddev": self.stddev, "mean": self.mean}


@register
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


@register
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


@register
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
