"""What a sampler stores and logs, what it makes of the model, and what it refuses."""

import contextlib
import csv
import io
import itertools
import re

import keras
import numpy as np
import pytest
from targets.rows import every_row
from targets.sampler_runs import (
    BATCH,
    NUM_DATA,
    FakeLangevin,
    assert_same,
    compiled,
    data,
    fit,
    network,
    plain,
    snapshot,
    with_adam,
)

from keras_langevin.optimizers import DOPLangevin, QDOPLangevin
from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.statistics import is_tracked
from keras_langevin.storage.sample_store import SampleStore
from keras_langevin.weights import is_statistic, named_weights


@pytest.fixture(autouse=True)
def fresh_session():
    """Compiled models live on."""
    keras.utils.set_random_seed(0)


@every_row("unit", ["epoch", "step"])
def test_samples_are_the_weights_of_their_moment(unit):
    """Real copies of changing weights; on JAX the state is fetched during the epoch."""
    model, sampler = plain(), PosteriorSampler(0, unit=unit)
    seen = [snapshot(model)]
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(snapshot(model)))
    fit(model, sampler, 3, callbacks=[after])
    samples = list(sampler.samples)[:: 1 if unit == "epoch" else 5]
    kernels = [sample["net/out/kernel"] for sample in samples]
    assert all(np.abs(a - b).max() > 1e-4 for a, b in itertools.pairwise(kernels))
    assert_same(sampler.samples[-1], seen[-1])
    if unit == "step":
        assert_same(sampler.samples[4], seen[1])
        ends = [s["net/out/bias"][0] for s in sampler.samples]
        assert len(set(ends)) == 15


def test_a_sample_gives_back_the_whole_predictor():
    """The moving averages of BatchNormalization belong to it."""
    model, sampler = compiled(keras.layers.BatchNormalization(name="norm")), PosteriorSampler(0)
    fit(model, sampler, 2)
    x, _ = data()
    expected = model.predict(x, verbose=0)
    assert list(sampler.samples[0]) == [
        "net/norm/gamma",
        "net/norm/beta",
        "net/out/kernel",
        "net/out/bias",
        "net/norm/moving_mean",
        "net/norm/moving_variance",
    ]
    fit(model, PosteriorSampler(0), 3)
    assert np.abs(model.predict(x, verbose=0) - expected).max() > 1e-3
    for name, variable in named_weights(model).items():
        variable.assign(sampler.samples[-1][name])
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


def test_facts_of_a_sample():
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)
    sampler = PosteriorSampler(0, chain=3)
    fit(compiled(optimizer=FakeLangevin(learning_rate=decay)), sampler, 2)
    assert [s.learning_rate for s in sampler.samples] == pytest.approx([0.05, 0.025])
    assert [s.temperature for s in sampler.samples] == [0.5, 0.5]
    assert [s.chain for s in sampler.samples] == [3, 3]


def test_an_optimizer_that_does_not_sample_gives_snapshots():
    sampler = PosteriorSampler(0)
    fit(with_adam(), sampler, 1)
    assert sampler.samples[0].temperature is None
    assert sampler.samples[0].step == 5


def test_bfloat16_weights(tmp_path):
    model = compiled(model=network(dtype="bfloat16"))
    sampler = PosteriorSampler(0, directory=tmp_path / "run")
    fit(model, sampler, 1)
    assert_same(SampleStore.load(tmp_path / "run")[0], snapshot(model))
    assert sampler.samples[0]["net/out/kernel"].dtype.name == "bfloat16"


def test_under_a_loss_scale_optimizer():
    optimizer = keras.optimizers.LossScaleOptimizer(FakeLangevin(learning_rate=0.01))
    sampler = PosteriorSampler(0)
    history = fit(compiled(optimizer=optimizer), sampler, 1)
    assert sampler.samples[0].temperature == 0.5
    assert history.history["step_norm"] == [3.0]


# ---------------------------------------------------------------------------------- logs


def test_logs_reach_the_callbacks_after_it(tmp_path):
    path = tmp_path / "log.csv"
    sampler = PosteriorSampler(1)
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        history = fit(
            compiled(optimizer=FakeLangevin(learning_rate=0.25)),
            sampler,
            3,
            callbacks=[keras.callbacks.CSVLogger(path)],
            verbose=2,
        )
    expected = {
        "num_samples": [0, 1, 2],
        "learning_rate": [0.25] * 3,
        "temperature": [0.5] * 3,
        "step_norm": [3] * 3,
    }
    rows = list(csv.DictReader(path.read_text().splitlines()))
    for key, values in expected.items():
        assert history.history[key] == values, key
        assert all(type(v) is float for v in history.history[key])
        assert [float(row[key]) for row in rows] == values, key
    assert re.search(r"num_samples: 2.*step_norm: 3", screen.getvalue().replace("\n", " "))


