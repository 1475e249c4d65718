"""Posterior samples as one Keras model."""

from keras_langevin.ensemble.model import BayesianEnsembleModel
from keras_langevin.ensemble.running import RunningEnsemble

__all__ = ["BayesianEnsembleModel", "RunningEnsemble"]
