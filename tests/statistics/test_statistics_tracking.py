"""A tracked model is the user's model: it trains, saves and shows what it did before."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers, ops
from targets.another_process import run_python
from targets.statistics_cases import BACKEND, Descent, errors, fit_once, measured, randomize

import keras_langevin as kl
from keras_langevin import keras_internals, statistics
from keras_langevin.statistics.reference import per_example_statistics
from keras_langevin.weights import is_statistic, parameters


def make_model(dtype=None):
    model = keras.Sequential(
        [
            keras.Input((6, 2)),
            layers.Conv1D(3, 2, activation="tanh", dtype=dtype),
            layers.Flatten(),
            layers.Dense(2, dtype=dtype),
        ]
    )
    randomize(model)
    return model


def make_data(batch=8):
    rng = np.random.default_rng(1)
    x = rng.normal(1.0, 0.7, (batch, 6, 2)).astype("float32")
    return x, rng.normal(size=(batch, 2)).astype("float32")


def tracked(optimizer=None, **kwargs):
    model = make_model(**kwargs)
    if optimizer is None:
        optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer, loss="mse", jit_compile=JIT_IF_NEEDED)
    asks = isinstance(keras_internals.inner_optimizer(model.optimizer), Descent)
    statistics.track_statistics(model, model.optimizer if asks else Descent(0.1))
    return model


def weights_of(model):
    return [ops.convert_to_numpy(v) for v in parameters(model)]


# ----------------------------------------------------------------- what is refused


def test_model_without_weights_is_refused():
    optimizer = Descent(0.1)
    with pytest.raises(ValueError, match=r"only in a built model.*keras.Input"):
        statistics.track_statistics(keras.Sequential([layers.Dense(2)]), optimizer)


def test_unknown_spatial_is_refused():
    with pytest.raises(ValueError, match=r"`spatial` must be one of.*spatial='both'"):
        statistics.track_statistics(make_model(), Descent(0.1), spatial="both")


def test_variable_shared_between_layers_is_refused():
    inputs = keras.Input((3,))
    first, second = layers.Dense(3, name="first"), layers.Dense(3, name="second")
    model = keras.Model(inputs, second(first(inputs)))
    second._tracker.unlock()
    second._kernel = first._kernel
    with pytest.raises(ValueError, match="shared between the layers 'first' and 'second'"):
        statistics.track_statistics(model, Descent(0.1))


def test_optimizer_without_statistics_changes_nothing():
    model = make_model()
    assert statistics.track_statistics(model, keras.optimizers.SGD(0.1)) is model
    assert not statistics.is_tracked(model)


# ------------------------------------------------------------ the model stays itself


@pytest.mark.backend
def test_presents_itself_as_before(tmp_path, capsys):
    plain, model = make_model(), tracked()
    plain.compile("sgd", "mse")
    assert statistics.is_tracked(model)
    assert len(model.trainable_variables) > len(plain.trainable_variables)
    assert model.count_params() == plain.count_params()
    for ours, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    model.set_weights([2 * w for w in plain.get_weights()])
    np.testing.assert_array_equal(weights_of(model)[0], 2 * plain.get_weights()[0])
    lines = []
    model.summary(print_fn=lines.append)
    assert f"{plain.count_params()} (" in lines[0]

    x, _ = make_data()
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(model)
    clone.compile("sgd", "mse")
    assert not any(map(is_statistic, clone.variables))
    clone.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(clone.predict(x, verbose=0), expected, rtol=1e-6)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-6)
    plain.save_weights(tmp_path / "plain.weights.h5")
    model.load_weights(tmp_path / "plain.weights.h5")
    np.testing.assert_array_equal(weights_of(model)[0], plain.get_weights()[0])
    assert statistics.is_tracked(model)


@pytest.mark.backend
@pytest.mark.skipif(BACKEND != "tensorflow", reason="a SavedModel holds TensorFlow's graph")
def test_export_holds_no_statistics(tmp_path):
    import tensorflow as tf

    model = tracked()
    x, y = make_data()
    fit_once(model, x, y)
    model.export(str(tmp_path / "served"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(x), model.predict(x, verbose=0), rtol=1e-5)
    names = [v.name for v in served.variables]
    assert not any("moment" in name or "shift" in name for name in names)


def test_untracked_model_is_the_one_before():
    model = make_model()
    ids = [id(v) for v in model.trainable_variables]
    model.compile(keras.optimizers.Adam(0.1), loss="mse", jit_compile=JIT_IF_NEEDED)
    x, y = make_data()
    statistics.track_statistics(model, Descent(0.1))
    fit_once(model, x, y)
    statistics.untrack_statistics(model)
    assert [id(v) for v in model.trainable_variables] == ids
    assert all("call" not in layer.__dict__ for layer in model.layers)
    assert not {"save", "summary", "compute_loss"} & model.__dict__.keys()
    fit_once(model, x, y)


def test_tracking_twice_is_idempotent_and_other_wishes_track_anew():
    model = tracked(Descent(0.1))
    variables = model.trainable_variables
    statistics.track_statistics(model, model.optimizer)
    assert [id(v) for v in model.trainable_variables] == [id(v) for v in variables]
    statistics.track_statistics(model, model.optimizer, spatial="exact")
    assert len(model.trainable_variables) == len(variables)
    assert not {id(v) for v in variables if is_statistic(v)} & {
        id(v) for v in model.trainable_variables
    }
    x, y = make_data()
    fit_once(model, x, y)
    model.optimizer.learning_rate = 0.0
    model.optimizer.statistics = "diagonal"
    statistics.track_statistics(model, model.optimizer, spatial="independent")
    assert not any("cross" in v.name for v in model.trainable_variables)
    fit_once(model, x, y)
    expected = per_example_statistics(model, x, y)
    for kinds in expected.values():
        kinds.pop("cross_moment")
    assert max(errors(measured(model), expected).values()) < 1e-5


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_stock_optimizer_trains_as_without_probes(name):
    x, y = make_data(32)
    results = []
    for has_probes in (False, True):
        model = make_model()
        model.compile(getattr(keras.optimizers, name)(0.05), loss="mse", jit_compile=JIT_IF_NEEDED)
        if has_probes:
            statistics.track_statistics(model, Descent(0.1))
        assert statistics.is_tracked(model) == has_probes
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        results.append(weights_of(model))
    for plain, with_probes in zip(*results, strict=True):
        np.testing.assert_allclose(with_probes, plain, rtol=1e-6, atol=1e-7)


def test_checkpoints_during_fit(tmp_path):
    model = tracked()
    x, y = make_data()
    whole = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    only = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[whole, only])
    loaded = keras.models.load_model(tmp_path / "2.keras", compile=False)
    for ours, theirs in zip(weights_of(model), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    plain = make_model()
    plain.compile("sgd", "mse")
    plain.load_weights(tmp_path / "2.weights.h5")
    for ours, theirs in zip(weights_of(model), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert max(abs(ops.convert_to_numpy(v)).max() for v in model.trainable_variables[:2]) > 0


WITHOUT_PACKAGE = """
    import sys

    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "keras_langevin":
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Block())
    import keras, numpy as np

    folder = sys.argv[1]
    x, expected = np.load(folder + "/x.npy"), np.load(folder + "/expected.npy")
    model = keras.models.load_model(folder + "/model.keras")  # with its stock optimizer
    assert model.optimizer.iterations == 1
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5)
    model.fit(x, expected, verbose=0)
    model.load_weights(folder + "/model.weights.h5")
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5)
    assert "keras_langevin" not in sys.modules
