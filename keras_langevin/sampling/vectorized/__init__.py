"""Several chains as one compiled program."""

from keras_langevin.sampling.vectorized.together import run_together

__all__ = ["run_together"]
