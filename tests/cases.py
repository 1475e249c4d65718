"""One row a sampler: what `tests/` runs for each. A new sampler adds a row.

Lists of samplers elsewhere in the tests are views of this table, and what is peculiar to a sampler
is a field of its row.
"""

import dataclasses
from collections.abc import Callable

import keras
import pytest

import keras_langevin as kl

# `jit_compile` where compiling is not the point: TensorFlow is faster without for a few steps.
JIT_IF_NEEDED = keras.backend.backend() == "jax"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Arguments, and the steps between two draws that are then independent."""

    arguments: dict
    steps: int = 120


@dataclasses.dataclass(frozen=True)
class Case:
    """A sampler as the tests make it.

    Attributes:
        arguments: Of every instance.
        metric: Makes the `preconditioner`, where the sampler takes one.
        variants: Other arguments, and perhaps another metric, that the tests of faults and files
            run too.
        stands_for_others: Whether it runs in the quick tier where one of a kind is enough.
        inverse_without_data: The diagonal of C where no gradient arrives, of N and of σ for a
            prior N(0, σ²); None where a step is not −ηC∇G + √(2ηT/N) C^½ ξ.
        noise_without_data: Whether there is noise where no gradient arrives.
        draws_labels: Whether labels are drawn from the model, so that a step depends on the seed
            and on how many backward passes there were, also at T = 0, and needs a likelihood.
        needs_data: Whether the metric is measured on data before the first step.
        learning_rate: Of the tests in which any stable one serves.
        coldest: The lowest temperature it runs at; None where the minibatches set it.
        takes_schedules: Whether the learning rate can be a schedule.
        finds_learning_rate: Whether it can be `"auto"`.
        inverse: Name of the method of `targets.regression.Regression` that gives C at the
            posterior mean.
        frozen: With these arguments the metric stays what the first batch made it.
        calibrations: By name, for the ranks of the truth.
        half_precision: What its law in half precision needs beyond its calibration.
        resumes: Arguments of the run that is stopped and goes on.
        on_replicas: Whether two replicas are compared with one, on good data.
        faults_on_replicas: The part of the data that is made NaN for one of two replicas.
    """

    sampler: type
    arguments: dict = dataclasses.field(default_factory=dict)
    metric: Callable | None = None
    variants: dict = dataclasses.field(default_factory=dict)
    stands_for_others: bool = False
    inverse_without_data: Callable | None = None
    noise_without_data: bool = True
    draws_labels: bool = False
    needs_data: bool = False
    learning_rate: float = 0.1
    coldest: float | None = 0.0
    takes_schedules: bool = True
    finds_learning_rate: bool = True
    inverse: str | None = None
    frozen: dict = dataclasses.field(default_factory=dict)
    calibrations: dict = dataclasses.field(default_factory=dict)
    half_precision: dict = dataclasses.field(default_factory=dict)
    resumes: dict | None = None
    on_replicas: bool = False
    faults_on_replicas: str | None = None
    variant: str = ""

    @property
    def name(self):
        return "-".join(filter(None, (self.sampler.__name__, self.variant)))

    def make(self, learning_rate=None, num_data=100, **kwargs):
        learning_rate = self.learning_rate if learning_rate is None else learning_rate
        own = {} if self.metric is None else {"preconditioner": self.metric()}
        arguments = {**self.arguments, **own, **kwargs}
        return self.sampler(learning_rate, num_data=num_data, **arguments)

    def with_variants(self):
        """Itself and its variants, each as a row."""
        yield self
        for variant, changes in self.variants.items():
            yield dataclasses.replace(self, variant=variant, stands_for_others=False, **changes)


# The metric of BNP without what is added to the variances.
MOMENTS_ALONE = {"relative_epsilon": 0.0, "epsilon": 0.0, "prior_in_metric": False}
HELD = {"averaging": kl.preconditioners.Averaging(freeze_after=1)}
FROZEN = {**HELD, "epsilon": 0.0, "statistics_stride": 1}
OF_MINIBATCHES = {"batch_size": 10, "structure": "quasi_diagonal", "damping": 0.01}
OF_GAUSSIANS = {
    "learning_rate": 0.03,
    "correction": "divergence",
    "noise": "gaussian",
    "structure": "quasi_diagonal",
    "damping": 1e-2,
    "noise_stddev": 1.0,
    "output": "mean",
}


def outer_product(sampler, inverse, **fields):
    return Case(
        sampler,
        {"epsilon": 0.0},
        inverse_without_data=lambda num_data, stddev: num_data * stddev**2,
        inverse=inverse,
        frozen=FROZEN,
        calibrations={sampler.__name__: Calibration({"learning_rate": 0.03})},
        half_precision=HELD,
        **fields,
    )


SAMPLERS = [
    Case(
        kl.SGLD,
        stands_for_others=True,
        inverse_without_data=lambda num_data, stddev: 1.0,
        inverse="identity",
        calibrations={"SGLD": Calibration({"learning_rate": 0.03})},
        resumes={"learning_rate": 0.01},
        on_replicas=True,
        faults_on_replicas="y",
    ),
    Case(
        kl.RMSPropLangevin,
        {"epsilon": 0.01},
        inverse_without_data=lambda num_data, stddev: 0.01**-0.5,
        inverse="rmsprop_inverse",
        frozen={**HELD, "epsilon": 1e-7},
        calibrations={"RMSPropLangevin": Calibration({"learning_rate": 0.01, "epsilon": 0.3}, 150)},
        half_precision=HELD,
        resumes={"learning_rate": 1e-3},
        on_replicas=True,
    ),
    outer_product(kl.DOPLangevin, "diagonal_inverse"),
    outer_product(
        kl.QDOPLangevin,
        "quasi_diagonal_inverse",
        variants={
            "model": {"arguments": {"epsilon": 0.0, "fisher": "model"}, "draws_labels": True}
        },
        stands_for_others=True,
        resumes={"learning_rate": 1e-2},
        on_replicas=True,
        faults_on_replicas="y",
    ),
    Case(
        kl.BNPLangevin,
        MOMENTS_ALONE,
        inverse_without_data=lambda num_data, stddev: 1.0,  # inputs of mean 0 and variance 1
        inverse="batch_normalization_inverse",
        frozen={**HELD, **MOMENTS_ALONE},
        calibrations={"BNPLangevin": Calibration({"learning_rate": 0.03})},
        half_precision=HELD,
        resumes={"learning_rate": 1e-2},
        on_replicas=True,
        faults_on_replicas="x",
    ),
    Case(
        kl.SGHMC,
        {"noise_estimate": "successive_differences"},
        metric=kl.preconditioners.QuasiDiagonalOuterProduct,
        variants={"euler": {"arguments": {"friction": 0.5, "scheme": "euler"}, "metric": None}},
        calibrations={
            "SGHMC, baoab": Calibration(
                {"learning_rate": 0.02, "momentum": 0.8, "scheme": "baoab"}, 60
            ),
            "SGHMC, euler": Calibration(
                {"learning_rate": 0.01, "momentum": 0.8, "scheme": "euler"}, 60
            ),
        },
        resumes={"learning_rate": 0.01, "noise_estimate": "successive_differences"},
        faults_on_replicas="y",
    ),
    Case(
        kl.SMILE,
        {"tuning_steps": 4},
        variants={
            "energy_variance": {"arguments": {"tuning_steps": 4, "tuner": "energy_variance"}}
        },
        learning_rate=0.01,
        coldest=0.01,
        takes_schedules=False,
        finds_learning_rate=False,
        calibrations={"SMILE": Calibration({})},
        half_precision={"learning_rate": 1.0, "tuning_steps": 300, "decoherence_length": 10.0},
        resumes={},
        faults_on_replicas="y",
    ),
    Case(
        kl.NGD,
        OF_MINIBATCHES,
        noise_without_data=False,
        needs_data=True,
        coldest=None,
        finds_learning_rate=False,
    ),
    Case(
        kl.SNGD,
        {"batch_size": 10, "structure": "quasi_diagonal", "damping": 0.01},
        noise_without_data=False,
        needs_data=True,
        coldest=None,
        finds_learning_rate=False,
        calibrations={"SNGD, gaussian": Calibration(OF_GAUSSIANS)},
    ),
]
SAMPLER = {case.sampler.__name__: case for case in SAMPLERS}
LANGEVIN = [case for case in SAMPLERS if case.inverse_without_data]
WITH_VARIANTS = [row for case in SAMPLERS for row in case.with_variants()]
WITHOUT_DATA = [row for row in WITH_VARIANTS if not row.needs_data]


def each(cases=SAMPLERS, quick=(), backend=False):
    """As `case` each of these, long but for the `quick` and those that stand for others.

    Args:
        backend: Whether these also run on TensorFlow in `make test`.
    """
    of_quick = pytest.mark.backend if backend else ()
    rows = []
    for case in cases:
        is_quick = case.stands_for_others or case.name in quick
        rows.append(
            pytest.param(case, id=case.name, marks=of_quick if is_quick else pytest.mark.law)
        )
    return pytest.mark.parametrize("case", rows)


def slow_but_for(*samplers):
    """All Langevin samplers as `case`, long but for these."""
    cases = [
        pytest.param(case, marks=() if case.sampler in samplers else pytest.mark.law)
        for case in LANGEVIN
    ]
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in LANGEVIN])