def test_logs_of_an_optimizer_without_temperature():
    history = fit(plain(), PosteriorSampler(0), 1).history
    assert history["num_samples"] == [1] and "temperature" not in history


def test_probes_are_installed_and_follow_the_optimizer():
    model, sampler = compiled(optimizer=QDOPLangevin(1e-3, num_data=NUM_DATA)), PosteriorSampler(0)
    fit(model, sampler, 1)
    assert is_tracked(model)
    variables = [id(v) for v in model.trainable_variables]
    fit(model, sampler, 1)
    assert [id(v) for v in model.trainable_variables] == variables
    model.compile(DOPLangevin(1e-3, num_data=NUM_DATA), loss="mse")
    with pytest.raises(ValueError, match="the optimizer is DOPLangevin, stored is QDOPLangevin"):
        fit(model, sampler, 1)
    fit(model, PosteriorSampler(0), 1)
    kinds = {v.statistic.kind for v in model.trainable_variables if is_statistic(v)}
    assert kinds == {"second_moment", "bias_second_moment"}


def test_no_probes_for_an_optimizer_that_needs_none():
    model = plain()
    fit(model, PosteriorSampler(0), 1)
    assert not is_tracked(model)


def test_fit_builds_the_model():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def call(self, x):
            return self.layer(x)

    for model in (Subclassed(), keras.Sequential([keras.layers.Dense(1)])):
        model.compile(optimizer="sgd", loss="mse")
        sampler = PosteriorSampler(0)
        fit(model, sampler, 1)
        assert len(sampler.samples) == 1


@every_row("reduction", ["sum", None, "none"])
@every_row("nested", [False, True])
def test_a_loss_that_is_not_a_mean_is_refused(reduction, nested):
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    model = compiled(optimizer=FakeLangevin(learning_rate=0.01), loss=[loss] if nested else loss)
    with pytest.raises(ValueError, match=f"MEAN.*Received: reduction={reduction!r}"):
        fit(model, PosteriorSampler(0), 1)


def test_a_sum_is_allowed_where_nothing_is_sampled():
    loss = keras.losses.MeanSquaredError(reduction="sum")
    sampler = PosteriorSampler(0)
    with pytest.warns(UserWarning, match="loss=MeanSquaredError and reduction='sum'"):
        fit(compiled(loss=loss), sampler, 1)
    assert len(sampler.samples) == 1


def test_another_model_is_refused_before_it_trains():
    sampler = PosteriorSampler(0)
    fit(plain(), sampler, 1)
    other = compiled(keras.layers.Dense(2, name="more"))
    before = snapshot(other)
    with pytest.raises(ValueError, match=r"'net/more/kernel' is not in the store"):
        fit(other, sampler, 1)
    assert_same(snapshot(other), before)


def test_a_bare_callback_with_steps():
    """Keras would call its batch hook from another thread (not on TensorFlow)."""
    model, sampler = plain(), PosteriorSampler(0, unit="step")
    x, y = data()
    expected = contextlib.nullcontext()
    if keras.backend.backend() != "tensorflow":
        expected = pytest.raises(ValueError, match=r"callbacks=\[sampler\]")
    with expected:
        model.fit(x, y, callbacks=sampler, verbose=0, batch_size=BATCH)
    sampler = PosteriorSampler(0)
    plain().fit(x, y, callbacks=sampler, verbose=0, batch_size=BATCH)
    assert len(sampler.samples) == 1


@every_row(
    "arguments",
    [
        {"burn_in": -1},
        {"burn_in": True},
        {"burn_in": 1.0},
        {"thinning": 0},
        {"thinning": "2"},
        {"unit": "epochs"},
        {"max_samples": 1},
        {"max_samples": 2.5},
        {"chain": -1},
        {"directory": 3},
        {"directory": ""},
        {"resume": 1},
    ],
)
def test_arguments_are_checked(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=rf"`{name}` must be .*Received: {name}={value!r}\."):
        PosteriorSampler(**{"burn_in": 0, **arguments})


def test_ensemble_of_nothing():
    sampler = PosteriorSampler(5, 2)
    fit(plain(), sampler, 3)
    with pytest.raises(ValueError, match=r"3 epochs seen, burn_in=5, thinning=2.* at epoch 7"):
        sampler.ensemble()


def test_ensemble_of_the_samples():
    model, sampler = plain(), PosteriorSampler(0)
    fit(model, sampler, 2)
    ensemble = sampler.ensemble(name="e")
    assert (ensemble.name, ensemble.num_members) == ("e", 2)
    inputs = np.ones((3, *model.input_shape[1:]), "float32")
    last = np.mean([predict_with(model, sample, inputs) for sample in sampler.samples], axis=0)
    np.testing.assert_allclose(ensemble.predict(inputs, verbose=0), last, rtol=1e-5)


def predict_with(model, sample, inputs):
    for name, variable in named_weights(model).items():
        variable.assign(sample[name])
    return model.predict(inputs, verbose=0)
