"""Fast ways to predict and to store samples give what the slow ways give."""

import contextlib
import tracemalloc
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers
from scipy import special
from targets.restartable import restartable

import keras_langevin as kl
from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.ensemble.stacked_members import StackedMembers
from keras_langevin.storage import training_checkpoint
from keras_langevin.storage.array_file import write_arrays
from keras_langevin.storage.training_checkpoint import TrainingCheckpoint
from keras_langevin.weights import named_weights

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]

RNG = np.random.default_rng(0)
MEMBERS, EXAMPLES = 4, 75
X = RNG.normal(size=(EXAMPLES, 6)).astype("float32")
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def two_outputs(width=8):
    inputs = keras.Input((6,))
    hidden = layers.BatchNormalization()(layers.Dense(width, activation="tanh")(inputs))
    return keras.Model(inputs, [layers.Dense(3)(hidden), layers.Dense(1)(hidden)])


def draw(model):
    """Members far apart, with variances > 0."""
    return [
        {n: RNG.uniform(0.1, 1, v.shape).astype("float32") for n, v in named_weights(model).items()}
        for _ in range(MEMBERS)
    ]


def loop(model, samples, x):
    """The average of the members' means, one member after the other."""
    logits, means = [], []
    for sample in samples:
        for name, variable in named_weights(model).items():
            variable.assign(sample[name])
        outputs = [keras.ops.convert_to_numpy(o) for o in model(x, training=False)]
        logits.append(outputs[0])
        means.append(outputs[1])
    return [special.softmax(logits, -1).mean(0), np.mean(means, 0)]


def ensemble_of(model, samples, **kwargs):
    return BayesianEnsembleModel(
        model, samples, output=["logits", "mean"], noise_stddev=[None, 1.0], **kwargs
    )


