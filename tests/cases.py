"""One row a sampler, of what `tests/contract/` runs for each. A new sampler adds a row.

`inverse_without_data` is the diagonal of C where no gradient arrives, for a prior N(0, σ²).
"""

import dataclasses
from collections.abc import Callable

import keras
import pytest

import keras_langevin as kl

# `jit_compile` where compiling is not the point: TensorFlow is faster without for a few steps.
JIT_IF_NEEDED = keras.backend.backend() == "jax"


@dataclasses.dataclass(frozen=True)
class Case:
    sampler: type
    inverse_without_data: Callable
    arguments: dict = dataclasses.field(default_factory=dict)

    def make(self, learning_rate=0.1, num_data=100, **kwargs):
        return self.sampler(learning_rate, num_data=num_data, **{**self.arguments, **kwargs})


# The metric of BNP without what is added to the variances.
MOMENTS_ALONE = {"relative_epsilon": 0.0, "epsilon": 0.0, "prior_in_metric": False}

CASES = [
    Case(kl.SGLD, lambda num_data, stddev: 1.0),
    Case(kl.RMSPropLangevin, lambda num_data, stddev: 0.01**-0.5, {"epsilon": 0.01}),
    Case(kl.DOPLangevin, lambda num_data, stddev: num_data * stddev**2, {"epsilon": 0.0}),
    Case(kl.QDOPLangevin, lambda num_data, stddev: num_data * stddev**2, {"epsilon": 0.0}),
    # For inputs of mean 0 and variance 1.
    Case(kl.BNPLangevin, lambda num_data, stddev: 1.0, MOMENTS_ALONE),
]
CASE_IDS = [case.sampler.__name__ for case in CASES]


def slow_but_for(*samplers):
    """All samplers as `case`, slow but for these."""
    cases = [
        pytest.param(case, marks=() if case.sampler in samplers else pytest.mark.slow)
        for case in CASES
    ]
    return pytest.mark.parametrize("case", cases, ids=CASE_IDS)
