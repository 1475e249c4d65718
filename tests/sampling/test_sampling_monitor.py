"""What a chain's step size, noise and temperature are, in the logs of `fit`."""

import csv

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED

import keras_langevin as kl
from keras_langevin.learning_rate.curvature import CurvatureProbe
from keras_langevin.learning_rate.limits import measure

N, D, BATCH = 200, 30, 20
NAMES = ("stability_limit", "recommended_learning_rate", "minibatch_noise")


@pytest.fixture
def regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)).astype("float32")
    return x, (x @ rng.normal(size=(D, 1)) + rng.normal(size=(N, 1))).astype("float32")


def linear(optimizer):
    model = keras.Sequential([keras.Input((D,)), keras.layers.Dense(1)])
    model.compile(optimizer, kl.losses.GaussianNLL(1.0), jit_compile=JIT_IF_NEEDED)
    return model


def run(model, data, epochs=40, batch_size=BATCH, more=(), **kwargs):
    sampler = kl.PosteriorSampler(burn_in=epochs // 4)
    callbacks = [sampler, kl.SamplingMonitor(sampler, **kwargs), *more]
    x, y = data
    fit = model.fit(
        x, y, batch_size=batch_size, epochs=epochs, callbacks=callbacks, verbose=0, shuffle=False
    )
    return fit.history


def test_limits_are_those_of_step_size_on_the_same_batches(regression):
    model = linear(kl.SGLD(0.05, num_data=N))
    history = run(model, regression, epochs=2)
    batches = [(*tuple(a[i : i + BATCH] for a in regression), None) for i in range(0, 80, BATCH)]
    found = measure(CurvatureProbe(model), batches)
    logged = [history[name][-1] for name in NAMES]
    expected = found.stability_limit, found.recommended, 0.05 / found.noise_limit
    assert logged == pytest.approx(expected, rel=1e-4)
    assert np.isnan(history["configurational_temperature"]).all()  # too few samples


@pytest.mark.parametrize("temperature", [1.0, pytest.param(0.3, marks=pytest.mark.law)])
def test_temperature_of_a_right_chain(regression, temperature):
    """Full batches: 60 epochs of d = 31 give T within a tenth or two."""
    optimizer = kl.SGLD(0.2, num_data=N, temperature=temperature, seed=1)
    history = run(linear(optimizer), regression, epochs=80, batch_size=N)
    assert history["configurational_temperature"][-1] == pytest.approx(temperature, rel=0.2)


class TwiceTheNoise(kl.SGLD):
    def noise_scale(self, learning_rate):
        return 2.0 * super().noise_scale(learning_rate)


class NoNoise(kl.SGLD):
    def noise_scale(self, learning_rate):
        return 0.1 * super().noise_scale(learning_rate)


@pytest.mark.neutral
@pytest.mark.parametrize(
    ("mutant", "expected", "epochs"),
    [(TwiceTheNoise, 4.0, 80), pytest.param(NoNoise, 0.01, 160, marks=pytest.mark.law)],
)
def test_temperature_of_wrong_noise(regression, mutant, expected, epochs):
    """So cold a chain shows its way in for longer: twice the burn-in."""
    chain = linear(mutant(0.2, num_data=N, seed=1))
    history = run(chain, regression, epochs=epochs, batch_size=N)
    assert history["configurational_temperature"][-1] == pytest.approx(expected, rel=0.3)


@pytest.mark.filterwarnings("ignore:The training loss is:UserWarning")  # of so few steps
def test_it_is_in_the_csv_file_and_measured_every_so_often(regression, tmp_path):
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    averaging = kl.preconditioners.Averaging(freeze_after=None)  # a linear model has one curvature
    model = linear(kl.QDOPLangevin(0.01, num_data=N, averaging=averaging))
    history = run(model, regression, epochs=13, more=[log], every=3)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert {*NAMES, "configurational_temperature", "learning_rate", "temperature"} <= set(rows[0])
    limits = [float(row["stability_limit"]) for row in rows]
    np.testing.assert_allclose(limits, history["stability_limit"], rtol=1e-6)
    changed = [i for i in range(1, 13) if limits[i] != limits[i - 1]]
    assert changed == [3, 6, 9, 12]


@pytest.mark.filterwarnings("ignore:Batches that go through shuffled data")
@pytest.mark.parametrize("sampler", [kl.SMILE, kl.NGD])
def test_samplers_without_a_noise_limit(regression, sampler):
    more = {"batch_size": BATCH} if sampler is kl.NGD else {}
    history = run(linear(sampler(0.01, num_data=N, **more)), regression, epochs=8)
    assert "stability_limit" not in history and "configurational_temperature" in history


def test_it_does_not_touch_the_chain(regression):
    weights = []
    for monitored in (True, False):
        keras.utils.set_random_seed(3)
        model = linear(kl.QDOPLangevin(0.01, num_data=N, seed=5))
        sampler = kl.PosteriorSampler(burn_in=1)
        callbacks = [sampler, kl.SamplingMonitor(sampler)] if monitored else [sampler]
        x, y = regression
        model.fit(x, y, batch_size=BATCH, epochs=7, callbacks=callbacks, verbose=0)
        weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_array_equal(*weights)


def test_misuse_is_named(regression):
    sampler = kl.PosteriorSampler(burn_in=1)
    with pytest.raises(ValueError, match="sampler=3"):
        kl.SamplingMonitor(3)
    with pytest.raises(ValueError, match="every=0"):
        kl.SamplingMonitor(sampler, every=0)
    with pytest.raises(ValueError, match="optimizer of keras_langevin"):
        linear("adam").fit(*regression, callbacks=[kl.SamplingMonitor(sampler)], verbose=0)
