"""Functions that `keras.ops` does not have, for every backend."""

from keras_langevin.special_functions.incomplete_beta import incomplete_beta
from keras_langevin.special_functions.log_gamma import log_gamma, log_rising
from keras_langevin.special_functions.trigamma import trigamma

__all__ = ["incomplete_beta", "log_gamma", "log_rising", "trigamma"]
