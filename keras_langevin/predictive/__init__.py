"""What the outputs of the members of an ensemble mean together: one file per likelihood family.

A family says what a likelihood is: parameters from the outputs, log-likelihood, moments, Fisher
scores and what a report tells of it; `Family` lists it all. To add one of your own, write a
subclass with `register_family`:

>>> import keras
>>> import keras_langevin as kl
>>> from keras import ops
>>> class ExponentialNLL(keras.losses.Loss):
...     def call(self, y_true, y_pred):
...         return ops.mean(y_true * ops.exp(-y_pred) + y_pred, axis=-1)
>>> @kl.predictive.register_family(ExponentialNLL)
... class Exponential(kl.predictive.Family):
...     output, meaning = "log_mean_times", "logarithms of mean waiting times"
...     sums_units = False
...     def parameters(self, outputs):
...         return ops.exp(outputs)
...     def mean(self, mean_time):
...         return mean_time
...     def variance(self, mean_time):
...         return mean_time * mean_time
...     def log_likelihood(self, outputs, y):
...         return -y * ops.exp(-outputs) - outputs
...     def cdf(self, mean_time, y):
...         return 1 - ops.exp(-y / mean_time)
...     def fisher_scores(self, outputs, draws):
...         return draws
>>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
>>> model.compile(kl.NGD(0.1, num_data=100, batch_size=10), loss=ExponentialNLL())
"""

# In the order in which errors list the names of outputs.
from keras_langevin.predictive.categorical import Categorical as Categorical  # isort: split

from keras_langevin.predictive.bernoulli import Bernoulli as Bernoulli  # isort: split

from keras_langevin.predictive.gaussian import Gaussian as Gaussian
from keras_langevin.predictive.gaussian import HeteroscedasticGaussian as HeteroscedasticGaussian

# isort: split
from keras_langevin.predictive.laplace import Laplace as Laplace

# isort: split
from keras_langevin.predictive.huber import Huber as Huber

# isort: split
from keras_langevin.predictive.log_cosh import LogCosh as LogCosh

# isort: split
from keras_langevin.predictive.log_normal import LogNormal as LogNormal

# isort: split
from keras_langevin.predictive.poisson import Poisson as Poisson

# isort: split
from keras_langevin.predictive.negative_binomial import NegativeBinomial as NegativeBinomial

# isort: split
from keras_langevin.predictive.student_t import StudentT as StudentT

# isort: split
from keras_langevin.predictive.beta import Beta as Beta

# isort: split
from keras_langevin.predictive.values import Values as Values

# isort: split
from keras_langevin.predictive.family import Family
from keras_langevin.predictive.fisher_scores import scores as scores
from keras_langevin.predictive.output import at_least_float32 as at_least_float32
from keras_langevin.predictive.output import checked_meaning as checked_meaning
from keras_langevin.predictive.output import resolve_families as resolve_families
from keras_langevin.predictive.registry import register_family
from keras_langevin.predictive.unknown_likelihood import (
    warn_of_unknown_likelihood as warn_of_unknown_likelihood,
)
from keras_langevin.special_functions import log_gamma

__all__ = ["Family", "log_gamma", "register_family"]
