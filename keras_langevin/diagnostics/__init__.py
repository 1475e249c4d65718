"""Is the learning rate stable, has the chain moved, has it converged?"""

from keras_langevin.diagnostics.chain_health import ChainHealth, chain_health
from keras_langevin.diagnostics.convergence import effective_sample_size, r_hat
from keras_langevin.diagnostics.ensemble_size import (
    EnoughMembers,
    RunningLogPredictiveDensity,
    enough_members,
    running_log_predictive_density,
)
from keras_langevin.diagnostics.temperatures import (
    Temperature,
    configurational_temperature,
    kinetic_temperature,
)
from keras_langevin.learning_rate.curvature import Curvature, curvature
from keras_langevin.learning_rate.limits import StepSize, step_size

__all__ = [
    "ChainHealth",
    "Curvature",
    "EnoughMembers",
    "RunningLogPredictiveDensity",
    "StepSize",
    "Temperature",
    "chain_health",
    "configurational_temperature",
    "curvature",
    "effective_sample_size",
    "enough_members",
    "kinetic_temperature",
    "r_hat",
    "running_log_predictive_density",
    "step_size",
]
