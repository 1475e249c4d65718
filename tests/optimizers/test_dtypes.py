"""Inputs and weights of other types than float32: measured as the layer computes, or refused."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers, ops
from targets.statistics_cases import BACKEND, measure, measured, randomize

import keras_langevin as kl
from keras_langevin.weights import is_statistic

N = 16

# Keras on JAX takes 64 bits for 32, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Explicitly requested dtype")


def labels(model, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, *model.output_shape[1:])).astype("float32")


def numbers(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, (N, *shape)).astype("bool")
    return rng.integers(0, 9, (N, *shape)).astype(dtype)


LAYERS = {
    "dense": ((6,), lambda: layers.Dense(2)),
    "convolution": ((5, 4, 2), lambda: layers.Conv2D(3, 2, padding="same")),
    "einsum": ((3, 4), lambda: layers.EinsumDense("abc,cd->ad", 2, bias_axes="d")),
}
WANTED = ("diagonal", "quasi_diagonal", "inputs")


def make_model(case, dtype):
    shape, make = LAYERS[case]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape, dtype=dtype), make()])
    randomize(model)
    return model


# The type of the inputs and what is measured of them do not know of each other: one is varied at
# a time.
@pytest.mark.parametrize(
    ("case", "dtype", "wanted"),
    [
        *(("dense", "uint8", wanted) for wanted in WANTED),
        ("dense", "int32", "diagonal"),
        ("dense", "int64", "quasi_diagonal"),
        ("dense", "bool", "inputs"),
        ("convolution", "uint8", "quasi_diagonal"),
        ("einsum", "uint8", "quasi_diagonal"),
        *(
            pytest.param(case, dtype, wanted, marks=pytest.mark.law)
            for case in ("convolution", "einsum")
            for dtype, wanted in (
                ("uint8", "diagonal"),
                ("uint8", "inputs"),
                ("int32", "inputs"),
                ("bool", "diagonal"),
            )
        ),
    ],
)
def test_whole_numbers_are_measured_as_the_numbers_they_are(case, dtype, wanted):
    """Not as numbers of rows: a second moment was off by the size of the inputs."""
    if BACKEND != "jax" and case != "dense":
        pytest.skip("Keras computes such a layer of floats alone, with JAX of all numbers")
    results = []
    for of_type in (dtype, "float32"):
        model = make_model(case, of_type)
        x = numbers(model.input_shape[1:], dtype).astype(of_type)
        results.append(measure(model, x, labels(model), wanted=wanted, steps=1))
    for found, expected in zip(*(r.values() for r in results), strict=True):
        for kind, value in expected.items():
            np.testing.assert_allclose(found[kind], value, rtol=1e-4, atol=1e-5, err_msg=kind)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_rows_are_looked_up_by_integers_of_any_type(dtype):
    results = []
    for of_type in (dtype, "int32"):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((5,), dtype=of_type), layers.Embedding(9, 3), layers.Flatten()]
        )
        x = numbers((5,), "int32").astype(of_type)
        results.append(measure(model, x, labels(model), wanted="diagonal", steps=1))
    for found, expected in zip(*(r.values() for r in results), strict=True):
        np.testing.assert_allclose(found["second_moment"], expected["second_moment"], rtol=1e-5)
        assert (found["second_moment"] > 0).any()


@pytest.mark.parametrize("sampler", [kl.QDOPLangevin, kl.DOPLangevin, kl.BNPLangevin])
def test_a_subclassed_model_that_is_given_pixels(sampler):
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Network()
    x = numbers((6,), "uint8")
    y = np.zeros((N, 2), "float32")
    model(x[:2])
    model.compile(sampler(1e-3, num_data=N, seed=1), "mse", jit_compile=JIT_IF_NEEDED)
    kl.track_statistics(model, model.optimizer)
    model.fit(x, y, batch_size=N, epochs=2, verbose=0)
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.law
def test_one_hot_words_into_a_dense_layer():
    """`StringLookup(output_mode="multi_hot")` gives integers, as do the others of its kind."""
    inputs = keras.Input((3,), dtype="int32")
    hot = layers.CategoryEncoding(num_tokens=5, output_mode="multi_hot")(inputs)
    hot = layers.Lambda(lambda t: ops.cast(t, "int64"))(hot)
    model = keras.Model(inputs, layers.Dense(1)(hot))
    optimizer = kl.QDOPLangevin(num_data=N, seed=1)
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    x = np.random.default_rng(0).integers(0, 5, (N, 3)).astype("int32")
    sampler = kl.PosteriorSampler(burn_in=1)
    model.fit(x, labels(model), batch_size=N, epochs=2, verbose=0, callbacks=[sampler])
    assert np.isfinite(sampler.ensemble().predict(x, verbose=0)).all()


# -------------------------------------------------------------------------------------- sparse


def sparse_data(rows=N, columns=12):
    import scipy.sparse

    return scipy.sparse.random(
        rows, columns, density=0.2, random_state=0, format="csr", dtype="float32"
    )


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no sparse tensors there")
@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        *((N, wanted) for wanted in WANTED),
        pytest.param(80, "quasi_diagonal", marks=pytest.mark.law),
    ],
)
def test_sparse_inputs_are_measured_as_dense_ones(rows, wanted):
    data, results = sparse_data(rows), []
    for is_sparse in (True, False):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((12,), sparse=is_sparse), layers.Dense(3, "tanh"), layers.Dense(2)]
        )
        randomize(model)
        x = data if is_sparse else data.toarray()
        y = np.random.default_rng(1).normal(size=(rows, 2)).astype("float32")
        optimizer = Asking(0.0)
        optimizer.statistics, optimizer.statistics_stride = wanted, None
        model.compile(optimizer, "mse", jit_compile=False)
        kl.track_statistics(model, optimizer)
        model.fit(x, y, batch_size=rows, shuffle=False, verbose=0)
        results.append(measured(model))
    for found, expected in zip(*(r.values() for r in results), strict=True):
        for kind, value in expected.items():
            np.testing.assert_allclose(found[kind], value, rtol=1e-4, atol=1e-6, err_msg=kind)


class Asking(keras.optimizers.SGD):
    """Keras' own, with the attributes that ask for statistics."""


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no sparse tensors there")
@pytest.mark.parametrize("learning_rate", [0.01])
def test_a_sampler_trains_on_sparse_inputs(learning_rate):
    model = keras.Sequential(
        [keras.Input((12,), sparse=True), layers.Dense(3, "tanh"), layers.Dense(1)]
    )
    optimizer = kl.QDOPLangevin(learning_rate, num_data=N, seed=1)
    model.compile(optimizer, "mse", jit_compile=False)
    sampler = kl.PosteriorSampler(burn_in=0)
    y = np.zeros((N, 1), "float32")
    model.fit(sparse_data(), y, batch_size=8, epochs=2, verbose=0, callbacks=[sampler])
    assert len(sampler.samples) == 2
    assert any(is_statistic(v) for v in model.trainable_variables)


