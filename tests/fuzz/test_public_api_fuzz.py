"""Every public callable takes what it says, and refuses all else in words of its own: no traceback
of NumPy or Keras, no silence, nothing that fails later."""

import decimal
import fractions
import functools
import json
import pathlib
import re

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as array_strategies
from keras import ops
from targets.public_api_cases import CALLS, NAMES
from targets.public_api_engine import look_after, wrong_with
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin import arguments

ODD_NUMBERS = [
    0, 1, -1, 2**31, 2**63, -(10**30), 10**400, 10**5000, 0.0, -0.0, 0.5, 1.5, -1.0, np.nan, np.inf,
    -np.inf, 1e300, -1e300, 1e-30, 5e-324, 1j, True, False, np.float64("nan"), np.float16(0.5),
    np.float32(0.5), np.int8(3), np.uint64(2**63), np.bool_(True), decimal.Decimal("0.5"),
    fractions.Fraction(1, 2),
]  # fmt: skip
ODD_ARRAYS = [
    np.array(1.0), np.array([]), np.zeros((0, 3)), np.zeros((3, 0)), np.array([0.5, np.nan]),
    np.array([1e300, -1e300]), np.array(["a", "b"]), np.array([1, None]), np.array([1j, 2.0]),
    np.array(["2020-01-01"], "datetime64[D]"), np.zeros((2, 2, 2, 2)), np.array([True, False]),
    np.arange(3, dtype="uint8"), np.zeros(3, "float16"), np.ma.masked_array([1.0, 2.0], [0, 1]),
]  # fmt: skip
ODD_OBJECTS = [
    None, "", "no", "auto", "dense", "mean", "mse", "a/b", "\0", "[", b"bytes", [], [None], [1, 2],
    [[1.0], [2.0, 3.0]], [np.zeros(3)], (), (1, 2), (None, None), {}, {"a": 1}, {1: 2, "a": 3},
    set(), object(), int, np.ndarray, keras.layers.Dense, kl.SGLD, range(3), slice(3),
    pathlib.Path("p"),
]  # fmt: skip


@functools.cache
def odd_keras_objects():
    return [
        keras.Input((2,)),
        keras.layers.Dense(1),
        keras.Sequential(),
        keras.optimizers.SGD(),
        keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9),
        keras.Variable(np.ones(2)),
        keras.initializers.Zeros(),
        ops.ones((2, 2)),
        kl.priors.Normal(),
        kl.preconditioners.RMSProp(),
        kl.SampleStore(),
    ]


@functools.cache
def hostile():
    """Bad and odd values of all kinds. No text with a slash: some arguments are folders."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=5)
    shapes = array_strategies.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    dtypes = st.sampled_from(["float64", "float32", "int64", "uint8", "bool", "complex64", "U3"])
    return st.one_of(
        st.sampled_from(ODD_NUMBERS),
        st.sampled_from(ODD_ARRAYS),
        st.sampled_from(ODD_OBJECTS),
        st.deferred(lambda: st.sampled_from(odd_keras_objects())),
        st.builds(lambda: lambda *args: args),
        st.builds(lambda: iter([1])),
        st.integers(-3, 20),
        st.floats(),
        text,
        st.binary(max_size=3),
        array_strategies.arrays(dtypes, shapes),
    )


def spoiled(value):
    """Nearly what is right: a valid array with one thing wrong."""
    if not isinstance(value, np.ndarray):
        return st.nothing()
    rows = value.astype("float64")
    one_off = {place: rows.copy() for place in (np.nan, np.inf, -np.inf, -1.0, 99.0, 0.5, 1e300)}
    for number, array in one_off.items():
        array.flat[0] = number
    shaped = [value[:-1], value[:0], value[None], value[..., None], value.T, value.ravel()[0]]
    typed = [value.astype(kind) for kind in (str, object, complex, "float16", int, bool)]
    return st.sampled_from([*one_off.values(), *shaped, *typed, value.tolist(), -value])


@st.composite
def hostile_arguments(draw, call):
    """Valid ones, of which one or two are hostile."""
    found = call.valid()
    for name in draw(st.lists(st.sampled_from(sorted(found)), min_size=1, max_size=2, unique=True)):
        found[name] = draw(hostile() | spoiled(found[name]))
    return found


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """Neither files in the folder of the tests nor open figures."""
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


def run_hostile(name, count, start=None):
    """Calls with `count` choices of arguments: always the same ones, or those of a seed."""
    call = CALLS[name]

    @settings(
        max_examples=count,
        derandomize=start is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile_arguments(call))
    def run(arguments):
        problem = wrong_with(call.function(name), arguments, call.errors, then=look_after)
        assert problem is None, problem

    run() if start is None else seed(start)(run)()


# One of each kind: what samples, stores, predicts, measures, draws.
REPRESENTATIVE = [
    "SGLD",
    "SGHMC",
    "PosteriorSampler",
    "RandomBatches",
    "BayesianEnsembleModel",
    "Sample",
    "calibration.expected_calibration_error",
    "calibration.continuous_ranked_probability_score",
    "diagnostics.effective_sample_size",
    "plotting.reliability",
    "preconditioners.DiagonalOuterProduct",
    "priors.StudentT",
]


@pytest.mark.neutral
@every_row("name", REPRESENTATIVE)
@every_row("start", range(3))
def test_hostile_arguments(name, start):
    run_hostile(name, 10, start)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", NAMES)
def test_many_hostile_arguments(name):
    run_hostile(name, 20 if CALLS[name].is_heavy else 150)


class Forgetful(kl.priors.Normal):
    def get_config(self):
        return {"stddev": self.stddev, "mean": self.mean + 1}


class Diverging(kl.SGLD):
    def accept(self, results):
        return [(variable, value * np.nan) for variable, value in results]


@every_row(
    "function, words",
    [
        (lambda x: [][1], "IndexError"),
        (lambda x: np.linalg.inv(np.zeros((2, 3))), "LinAlgError from .*numpy"),
        (lambda x: json.loads("{"), "JSONDecodeError from .*json"),
        (lambda x: np.zeros(2) + np.zeros(3), "ValueError from .*fuzz"),
        (lambda x: np.exp(np.array([1e300])), "RuntimeWarning"),
        (lambda x: keras.losses.MeanSquaredError(reduction=x), "ValueError from .*keras"),
        (lambda x: np.asarray(x, dtype="float64"), "ValueError from .*fuzz"),
        (lambda x: arguments.integer("x", 1, at_least=np.zeros(2)), "does not say what"),
        (lambda x: Forgetful(), "AssertionError"),
        (lambda x: Diverging(0.1, num_data=10), "AssertionError"),
    ],
)
def test_mutants_are_seen(function, words):
    """Callables that take everything, and fail in ways of others or later."""
    assert re.search(words, wrong_with(function, {"x": "no"}, then=look_after))


def test_a_right_refusal_and_a_right_success_are_seen():
    assert wrong_with(kl.priors.Normal, {"stddev": "no"}, then=look_after) is None
    assert wrong_with(kl.priors.Normal, {"stddev": 2.0}, then=look_after) is None
