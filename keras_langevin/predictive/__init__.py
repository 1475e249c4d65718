"""What the outputs of the members of an ensemble mean together: one file per likelihood family.

A family is a small object with the same questions for each likelihood. `outputs` are what the
members returned, shape `(members, batch, ..., units)`:

- `mean(outputs)`: what `predict` averages over members;
- `members(outputs)`: each member's own prediction;
- `uncertainty(outputs, quantiles)`: a dict of tensors;
- `log_density(outputs, y)`: log of the average density, shape `(batch, ...)`;
- `log_densities(outputs, y)`: of each member's density, shape `(members, batch, ...)`;
- `distribution(members)`: the mixture as a TensorFlow Probability distribution;
- `score(outputs, draws)`, for the outputs of one model, shape `(batch, ..., units)`: a root of
  the Fisher information of the outputs, see `fisher_scores.py`.
"""

from keras_langevin.predictive.bernoulli import Bernoulli
from keras_langevin.predictive.categorical import Categorical
from keras_langevin.predictive.fisher_scores import scores
from keras_langevin.predictive.gaussian import Gaussian, HeteroscedasticGaussian
from keras_langevin.predictive.output import (
    at_least_float32,
    checked_meaning,
    resolve_families,
)

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "HeteroscedasticGaussian",
    "at_least_float32",
    "checked_meaning",
    "resolve_families",
    "scores",
]