"""


@pytest.mark.law
def test_saved_files_load_where_the_package_is_missing(tmp_path):
    optimizer = keras.optimizers.Adam(0.05)
    model = tracked(optimizer)
    x, y = make_data()
    fit_once(model, x, y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "expected.npy", model.predict(x, verbose=0))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    run_python(WITHOUT_PACKAGE, tmp_path)


# --------------------------------------------- accumulation, loss scaling, replicas


@pytest.mark.backend
def test_joint_step_keeps_statistics():
    model = tracked(Descent(0.0))
    x, y = make_data()
    fit_once(model, x, y)
    fit_once(model, x, y)
    assert max(errors(measured(model), per_example_statistics(model, x, y)).values()) < 1e-5


def test_accumulated_statistics_are_those_of_the_whole_batch():
    model = tracked(Descent(0.0, gradient_accumulation_steps=4))
    x, y = make_data(16)
    x[:8] += 1.0  # micro-batches with other means
    expected = per_example_statistics(model, x, y)
    for _ in range(2):  # the second window has a shift
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
        assert max(errors(measured(model), expected).values()) < 1e-5


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param("mixed_float16", marks=pytest.mark.backend),
        pytest.param("mixed_bfloat16", marks=pytest.mark.law),
    ],
)
def test_half_precision_measures_the_same(policy):
    x, y = make_data()
    optimizer = Descent(0.0)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**10)
    model = tracked(optimizer, dtype=policy)
    for _ in range(2):
        fit_once(model, x, y)
    single = make_model()
    single.compile(loss="mse")
    expected = per_example_statistics(single, x, y)
    value = measured(model)
    value = dict(zip(expected, value.values(), strict=True))
    assert max(errors(value, expected).values()) < 2e-2


REPLICAS = """
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    from test_statistics_tracking import *

    x, y = make_data()
    with strategy.scope():
        model = make_model()
        optimizer = Descent(0.0)
        model.compile(optimizer, loss="mse", jit_compile=False)
    statistics.track_statistics(model, optimizer)
    for _ in range(2):
        fit_once(model, x, y)
    value = measured(model)
    single = make_model()
    single.compile(loss="mse")
    expected = per_example_statistics(single, x, y)
    value = dict(zip(expected, value.values(), strict=True))
    assert strategy.num_replicas_in_sync == 2
    print(max(errors(value, expected).values()))
"""


@pytest.mark.law
@pytest.mark.backend
@pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
def test_replicas_measure_their_common_batch():
    assert float(run_python(REPLICAS)) < 1e-5


@pytest.mark.parametrize(
    "sampler", [kl.QDOPLangevin, pytest.param(kl.BNPLangevin, marks=pytest.mark.law)]
)
def test_a_diverged_run_leaves_nothing_behind(sampler):
    """Weights reset and the model compiled anew: its statistics must not stay NaN."""
    x = np.random.default_rng(0).normal(1.0, 1.0, size=(64, 4)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    )
    weights = model.get_weights()
    losses = []
    for learning_rate in (1e9, 1e-3):
        model.set_weights(weights)
        optimizer = sampler(learning_rate, num_data=64, seed=1)
        model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
        kl.track_statistics(model, optimizer)
        losses.append(model.fit(x, y, 16, epochs=5, verbose=0).history["loss"][-1])
    assert not losses[0] < 1e6  # huge or NaN: of its steps those that are finite are taken
    assert losses[1] < 1e3
