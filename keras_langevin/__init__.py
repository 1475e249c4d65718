"""Keras optimizers that sample the Bayesian posterior of a network, and the ensembles they give.

>>> import keras_langevin as kl
>>> model.compile(optimizer=kl.QDOPLangevin(num_data=len(x)), loss=loss)
>>> sampler = kl.PosteriorSampler(burn_in=5)
>>> model.fit(x, y, epochs=20, callbacks=[sampler])
>>> sampler.ensemble().predict_uncertainty(x_test)
"""

from keras_langevin import (
    calibration,
    diagnostics,
    losses,
    plotting,
    preconditioners,
    predictive,
    priors,
    schedules,
    statistics,
)
from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.learning_rate.automatic import find_learning_rate
from keras_langevin.learning_rate.warm_up import warm_up_metric
from keras_langevin.optimizers import (
    NGD,
    SGHMC,
    SGLD,
    SMILE,
    SNGD,
    BNPLangevin,
    DOPLangevin,
    LangevinOptimizer,
    QDOPLangevin,
    RMSPropLangevin,
    Sampler,
    SamplerProtocol,
)
from keras_langevin.random_batches import RandomBatches
from keras_langevin.sampling.chain_folders import ChainContext
from keras_langevin.sampling.chains import ChainError, sample_chains
from keras_langevin.sampling.monitor import SamplingMonitor
from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.sampling.stop_together import StopTogether
from keras_langevin.sampling.stop_when_enough import StopWhenEnough
from keras_langevin.sampling.temperature_choice import TemperatureChoice, choose_temperature
from keras_langevin.sampling.validation import EnsembleValidation
from keras_langevin.statistics import track_statistics, untrack_statistics
from keras_langevin.statistics.held_normalization import freeze_batch_normalization
from keras_langevin.storage.sample import Sample
from keras_langevin.storage.sample_store import (
    CorruptSampleError,
    SampleStore,
    StorageError,
    WriteConflictError,
)

__version__ = "0.1.0"

__all__ = [
    "NGD",
    "SGHMC",
    "SGLD",
    "SMILE",
    "SNGD",
    "BNPLangevin",
    "BayesianEnsembleModel",
    "ChainContext",
    "ChainError",
    "CorruptSampleError",
    "DOPLangevin",
    "EnsembleValidation",
    "LangevinOptimizer",
    "PosteriorSampler",
    "QDOPLangevin",
    "RMSPropLangevin",
    "RandomBatches",
    "Sample",
    "SampleStore",
    "Sampler",
    "SamplerProtocol",
    "SamplingMonitor",
    "StopTogether",
    "StopWhenEnough",
    "StorageError",
    "TemperatureChoice",
    "WriteConflictError",
    "calibration",
    "choose_temperature",
    "diagnostics",
    "find_learning_rate",
    "freeze_batch_normalization",
    "losses",
    "plotting",
    "preconditioners",
    "predictive",
    "priors",
    "sample_chains",
    "schedules",
    "statistics",
    "track_statistics",
    "untrack_statistics",
    "warm_up_metric",
]
