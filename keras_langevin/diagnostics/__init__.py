"""Is the learning rate stable, has the chain moved, has it converged?"""

from keras_langevin.diagnostics.convergence import effective_sample_size, r_hat
from keras_langevin.diagnostics.lanczos import Curvature, curvature
from keras_langevin.diagnostics.limits import StepSize, step_size

__all__ = [
    "Curvature",
    "StepSize",
    "curvature",
    "effective_sample_size",
    "r_hat",
    "step_size",
]
