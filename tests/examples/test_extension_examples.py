"""The examples that add something of one's own: each runs, and what it prints is right."""

import tempfile

import keras
import numpy as np
import pytest
from scipy import stats
from targets.example_run import Run

import keras_langevin as kl

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def likelihood():
    return Run("add_a_likelihood")


def test_the_added_likelihood_predicts_counts(likelihood):
    first, last = likelihood.lines["Disasters a year"].split(", ")
    y = likelihood["y"]
    assert float(first.split()[0]) == pytest.approx(y[:30].mean(), abs=0.4)
    assert float(last.split()[0]) == pytest.approx(y[-30:].mean(), abs=0.4)
    assert 70 <= likelihood.number("Inside the 90 % interval") <= 100
    ensemble = likelihood.number("Nats a year")
    assert ensemble <= likelihood.number("Nats a year of members")
    assert ensemble < likelihood.number("Nats a year of guessing") - 0.1
    assert likelihood.number("Nats a year when read again") == ensemble


def test_the_numbers_printed_are_those_of_scipy(likelihood):
    """From the weights of the members, by NumPy and SciPy alone."""
    ensemble, x = likelihood["ensemble"], likelihood["x"].astype("float64")
    y, test = likelihood["y"].astype(int), likelihood["test"]
    weights = [w.astype("float64") for w in ensemble.weights_by_name().values()]
    rate = np.exp(np.tanh(x @ weights[0] + weights[1][:, None]) @ weights[2] + weights[3][:, None])
    density = stats.poisson(rate[:, test]).pmf(y[test])
    assert likelihood.number("Nats a year") == pytest.approx(
        -np.log(density.mean(axis=0)).mean(), abs=1e-3
    )
    assert likelihood.number("Nats a year of members") == pytest.approx(
        -np.log(density).mean(), abs=1e-3
    )
    guess = -stats.poisson(y[test].mean()).logpmf(y[test]).mean()
    assert likelihood.number("Nats a year of guessing") == pytest.approx(guess, abs=1e-3)
    found = ensemble.predict_uncertainty(likelihood["x"], quantiles=(0.05, 0.5, 0.95), verbose=0)
    np.testing.assert_allclose(found["mean"], rate.mean(axis=0), rtol=1e-4)
    total = rate.mean(axis=0) + rate.var(axis=0)
    np.testing.assert_allclose(found["total"], total, rtol=1e-3)
    counts = np.arange(60)[:, None, None, None]
    cdf = stats.poisson(rate).cdf(counts).mean(axis=1)
    for level, quantile in zip((0.05, 0.5, 0.95), found["quantiles"], strict=True):
        np.testing.assert_array_equal(quantile, (cdf < level).sum(axis=0))


@pytest.fixture(scope="module")
def sampler():
    return Run("add_a_sampler")


def test_the_added_sampler_finds_the_posterior(sampler):
    """550 draws of a chain that forgets within an epoch: means to 4/√550, widths to 4/√1100, the
    latter averaged over 5 weights."""
    assert sampler.number("Largest error of a mean") < 4 / 550**0.5
    assert sampler.number("Standard deviations over the posterior's") == pytest.approx(1, abs=0.06)
    assert 0 < sampler.number("Kinetic temperature") < 4  # χ²_5/5 exceeds it once in 1000


def test_the_added_sampler_resumes_and_is_read_again(sampler):
    assert sampler.lines["Resumed run gives the same samples"] == "True"
    assert sampler.number("Reloaded ensemble differs by") < 1e-5


@pytest.mark.law
def test_without_its_thermostat_the_added_sampler_is_too_wide(sampler, monkeypatch):
    """The friction that follows the momentum's temperature is what absorbs minibatch noise."""
    thermostat = sampler["Thermostat"]
    advance = thermostat.advance

    def held(self, *args):
        values, changes = advance(self, *args)
        return values, [(v, 0.0 * new if v is self.excess else new) for v, new in changes]

    monkeypatch.setattr(thermostat, "advance", held)
    with tempfile.TemporaryDirectory() as folder:
        _, samples = sampler["run"](600, folder)
    assert np.mean(np.std(samples, axis=0) / sampler["stddev"]) > 1.2


def test_a_sampler_that_states_nothing_is_given_no_numbers():
    """Nothing of another dynamics is logged, limited or reported in its place."""

    class Descent(kl.Sampler):
        def advance(self, values, gradients, statistics, metric, learning_rate):
            return [θ - learning_rate * g for θ, g in zip(values, gradients, strict=True)], []

    x = np.random.default_rng(0).normal(size=(32, 3))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(Descent(0.01, num_data=32), "mse", jit_compile=False)
    sampler = kl.PosteriorSampler(burn_in=1)
    history = model.fit(x, x[:, :1], epochs=3, verbose=0, callbacks=[sampler]).history
    assert set(history) == {
        *("loss", "num_samples", "learning_rate", "temperature", "nonfinite_steps")
    }
    report = sampler.ensemble().report(x, x[:, :1], training_data=(x, x[:, :1]), verbose=0)
    assert report["temperature"] == 1.0
    for name in ("stability_limit", "minibatch_noise", "kinetic_temperature"):
        assert report.get(name) is None
    with pytest.raises(ValueError, match="does not state its `momentum`"):
        kl.diagnostics.step_size(model, x, x[:, :1])
    with pytest.raises(ValueError, match=r"learning_rate=\"auto\""):
        Descent("auto", num_data=32)
    with pytest.raises(NotImplementedError, match="`Mute` must implement `advance"):
        mute = type("Mute", (kl.Sampler,), {})(0.1, num_data=1)
        mute.build([keras.Variable([1.0])])
        mute.apply([keras.ops.ones(1)])
