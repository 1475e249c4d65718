"""The truth has a uniform rank among posterior samples: prior → data → `fit` → ensemble, whole."""

import keras
import numpy as np
import pytest
from targets import calibration_run
from targets.calibration_run import CASES, calibration, chi_squared

import keras_langevin as kl

UNIFORM = 29.9  # 99.99 % quantile of χ² with 7 degrees of freedom
IS_JAX = keras.backend.backend() == "jax"  # five thousand steps take 2 s there, 20 on torch
QUICK = ("SGLD", "QDOPLangevin") if IS_JAX else ("SGLD",)


def slow_but_quick(names):
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.law) for n in names]


@pytest.mark.parametrize("name", slow_but_quick(CASES))
def test_the_ranks_of_the_truth_are_uniform(name):
    found = calibration(CASES[name](), CASES[name].steps)
    assert max(found) < UNIFORM, found


class RootTwoMissing(kl.SGLD):
    def noise_scale(self, learning_rate):
        return super().noise_scale(learning_rate) / 2**0.5


class NoiseThatRepeats(kl.SGLD):
    def normals(self, shapes, iteration=None):
        return super().normals(shapes, 0 * self.iterations)


class PriorNotDivided(kl.SGLD):
    def add_prior(self, values, gradients):
        slopes = super().add_prior(values, gradients)
        return [g + (self.num_data - 1) * (s - g) for g, s in zip(gradients, slopes, strict=True)]


WRONG = {
    "√2 missing": lambda **a: RootTwoMissing(0.03, **a),
    "noise that repeats": lambda **a: NoiseThatRepeats(0.03, **a),
    "prior not divided by N": lambda **a: PriorNotDivided(0.03, **a),
    "cold": lambda **a: kl.SGLD(0.03, temperature=0.6, **a),
    "N half as large": lambda **a: kl.SGLD(0.03, **{**a, "num_data": calibration_run.EXAMPLES / 2}),
    "learning rate too large": lambda **a: kl.SGLD(0.7, **a),
    "another prior": lambda **a: kl.SGLD(0.03, **{**a, "prior": kl.priors.Normal(0.3)}),
}
SHOWN = ("√2 missing", "another prior") if IS_JAX else ("√2 missing",)


@pytest.mark.neutral
@pytest.mark.filterwarnings("ignore:Minibatches of about")
@pytest.mark.filterwarnings("ignore:`num_data` must be:UserWarning")
@pytest.mark.parametrize(
    "name", [n if n in SHOWN else pytest.param(n, marks=pytest.mark.law) for n in WRONG]
)
def test_wrong_samplers_have_other_ranks(name):
    found = calibration(calibration_run.Case(WRONG[name])(), steps=120)
    assert max(found) > 2 * UNIFORM, found


@pytest.mark.law
def test_a_wrong_likelihood_has_other_ranks():
    found = calibration(CASES["SGLD"](), steps=120, noise=1.4 * calibration_run.NOISE)
    assert max(found) > 2 * UNIFORM, found


def test_the_statistic_itself():
    rng = np.random.default_rng(0)
    uniform = [chi_squared(rng.integers(0, 32, 1000)) for _ in range(300)]
    assert np.mean(uniform) == pytest.approx(7, abs=0.7)
    assert chi_squared(rng.integers(0, 30, 1000)) > UNIFORM