# ------------------------------------------------------------------------- double precision


SAMPLERS = {
    "SGLD": lambda rate: kl.SGLD(rate, num_data=N, seed=1),
    "QDOP": lambda rate: kl.QDOPLangevin(rate, num_data=N, seed=1),
    "BNP": lambda rate: kl.BNPLangevin(rate, num_data=N, seed=1),
    "RMSProp": lambda rate: kl.RMSPropLangevin(rate, num_data=N, seed=1),
    "SGHMC": lambda rate: kl.SGHMC(rate, num_data=N, seed=1),
    "SMILE": lambda rate: kl.SMILE(rate, num_data=N, seed=1),
    "NGD": lambda rate: kl.NGD(0.1, num_data=N, batch_size=N // 2, seed=1),
    "SNGD": lambda rate: kl.SNGD(0.1, num_data=N, temperature=1.0, seed=1),
}


@pytest.fixture
def double_precision():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    if BACKEND == "jax":
        import jax

        is_enabled = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", True)
    yield
    keras.config.set_floatx(before)
    if BACKEND == "jax":
        jax.config.update("jax_enable_x64", is_enabled)


@pytest.mark.parametrize(("rate", "loss"), [(0.01, "mse"), ("auto", "binary_crossentropy")])
@pytest.mark.parametrize("name", SAMPLERS)
def test_double_precision_is_refused_before_the_first_step(double_precision, name, rate, loss):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, "sigmoid")])
    before = model.get_weights()
    model.compile(SAMPLERS[name](rate), loss, jit_compile=JIT_IF_NEEDED)
    with pytest.raises(ValueError, match=r"must be float32.*Received: .*float64.*set_floatx"):
        model.fit(
            np.zeros((N, 3)),
            np.zeros((N, 1)),
            verbose=0,
            callbacks=[kl.PosteriorSampler(burn_in=0)],
        )
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_double_precision_is_refused_without_a_callback(double_precision):
    variable = keras.Variable(np.zeros(3))
    with pytest.raises(ValueError, match=r"must be float32.*Received: .*float64"):
        kl.SGLD(0.01, num_data=N).build([variable])


def test_a_layer_of_double_precision_may_be_frozen():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, dtype="float64", trainable=False), layers.Dense(1)]
    )
    model.compile(kl.QDOPLangevin(0.01, num_data=N, seed=1), "mse", jit_compile=JIT_IF_NEEDED)
    sampler = kl.PosteriorSampler(burn_in=0)
    x, y = np.zeros((N, 3)), np.zeros((N, 1))
    model.fit(x, y, batch_size=N, epochs=1, verbose=0, callbacks=[sampler])
    assert len(sampler.samples) == 1
