"""The examples that add something of one's own: each runs, and what it prints is right."""

import contextlib
import io
import pathlib
import runpy

import keras
import numpy as np
import pytest
from scipy import stats

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]


class Run:
    """An example that was run: its variables, and what it printed, by the words before a colon."""

    def __init__(self, name):
        keras.utils.clear_session()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.variables = runpy.run_path(str(EXAMPLES / f"{name}.py"))
        lines = [line for line in printed.getvalue().splitlines() if ": " in line]
        self.lines = dict(line.split(": ", 1) for line in lines)

    def __getitem__(self, name):
        return self.variables[name]

    def number(self, line):
        """The first number after the colon."""
        return float(self.lines[line].split()[0].rstrip("%"))


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