def assert_same(predictions, expected):
    for one, other in zip(predictions, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------- prediction


@pytest.fixture(autouse=True)
def fresh_session():
    """The module's ensemble lives on."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def members():
    """A model and its samples."""
    model = two_outputs()
    return model, draw(model)


@pytest.fixture(scope="module")
def at_once(members):
    """The ensemble of all members at once; only read."""
    return ensemble_of(*members)


@pytest.mark.parametrize("member_batch_size", [1, 3])
def test_every_batch_size_gives_what_a_loop_over_members_gives(members, member_batch_size):
    expected = loop(*members, X)
    ensemble = ensemble_of(*members, member_batch_size=member_batch_size)
    for batch_size in (None, 32):
        assert_same(ensemble.predict(X, batch_size, verbose=0), expected)
    assert_same(ensemble.predict(X.astype("float64"), verbose=0), expected)
    assert_same(ensemble.predict(X, steps=3, verbose=0), expected)
    predictions = ensemble.predict_members(X, verbose=0)
    assert predictions[0].shape == (MEMBERS, EXAMPLES, 3)
    assert_same([p.mean(0) for p in predictions], expected)


@pytest.mark.neutral
def test_a_wrong_member_is_noticed(members, monkeypatch):
    expected = loop(*members, X)
    right = StackedMembers._outputs_of
    monkeypatch.setattr(
        StackedMembers,
        "_outputs_of",
        lambda self, inputs, start, size: right(self, inputs, 0, size),
    )
    ensemble = ensemble_of(*members, member_batch_size=1)
    with pytest.raises(AssertionError):
        assert_same(ensemble.predict(X, verbose=0), expected)


def test_evaluate_does_not_depend_on_the_batch_size(at_once):
    y = [RNG.integers(0, 3, EXAMPLES), RNG.normal(size=(EXAMPLES, 1)).astype("float32")]
    losses = [at_once.evaluate(X, y, batch_size=b, verbose=0) for b in (None, 32)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


class CountedCalls:
    """Calls of Keras' own `predict` while it is patched, and the batch sizes it was given."""

    def __init__(self, monkeypatch):
        own = keras.Model.predict
        self.batch_sizes = []

        def predict(model, x, batch_size=None, *args, **kwargs):
            self.batch_sizes.append(batch_size)
            return own(model, x, batch_size, *args, **kwargs)

        monkeypatch.setattr(keras.Model, "predict", predict)


def test_silent_arrays_need_no_data_set(at_once, monkeypatch):
    ensemble = at_once
    expected = [ensemble.predict(X, size) for size in (None, 20)]
    calls = CountedCalls(monkeypatch)
    for size, outputs in zip((None, 20), expected, strict=True):
        for a, b in zip(ensemble.predict(X, size, verbose=0), outputs, strict=True):
            np.testing.assert_array_equal(a, b)
    ensemble.predict_uncertainty(X, verbose=0)
    assert calls.batch_sizes == []
    ensemble.predict(X, verbose=2)
    ensemble.predict(X, callbacks=[keras.callbacks.Callback()], verbose=0)
    ensemble.predict(keras.ops.convert_to_tensor(X), verbose=0)
    assert calls.batch_sizes == [1024] * 3
    calls.batch_sizes.clear()
    ensemble.predict(X, 50, verbose=2)
    ensemble.predict(X, steps=3, verbose=0)
    assert calls.batch_sizes == [50, None]


def test_several_devices_share_the_batches_of_a_data_set(members, monkeypatch):
    ensemble = ensemble_of(*members)
    calls = CountedCalls(monkeypatch)
    if keras.backend.backend() == "jax":
        monkeypatch.setattr(keras.distribution, "distribution", lambda: object())
    elif ON_TENSORFLOW:
        two = SimpleNamespace(num_replicas_in_sync=2)
        monkeypatch.setattr(type(ensemble), "distribute_strategy", two)
        monkeypatch.setattr(keras.Model, "predict", lambda *a: calls.batch_sizes.append(a[2]))
        monkeypatch.setattr(type(ensemble), "_check", lambda *a: None)
    else:
        pytest.skip("torch has one device")
    ensemble.predict(X, verbose=0)
    assert calls.batch_sizes == [1024]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def test_batches_are_large_where_that_takes_little_memory():
    def batch_size(model, samples=None, **kwargs):
        samples = samples or draw(model)
        return BayesianEnsembleModel(model, samples, "logits", **kwargs).default_batch_size()

    def sequential(*stack):
        return keras.Sequential(stack)

    narrow = sequential(keras.Input((8,)), layers.Dense(2))
    assert batch_size(narrow) == 1024
    wide = sequential(keras.Input((8,)), layers.Dense(2**13), layers.Dense(2))
    assert batch_size(wide, member_batch_size=1) == 128
    assert batch_size(wide, member_batch_size=2) == 64
    assert batch_size(wide, member_batch_size=4) == 32
    inside = sequential(keras.Input((8,)), wide, layers.Dense(2))
    assert batch_size(inside, member_batch_size=1) == 128
    many_outputs = sequential(keras.Input((8,)), layers.Dense(2**13))
    assert batch_size(many_outputs, member_batch_size=1) == 32  # 4 members' outputs are kept
    any_length = sequential(keras.Input((None, 8)), layers.Dense(2))
    assert batch_size(any_length) == 32
    subclassed = Subclassed()
    subclassed(X)
    assert batch_size(subclassed) == 32


# ------------------------------------------------------------------------------ memory


@restartable
def wide_model(optimizer):
    model = keras.Sequential([keras.Input((300,)), *[layers.Dense(300) for _ in range(6)]])
    model.compile(optimizer=optimizer, loss="mse", jit_compile=JIT_IF_NEEDED)
    return model


class PeakMemory(contextlib.AbstractContextManager):
    """Most NumPy memory in use inside it, in copies of the model's weights."""

    def __init__(self, model):
        self.size = 4 * model.count_params()

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *error):
        self.copies = tracemalloc.get_traced_memory()[1] / self.size
        tracemalloc.stop()


def peak_of_storing(folder):
    """In a sampler's part of the second step: nothing is done for the first time."""
    model = wide_model("sgd")
    peak = PeakMemory(model)
    before = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: peak.__enter__())
    after = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: peak.__exit__())
    sampler = kl.PosteriorSampler(0, unit="step", directory=folder)
    x = np.ones((2, 300), "float32")
    model.fit(x, x, batch_size=1, callbacks=[before, sampler, after], verbose=0)
    assert len(sampler.samples) == 2
    return peak.copies


def test_storing_a_sample_copies_the_weights_once(tmp_path, monkeypatch):
    assert peak_of_storing(tmp_path / "once") < 1.5
    append = kl.SampleStore.append
    monkeypatch.setattr(
        kl.SampleStore,
        "append",
        lambda store, sample: append(store, kl.Sample(sample, **sample.facts)),
    )
    assert peak_of_storing(tmp_path / "twice") > 1.9


def test_a_checkpoint_is_written_weight_by_weight(tmp_path, monkeypatch):
    model = wide_model(kl.SGHMC(1e-6, num_data=100))
    checkpoint = TrainingCheckpoint(tmp_path)

    def peak():
        with PeakMemory(model) as peak:
            checkpoint.save(model, 1, 1)
        return peak.copies

    peak()
    assert peak() < 0.6
    monkeypatch.setattr(
        training_checkpoint, "write_arrays", lambda path, a: write_arrays(path, list(a))
    )
    assert peak() > 1.9  # weights and momenta
