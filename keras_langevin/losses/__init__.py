"""Losses that are exact negative log densities, so that the posterior is well defined."""

from keras_langevin.losses.beta import BetaNLL
from keras_langevin.losses.gaussian import GaussianNLL
from keras_langevin.losses.gaussian import gaussian_log_densities as gaussian_log_densities
from keras_langevin.losses.gaussian import split_mean_and_log_scale as split_mean_and_log_scale
from keras_langevin.losses.negative_binomial import NegativeBinomialNLL
from keras_langevin.losses.student_t import StudentTNLL
from keras_langevin.losses.targets import aligned_targets as aligned_targets
from keras_langevin.losses.targets import check_same_shape as check_same_shape

__all__ = ["BetaNLL", "GaussianNLL", "NegativeBinomialNLL", "StudentTNLL"]
