"""Posterior samples as one Keras model."""

from keras_langevin.ensemble.model import BayesianEnsembleModel

__all__ = ["BayesianEnsembleModel"]
