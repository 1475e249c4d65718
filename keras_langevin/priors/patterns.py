"""What `prior=` may be, and priors by patterns of variable paths."""

import re

import keras

from keras_langevin.arguments import instance, shorten
from keras_langevin.priors.densities import Flat
from keras_langevin.priors.prior import Prior, register
from keras_langevin.priors.tensorflow_probability import TFPDistribution


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


@register
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
