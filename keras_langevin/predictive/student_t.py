"""Real numbers with the heavy tails of Student's t."""

import math

import numpy as np
from keras import ops

from keras_langevin.losses.student_t import (
    StudentTNLL,
    checked_df,
    split_student_t,
    student_t_log_densities,
)
from keras_langevin.predictive.family import Family
from keras_langevin.predictive.guess import best_constant
from keras_langevin.predictive.quantiles import bisected_mixture
from keras_langevin.predictive.registry import register_family
from keras_langevin.special_functions import incomplete_beta, trigamma
from keras_langevin.special_functions.bounds import no_less_than, no_more_than

_LARGE = 30.0  # from here on float32 loses the difference of two trigamma functions


@register_family(StudentTNLL)
class StudentT(Family):
    """The outputs are locations and logarithms of scales, and the last third, where there is no
    `df`, log(ν - 2). The prediction is the location, which is the mean where there is one.

    Args:
        df: As of `kl.losses.StudentTNLL`.
    """

    output = "student_t"
    meaning = "the last axis are locations and log scales of Student's t, of `StudentTNLL`"

    def __init__(self, df=4.0):
        self.df = None if df is None else checked_df(df)

    @classmethod
    def from_loss(cls, loss):
        return cls(loss.df)

    @property
    def options(self):
        return {} if self.df == 4.0 else {"df": self.df}

    def parameters(self, outputs):
        location, log_scale, df = split_student_t(outputs, self.df)
        scale = no_less_than(float(np.finfo("float32").tiny), ops.exp(log_scale))
        return {"location": location, "scale": scale, "df": df}

    def mean(self, parameters):
        return parameters["location"]

    def variance(self, parameters):
        """Infinite where ν <= 2."""
        excess = parameters["df"] - 2
        has_variance = excess > 0
        ratio = parameters["df"] / ops.where(has_variance, excess, ops.ones_like(excess))
        found = ops.square(parameters["scale"]) * ratio
        return ops.where(has_variance, found, ops.full_like(found, float("inf")))

    def log_likelihood(self, outputs, y):
        return student_t_log_densities(y, *split_student_t(outputs, self.df))

    def cdf(self, parameters, y):
        z = (y - parameters["location"]) / parameters["scale"]
        df = parameters["df"] + 0 * z
        square = ops.square(z) / df
        log_1mx = ops.log(square) - ops.log1p(square)
        tail = 0.5 * incomplete_beta(0.5 * df, 0.5 + 0 * df, -ops.log1p(square), log_1mx)
        return ops.where(z < 0, tail, 1 - tail)

    def quantiles(self, outputs, levels):
        """Between those of Cauchy distributions, which have the heaviest tails of all ν >= 1."""
        parameters = self.parameters(outputs)
        location, scale = parameters["location"], parameters["scale"]
        tangents = [math.tan(math.pi * (level - 0.5)) for level in levels]
        own = ops.stack([location + min(t, 0.0) * scale for t in tangents], axis=1)
        other = ops.stack([location + max(t, 0.0) * scale for t in tangents], axis=1)
        bracket = ops.min(own, axis=0), ops.max(other, axis=0)
        return bisected_mixture(self, parameters, levels, bracket)

    def sample(self, parameters, generator):
        drawn = generator.standard_t(parameters["df"])
        return parameters["location"] + parameters["scale"] * drawn

    def fisher_scores(self, outputs, draws):
        """The location is orthogonal to scale and ν; for these a Cholesky root."""
        p = self.parameters(outputs)
        df = p["df"]
        parts = ops.split(draws, 2 if self.df is not None else 3, axis=-1)
        of_location = ops.sqrt((df + 1) / (df + 3)) / p["scale"] * parts[0]
        root = ops.sqrt(2 * df / (df + 3))
        scores = [of_location, root * parts[1]]
        if self.df is None:
            cross = -2 / ((df + 1) * (df + 3)) / root
            rest = ops.sqrt(_information_of_df(df))
            scores.append((df - 2) * (cross * parts[1] + rest * parts[2]))
        return ops.concatenate(scores, axis=-1)

    def guess(self, y):
        y = ops.reshape(y, (-1, y.shape[-1]))
        log_spread = ops.log(no_less_than(1e-20, ops.std(y, axis=0)))
        brackets = [(ops.min(y, axis=0), ops.max(y, axis=0)), (log_spread - 7, log_spread + 1)]
        if self.df is None:
            brackets.append((0 * log_spread - 6, 0 * log_spread + 8))

        def log_likelihood(location, log_scale, log_excess=None):
            df = self.df if log_excess is None else 2 + ops.exp(log_excess)
            return student_t_log_densities(y, location, log_scale, df + 0 * log_scale)

        return best_constant(log_likelihood, brackets)

    def component(self, parameters, tfp):
        student = tfp.distributions.StudentT(
            parameters["df"], parameters["location"], parameters["scale"]
        )
        return tfp.distributions.Independent(student, 1)


def _information_of_df(df):
    """Of ν, less what the unknown scale takes of it: the Schur complement."""
    df = no_more_than(1e6, df)
    small = ops.minimum(df, _LARGE)
    own = 0.25 * (trigamma(0.5 * small) - trigamma(0.5 * small + 0.5))
    own = own - (small + 5) / (2 * small * (small + 1) * (small + 3))
    lost = 2 / (small * (small + 1) * (small + 1) * (small + 3))
    found = no_less_than(0.0, own - lost)
    return ops.where(df < _LARGE, found, 1.5 / (df * df * df * (df + 2)))
