"""Every public callable takes what it says, and refuses all else in words of its own: no traceback
of NumPy or Keras, no silence, nothing that fails later."""

import decimal
import fractions
import functools
import inspect
import json
import pathlib
import re
import warnings

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as array_strategies
from keras import ops
from targets.public_api_cases import CALLS, MADE_BY_THE_PACKAGE, data, ensemble, public_names

import keras_langevin as kl
from keras_langevin import arguments
from keras_langevin.predictive import Bernoulli, Categorical, Gaussian

PACKAGE = str(pathlib.Path(kl.__file__).parent)
QUICK, QUICK_HEAVY = 15, 2


def examples(count):
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# ----------------------------------------------------------------------------- the engine


def wrong_with(function, arguments, errors=(), then=lambda result: None):
    """What is wrong with how a call ends, in words; None if it succeeds, or is refused as it
    should be: by a `ValueError` of this package that says what it has received."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)  # NumPy's, of overflow and the like
            then(function(**arguments))
    except ValueError as error:
        if not str(pathlib.Path(innermost_file(error))).startswith(PACKAGE):
            return f"{type(error).__name__} from {innermost_file(error)}: {error}"
        if "Received" not in str(error):
            return f"does not say what it received: {error}"
    except errors:
        return None
    except Exception as error:
        return f"{type(error).__name__} from {innermost_file(error)}: {error}"
    return None


def innermost_file(error):
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename


# ------------------------------------------------------- what must work after construction


def look_after(made):
    """What was made is saved and made again; a sampler takes a step that ends in finite weights."""
    if isinstance(made, keras.optimizers.Optimizer):
        assert_same_config(made)
        take_a_step(made)
    elif hasattr(made, "get_config") and not isinstance(made, keras.Model):
        assert_same_config(made)


def assert_same_config(made):
    if isinstance(made, kl.priors.TFPDistribution):
        return
    config = made.get_config()
    assert type(made).from_config(made.get_config()).get_config() == config
    json.dumps(keras.saving.serialize_keras_object(made))


def take_a_step(optimizer):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    if not optimizer.has_learning_rate:
        optimizer.learning_rate = 0.01
    kl.track_statistics(model, optimizer)
    if hasattr(optimizer.preconditioner, "set_data"):
        optimizer.preconditioner.set_data(data()["x"], data()["y"])
    variables = model.trainable_variables
    optimizer.build(variables)
    optimizer.apply([ops.ones(v.shape) for v in variables], variables)
    assert all(np.isfinite(ops.convert_to_numpy(v)).all() for v in model.weights)


# --------------------------------------------------------------------------- hostile values

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


def run_hostile(name, count):
    call = CALLS[name]

    @examples(count)
    @given(hostile_arguments(call))
    def run(arguments):
        problem = wrong_with(call.function(name), arguments, call.errors, then=look_after)
        assert problem is None, problem

    run()


NAMES = [name for name, call in CALLS.items() if call.valid is not dict]


@pytest.mark.parametrize("name", NAMES)
def test_hostile_arguments(name):
    run_hostile(name, QUICK_HEAVY if CALLS[name].is_heavy else QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_hostile_arguments(name):
    run_hostile(name, 10 * (QUICK_HEAVY if CALLS[name].is_heavy else QUICK))


class Forgetful(kl.priors.Normal):
    def get_config(self):
        return {"stddev": self.stddev, "mean": self.mean + 1}


class Diverging(kl.SGLD):
    def settle(self, results):
        return [(variable, value * np.nan) for variable, value in results]


@pytest.mark.parametrize(
    ("function", "words"),
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
        (lambda x: Diverging(0.1, 10), "AssertionError"),
    ],
)
def test_mutants_are_seen(function, words):
    """Callables that take everything, and fail in ways of others or later."""
    assert re.search(words, wrong_with(function, {"x": "no"}, then=look_after))


def test_a_right_refusal_and_a_right_success_are_seen():
    assert wrong_with(kl.priors.Normal, {"stddev": "no"}, then=look_after) is None
    assert wrong_with(kl.priors.Normal, {"stddev": 2.0}, then=look_after) is None


# ------------------------------------------------------------------- what the table promises


def test_the_table_names_everything_public():
    assert {name for name in CALLS if attribute(name)} == set(public_names()) - MADE_BY_THE_PACKAGE


def attribute(name):
    """Whether it stands in an `__all__`, and is no method."""
    owner = name.rpartition(".")[0]
    return not owner or owner.islower()


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_is_in_the_table(name):
    call = CALLS[name]
    parameters = inspect.signature(call.function(name)).parameters.values()
    named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    assert named - {"self"} <= set(call.valid()) | set(call.left_to_keras)


@pytest.mark.parametrize("name", CALLS)
def test_valid_arguments_are_taken(name):
    call = CALLS[name]
    if call.needs_tensorflow and keras.backend.backend() != "tensorflow":
        pytest.skip("on TensorFlow only")
    look_after(call.function(name)(**call.valid()))


@pytest.mark.parametrize("name", CALLS)
def test_unknown_and_missing_arguments_are_a_type_error(name):
    call = CALLS[name]
    function = call.function(name)
    with pytest.raises(TypeError, match=r"unexpected keyword|takes no arguments"):
        function(**call.valid(), no_such_argument=1)
    required = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    for one in required:
        with pytest.raises(TypeError, match="missing 1 required"):
            function(**{key: value for key, value in call.valid().items() if key != one})


# What no argument takes whose valid value is of that type.
OF_ANOTHER_TYPE = {
    bool: ["no", "", 0, 1, 1.0, np.array(True), [True]],
    int: [True, "1", 1.5, np.nan, np.array([1, 2]), [1], 2**70 + 0.5, 1j],
    float: [True, "1", np.nan, -np.inf, np.array([1.0, 2.0]), [1.0], 1j, 10**400],
    str: [True, 1, 1.5, b"x", ["x"], np.array(["x", "y"])],
    np.ndarray: ["abc", {"a": 1}, [[1], [1, 2]], np.array([{}]), np.array(["x", "y"]), 1j],
}


@pytest.mark.parametrize("name", NAMES)
def test_values_of_another_type_are_refused(name):
    """None of them in silence, and None only where it is the default."""
    call = CALLS[name]
    function, valid = call.function(name), call.valid()
    parameters = inspect.signature(function).parameters
    for argument, value in valid.items():
        wrong = list(OF_ANOTHER_TYPE.get(type(value), []))
        default = parameters[argument].default if argument in parameters else None
        if default is not None and wrong:
            wrong.append(None)
        for one in wrong:
            if isinstance(as_scalar(one), call.takes.get(argument, ())):
                continue
            with pytest.raises(ValueError, match="Received"):
                function(**{**call.valid(), argument: one})
                pytest.fail(f"{name}({argument}={one!r}) is accepted")


@pytest.mark.parametrize(
    "wrong",
    [{"training_data": 1}, {"batch_size": 0}, {"model": "m"}, {"html": 3}, {"verbose": "yes"}],
)
def test_a_report_refuses_before_it_computes(wrong):
    with pytest.raises(ValueError, match="Received"):
        ensemble().report(object(), object(), **wrong)


def as_scalar(value):
    return value.flat[0] if isinstance(value, np.ndarray) else value


# ------------------------------------------------------------- properties of valid random input


@st.composite
def predicted(draw):
    """Probabilities and labels."""
    count, classes = draw(st.integers(1, 20)), draw(st.integers(2, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    sharpness = draw(st.sampled_from([0.01, 1.0, 100.0]))
    p = generator.dirichlet(np.full(classes, sharpness), count)
    return p, generator.integers(0, classes, count), generator.permutation(count)


@examples(60)
@given(predicted(), st.integers(1, 30), st.sampled_from(["width", "mass"]))
def test_scores_of_classes_stay_in_their_bounds(example, num_bins, binning):
    p, labels, order = example
    error = kl.calibration.expected_calibration_error(p, labels, num_bins, binning)
    curve = kl.calibration.reliability_curve(p, labels, num_bins, binning)
    assert 0 <= error <= 1 + 1e-12
    assert curve.count.sum() == len(p)
    assert 0 <= kl.calibration.brier_score(p, labels) <= 2
    assert 0 <= kl.calibration.accuracy(p, labels) <= 1
    assert kl.calibration.negative_log_likelihood(p, labels) >= 0
    entropy = kl.calibration.predictive_entropy(p)
    assert (entropy >= 0).all() and (entropy <= np.log(p.shape[1]) + 1e-12).all()
    again = kl.calibration.expected_calibration_error(p[order], labels[order], num_bins, binning)
    assert again == pytest.approx(error, abs=1e-12)
    for score in (kl.calibration.brier_score, kl.calibration.accuracy):
        assert score(p[order], labels[order]) == pytest.approx(score(p, labels))


@examples(60)
@given(
    array_strategies.arrays("float64", st.integers(1, 12), elements=st.sampled_from([0, 1, 2.5])),
    array_strategies.arrays("float64", st.integers(1, 12), elements=st.floats(-1e6, 1e6)),
)
def test_auroc_and_its_complement_add_up(one, other):
    auroc = kl.calibration.out_of_distribution_auroc
    assert auroc(one, other) + auroc(other, one) == pytest.approx(1)
    assert auroc(one, one) == pytest.approx(0.5)
    assert 0 <= kl.calibration.out_of_distribution_aupr(one, other) <= 1
    assert 0 <= kl.calibration.false_positive_rate(one, other) <= 1


@examples(60)
@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
)
def test_scores_of_real_numbers_stay_in_their_bounds(members, count, seed, stddev):
    generator = np.random.default_rng(seed)
    mean, y = generator.normal(size=(members, count)), generator.normal(size=count)
    score = kl.calibration.continuous_ranked_probability_score
    assert score(mean, stddev, y) >= -1e-12
    assert score(mean[::-1], stddev, y) == pytest.approx(score(mean, stddev, y))
    pit = kl.calibration.probability_integral_transform(mean, stddev, y)
    assert (pit >= 0).all() and (pit <= 1).all()
    coverage = kl.calibration.interval_coverage_curve(pit)
    assert (np.diff(coverage) >= 0).all() and coverage.min() >= 0 and coverage.max() <= 1
    low, high = y - stddev, y + abs(generator.normal(size=count))
    assert 0 <= kl.calibration.interval_coverage(low, high, mean[0]) <= 1
    assert kl.calibration.interval_coverage(low, high, y) == 1


def run_uncertainties(count):
    """On the families themselves, which `predict_uncertainty` calls."""

    @examples(count)
    @given(
        st.sampled_from([Categorical("logits"), Bernoulli("binary_logits"), Gaussian(0.5)]),
        st.integers(1, 4),
        st.integers(1, 3),
        st.integers(2, 4),
        st.integers(0, 2**32),
    )
    def run(family, members, count, units, seed):
        outputs = np.random.default_rng(seed).normal(0, 3, (members, count, units))
        outputs = ops.convert_to_tensor(outputs, "float32")
        found = family.uncertainty(outputs, (0.1, 0.5, 0.9))
        found = {key: ops.convert_to_numpy(value) for key, value in found.items()}
        assert (np.diff(found["quantiles"], axis=0) >= -1e-6).all()
        assert (found["epistemic"] >= 0).all() and (found["aleatoric"] >= 0).all()
        parts = found["aleatoric"] + found["epistemic"]
        np.testing.assert_allclose(found["total"], parts, rtol=1e-4, atol=1e-5)
        if members == 1:
            np.testing.assert_allclose(found["epistemic"], 0, atol=1e-5)
        if isinstance(family, Categorical):
            np.testing.assert_allclose(found["mean"].sum(axis=-1), 1, rtol=1e-5)
            assert (found["total"] <= np.log(units) + 1e-5).all()

    run()


def test_uncertainties_of_random_ensembles():
    run_uncertainties(3)


@pytest.mark.slow
def test_uncertainties_of_many_random_ensembles():
    run_uncertainties(50)
