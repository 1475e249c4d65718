"""Priors over weights: log-density and score of each, in `keras.ops`, on every backend.

A prior is given to an optimizer as `prior=`; `None` is the flat prior. A mapping from
patterns of variable paths to priors gives different layers different priors:

>>> prior = {r"embeddings": kl.priors.Normal(0.1), r".*": kl.priors.LayerwiseNormal()}

`describe(model)` shows which prior each variable has.
"""

from keras_langevin.priors.densities import (
    Flat,
    HierarchicalNormal,
    Laplace,
    Normal,
    StudentT,
)
from keras_langevin.priors.describe import describe
from keras_langevin.priors.fan_in import FanInNormal, LayerwiseNormal
from keras_langevin.priors.patterns import ByPattern, get
from keras_langevin.priors.prior import Prior
from keras_langevin.priors.tensorflow_probability import TFPDistribution

__all__ = [
    "ByPattern",
    "FanInNormal",
    "Flat",
    "HierarchicalNormal",
    "Laplace",
    "LayerwiseNormal",
    "Normal",
    "Prior",
    "StudentT",
    "TFPDistribution",
    "describe",
    "get",
]
