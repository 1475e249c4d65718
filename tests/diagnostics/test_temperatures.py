"""Kinetic and configurational temperature: right samplers lie in their bands, mutants do not.

KERAS_BACKEND=jax python tests/diagnostics/test_temperatures.py
prints how many of 100 runs are outside
"""

import keras
import numpy as np
import pytest
from keras import ops
from targets.gaussian_chain import Potential
from targets.regression import Constant, HalfSquaredError

import keras_langevin as kl
from keras_langevin.diagnostics import (
    configurational_temperature,
    kinetic_temperature,
    temperatures,
)
from keras_langevin.optimizers.sghmc import SGHMC
from keras_langevin.optimizers.sgld import SGLD
from keras_langevin.weights import named_weights

PRIOR = kl.priors.Normal(1.0)
only_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="a hundred runs at once need jax.vmap"
)

# ------------------------------------------------------- a hundred runs on a Gaussian target

NUM_DATA, RUNS = 100, 100


class Target:
    """Mean loss Σ a_i (θ_i − mode)²/2 of `NUM_DATA` examples, prior N(0, 1)."""

    def __init__(self, dimension, mode=0.0):
        self.precisions = np.linspace(0.5, 1.0, dimension)
        self.x = np.ones((1, 1), "float32")
        self.y = (-mode * self.precisions[None]).astype("float32")

    def model(self, optimizer):
        layer = keras.layers.Dense(len(self.precisions), use_bias=False)
        model = keras.Sequential([keras.Input((1,)), layer])
        model.compile(optimizer, Potential(self.precisions))
        optimizer.build(model.trainable_variables)
        return model

    def posterior_draws(self):
        precision = NUM_DATA * self.precisions + 1.0
        normal = np.random.default_rng(0).normal(size=(RUNS, len(precision)))
        return -NUM_DATA * self.y / precision + normal / np.sqrt(precision)

    def sample(self, optimizer, draws, thinning):
        """By the step of the optimizer that `fit` makes: draws of the kernel, shape `(runs,
        draws, 1, dimension)`, and the state of the optimizer, one array for each variable."""
        import jax

        slope, offset = self.precisions.astype("float32"), self.y[0]
        values = [jax.numpy.array(v.value) for v in optimizer.variables]
        is_count = [v is optimizer.iterations for v in optimizer.variables]

        def step(state, _):
            own, kernel = state
            (kernel,), own = optimizer.stateless_apply(own, [slope * kernel + offset], [kernel])
            return (own, kernel), None

        def draw(state, _):
            state, _ = jax.lax.scan(step, state, length=thinning)
            return state, state[1]

        def run(first_iteration, kernel):
            pairs = zip(values, is_count, strict=True)
            own = [first_iteration if counts else value for value, counts in pairs]
            return jax.lax.scan(draw, (own, kernel), length=draws)

        starts = jax.numpy.asarray(self.posterior_draws()[:, None], "float32")
        iterations = 10**7 * jax.numpy.arange(RUNS, dtype=optimizer.iterations.dtype)
        (state, _), kernels = jax.jit(jax.vmap(run))(iterations, starts)
        return np.asarray(kernels), [np.asarray(s) for s in state]


def configurational_temperatures(optimizer, mode=0.0, thinning=50, runs=RUNS):
    target = Target(50, mode)
    model = target.model(optimizer)
    kernels, _ = target.sample(optimizer, 64, thinning)
    (name,) = named_weights(model)
    samples = [[{name: kernel} for kernel in kernels[run]] for run in range(runs)]
    return [configurational_temperature(model, s, target.x, target.y) for s in samples]


def kinetic_temperatures(optimizer):
    target = Target(2000)
    target.model(optimizer)
    _, states = target.sample(optimizer, 1, 300)
    found = []
    for run in range(RUNS):
        for variable, values in zip(optimizer.variables, states, strict=True):
            variable.assign(values[run])
        found.append(kinetic_temperature(optimizer))
    return found


def num_outside(found):
    return sum(not temperature.is_as_expected for temperature in found)


def mean(found):
    return np.mean([temperature.value for temperature in found])


def sgld(cls=SGLD):
    return cls(0.02, num_data=NUM_DATA, prior=PRIOR, seed=1)


def sghmc(scheme, cls=SGHMC, learning_rate=0.02, momentum=0.9):
    return cls(
        learning_rate, num_data=NUM_DATA, momentum=momentum, scheme=scheme, prior=PRIOR, seed=1
    )


class RootTwoMissing(SGLD):
    def noise_scale(self, learning_rate):
        return super().noise_scale(learning_rate) / 2**0.5


class NoiseTooLarge(SGLD):
    def noise_scale(self, learning_rate):
        return 1.5**0.5 * super().noise_scale(learning_rate)


class PriorNotDividedByN(SGLD):
    def add_prior(self, values, gradients):
        pairs = zip(self._priors, values, gradients, strict=True)
        return [g - prior.score(θ) for prior, θ, g in pairs]


class NoiseOfOrnsteinUhlenbeck(SGHMC):
    """T(1−β²), the noise of "baoab", with "euler"."""

    def noise_variance(self, learning_rate, β, gradient_noise=0.0):
        return super().noise_variance(learning_rate, β, gradient_noise) * 0.5 * (1 + β)


class HalfTheNoise(SGHMC):
    def noise_variance(self, learning_rate, β, gradient_noise=0.0):
        return 0.5 * super().noise_variance(learning_rate, β, gradient_noise)


RIGHT = {
    "SGLD": (sgld, {}),
    "SGLD, far mode": (sgld, {"mode": 3.0}),
    "baoab": (lambda: sghmc("baoab"), {"thinning": 10}),
    "euler": (lambda: sghmc("euler"), {"thinning": 10}),
}
WRONG = {
    "root two missing": (lambda: sgld(RootTwoMissing), {}, 0.5),
    "noise too large": (lambda: sgld(NoiseTooLarge), {}, 1.5),
    "prior not divided by N": (lambda: sgld(PriorNotDividedByN), {}, 0.44),
    "euler, half the noise": (lambda: sghmc("euler", HalfTheNoise), {"thinning": 10}, 0.5),
}


@only_jax
@pytest.mark.law
@pytest.mark.parametrize("name", RIGHT)
def test_configurational_temperature_of_right_samplers(name):
    make, arguments = RIGHT[name]
    found = configurational_temperatures(make(), **arguments)
    assert num_outside(found) <= 3
    assert mean(found) == pytest.approx(1.0, abs=0.02)


@only_jax
@pytest.mark.law
@pytest.mark.parametrize("name", WRONG)
def test_configurational_temperature_of_mutants(name):
    make, arguments, expected = WRONG[name]
    found = configurational_temperatures(make(), runs=20, **arguments)
    assert num_outside(found) >= 19
    assert mean(found) == pytest.approx(expected, rel=0.04)


def not_centred(column, draws, others):
    return np.zeros_like(column[0])


def own_mean(column, draws, others):
    return column.mean(axis=0)


@only_jax
@pytest.mark.law
@pytest.mark.parametrize("centre", [temperatures._centre, not_centred])
def test_without_a_centre_the_naive_band_is_too_narrow(monkeypatch, centre):
    """That of χ²: T ± z √(2/(d ESS)), which the spread that the band is made of does not have."""
    monkeypatch.setattr(temperatures, "_centre", centre)
    found = configurational_temperatures(sgld(), mode=3.0)
    naive = 2.576 * np.sqrt(2 / (50 * 32))
    outside = sum(abs(t.value - 1) > naive for t in found)
    is_centred = centre is not not_centred
    assert (outside <= 5) == is_centred
    assert (np.median([t.high - 1 for t in found]) < 0.15) == is_centred


@only_jax
@pytest.mark.law
def test_the_mean_of_all_draws_as_centre_takes_the_temperature_down(monkeypatch):
    monkeypatch.setattr(temperatures, "_centre", own_mean)
    found = configurational_temperatures(sgld())
    assert num_outside(found) > 6
    assert mean(found) < 0.98


# "euler" must show its correction: the band of 2000 momenta is 0.921 to 1.084, and 2/(1+β) 1.176.
KINETIC = {
    "baoab": (SGHMC, "baoab", True),
    "euler": (SGHMC, "euler", True),
    "baoab, half the noise": (HalfTheNoise, "baoab", False),
    "euler, half the noise": (HalfTheNoise, "euler", False),
    "euler, noise of baoab": (NoiseOfOrnsteinUhlenbeck, "euler", False),
}


def kinetic_case(name):
    cls, scheme, _ = KINETIC[name]
    return kinetic_temperatures(sghmc(scheme, cls, learning_rate=0.005, momentum=0.7))


@only_jax
@pytest.mark.parametrize("name", KINETIC)
def test_kinetic_temperature(name):
    outside = num_outside(kinetic_case(name))
    assert outside <= 3 if KINETIC[name][2] else outside >= 90


@only_jax
def test_kinetic_temperature_without_the_correction_of_euler_is_outside():
    optimizer = sghmc("euler", learning_rate=0.005, momentum=0.7)
    found = kinetic_temperatures(optimizer)
    hotter = [t.value * 2 / 1.7 for t in found]
    outside = sum(not t.low <= h <= t.high for t, h in zip(found, hotter, strict=True))
    assert outside >= 90
    assert np.mean(hotter) == pytest.approx(2 / 1.7, rel=0.01)


# ------------------------------------------------------------------------- through `fit`

N = 64
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).astype("float32")
Y = (X @ RNG.normal(size=(3, 1)) + RNG.normal(size=(N, 1))).astype("float32")


def trained(optimizer, steps=1520, regularizer=None, units=40):
    """A regression, y = x w + b + N(0, 1), as many times as there are units, and its samples."""
    layer = keras.layers.Dense(
        units, name="dense", kernel_regularizer=regularizer, bias_regularizer=regularizer
    )
    model = keras.Sequential([keras.Input((3,)), layer], name="model")
    model.compile(optimizer, HalfSquaredError(), jit_compile=keras.backend.backend() != "torch")
    sampler = kl.PosteriorSampler(burn_in=80, thinning=30, unit="step")
    model.fit(Constant(X, Y, steps), verbose=0, shuffle=False, callbacks=[sampler])
    return model, list(sampler.samples)


def sgld_on_regression(cls=SGLD, learning_rate=0.04, prior=PRIOR):
    return cls(learning_rate, num_data=N, prior=prior, seed=1)


def law_of_sgld(learning_rate):
    """Mean of 1/(1 − η s/2)."""
    design = np.c_[X, np.ones(N)]
    s = np.linalg.eigvalsh((design.T @ design + np.eye(4)) / N)
    return np.mean(1 / (1 - learning_rate * s / 2))


@pytest.fixture(scope="module")
def chain():
    keras.utils.clear_session()
    return trained(sgld_on_regression())


def test_a_chain_of_fit_is_as_hot_as_expected(chain):
    model, samples = chain
    before = [np.array(w) for w in model.get_weights()]
    found = configurational_temperature(model, samples, X, Y)
    assert found.is_as_expected and found.low < 1 < found.high
    assert found.high - found.value < 0.3 and found.num_draws == 48
    assert 10 < found.effective_draws <= 48
    assert found.value == pytest.approx(law_of_sgld(0.04), abs=0.06)
    for name, size in (("dense/kernel", 3), ("dense/bias", 1)):
        (value,) = (v for n, v in found.by_variable.items() if n.endswith(name))
        (low, high), *_ = (b for n, b in found.band_by_variable.items() if n.endswith(name))
        assert low < value < high
        assert 1 / 3 < (high - 1) / (4 / size) ** 0.5 / (found.high - 1) < 3
    weighted = np.dot(list(found.by_variable.values()), [120, 40]) / 160
    assert found.value == pytest.approx(weighted)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.neutral
def test_it_measures_the_error_of_a_large_step():
    """By what the law says, and with enough weights significantly."""
    model, samples = trained(sgld_on_regression(learning_rate=0.3), units=200)
    found = configurational_temperature(model, samples, X, Y)
    assert law_of_sgld(0.3) > 1.1 and found.value == pytest.approx(law_of_sgld(0.3), abs=0.06)
    assert not found.is_as_expected


@pytest.mark.neutral
@pytest.mark.parametrize("cls", [RootTwoMissing, NoiseTooLarge, PriorNotDividedByN])
def test_mutants_of_fit_are_outside(cls):
    model, samples = trained(sgld_on_regression(cls), units=200)
    found = configurational_temperature(model, samples, X, Y)
    assert not found.is_as_expected


def test_value_against_numpy(chain):
    """On samples that no law has drawn, from the gradient of a regression."""
    model, _ = chain
    draws = np.random.default_rng(5).normal(size=(10, 4, 40))
    design = np.c_[X, np.ones(N)]
    weights = np.random.default_rng(6).uniform(size=N).astype("float32")
    slopes = design.T @ (weights[:, None] * (design @ draws - Y)) + draws
    centres = np.repeat([draws[5:].mean(axis=0), draws[:5].mean(axis=0)], 5, axis=0)
    expected = np.mean(np.sum((draws - centres) * slopes, axis=(1, 2))) / 160
    samples = [[d[:3], d[3]] for d in draws]
    for batch_size in (None, 20, 100):
        found = configurational_temperature(model, samples, X, Y, batch_size, weights)
        assert found.value == pytest.approx(expected, rel=1e-4)


def test_a_regularizer_is_a_prior(chain):
    keras.utils.clear_session()
    regularized, _ = trained(sgld_on_regression(prior=None), 100, keras.regularizers.L2(0.5 / N))
    draws = [[d[:3], d[3]] for d in np.random.default_rng(5).normal(size=(8, 4, 40))]
    found = [configurational_temperature(m, draws, X, Y).value for m in (chain[0], regularized)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_random_batches_are_right_on_average(chain):
    model, samples = chain
    exact = configurational_temperature(model, samples, X, Y)
    found = configurational_temperature(model, samples, X, Y, batch_size=16, num_batches=2)
    error = (found.high - found.low) / 2
    assert abs(found.value - exact.value) < error
    assert found.value != exact.value and found.num_draws == exact.num_draws


@pytest.mark.neutral
def test_chains_are_told_apart(chain):
    """Two chains around far modes: with one centre for both T_C would be enormous."""
    model, samples = chain
    far = [{name: w + 10.0 for name, w in sample.items()} for sample in samples]
    alone = [configurational_temperature(model, s, X, Y).value for s in (samples, far)]
    chains = [kl.Sample(s, chain=i) for i, group in enumerate((samples, far)) for s in group]
    both = configurational_temperature(model, chains, X, Y)
    assert both.value == pytest.approx(np.mean(alone), rel=1e-4)
    pooled = configurational_temperature(model, [dict(s) for s in chains], X, Y)
    assert abs(pooled.value) > 10 * abs(both.value)


@pytest.mark.neutral
def test_identical_samples_are_cold(chain):
    model, samples = chain
    found = configurational_temperature(model, [samples[0]] * 8, X, Y)
    assert found.value == 0 and not found.is_as_expected and found.effective_draws == 1


@pytest.mark.parametrize("cls", [kl.SGLD, kl.QDOPLangevin])
def test_a_deep_network_with_moving_averages_and_dropout(cls):
    """QDOP, whose probes are in the layers, does not take layers that mix examples."""
    layers = keras.layers
    normalization = layers.BatchNormalization if cls is kl.SGLD else layers.LayerNormalization
    inner = [layers.Dense(8), normalization(), layers.ReLU(), layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((3,)), *inner, layers.Dense(1)])
    model.compile(cls(1e-3, num_data=N, seed=1), HalfSquaredError())
    sampler = kl.PosteriorSampler(burn_in=0, thinning=2, unit="step")
    model.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=[sampler])
    found = [configurational_temperature(model, sampler.samples, X, Y) for _ in range(2)]
    assert np.isfinite(found[0].value) and len(found[0].by_variable) == 6
    assert found[0] == found[1]


@pytest.mark.parametrize("scheme", ["baoab", "euler"])
def test_momenta_of_fit_are_as_hot_as_expected(scheme):
    optimizer = SGHMC(
        0.02, num_data=N, momentum=0.7, scheme=scheme, prior=PRIOR, seed=1, temperature=0.5
    )
    trained(optimizer, steps=100, units=400)
    found = kinetic_temperature(optimizer)
    assert found.is_as_expected and found.expected == 0.5
    assert (found.low, found.high) == pytest.approx((0.5 * 0.911, 0.5 * 1.094), abs=1e-3)
    assert list(found.by_variable) == ["model/dense/kernel", "model/dense/bias"]
    momenta = [ops.convert_to_numpy(r) for r in optimizer.momenta]
    factor = 0.85 if scheme == "euler" else 1.0
    by_hand = [factor * np.mean(np.square(r)) for r in momenta]
    assert list(found.by_variable.values()) == pytest.approx(by_hand, rel=1e-5)
    bands = list(found.band_by_variable.values())
    assert bands[1][1] - bands[1][0] > 1.5 * (bands[0][1] - bands[0][0])
    assert list(found.by_variable.values()) == optimizer.kinetic_energies()


def test_resting_momenta_are_cold():
    optimizer = SGHMC(0.02, num_data=N, prior=PRIOR)
    optimizer.build([keras.Variable(np.zeros(50), name="w")])
    assert kinetic_temperature(optimizer).value == 0
    assert not kinetic_temperature(optimizer).is_as_expected


def test_bad_arguments(chain):
    model, samples = chain
    with pytest.raises(ValueError, match=r"at least 4 samples in a chain\. Received: 3 samples"):
        configurational_temperature(model, samples[:3], X, Y)
    with pytest.raises(ValueError, match="`num_batches` must be an integer >= 1"):
        configurational_temperature(model, samples, X, Y, num_batches=0)
    with pytest.raises(ValueError, match=r"`batch_size` must be an integer >= 1"):
        configurational_temperature(model, samples, X, Y, batch_size=-1)
    with pytest.raises(ValueError, match=r"with momenta.*SGLD, built"):
        kinetic_temperature(model.optimizer)
    with pytest.raises(ValueError, match="SGHMC, not built"):
        kinetic_temperature(SGHMC(0.1, num_data=N))
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match="an optimizer of keras_langevin"):
        configurational_temperature(other, samples, X, Y)


if __name__ == "__main__":
    print("T_C, 100 runs of 64 draws, d = 50: outside of the 99 % band, mean")
    for name, (make, arguments, *_) in {**RIGHT, **WRONG}.items():
        found = configurational_temperatures(make(), **arguments)
        print("|", name, "|", num_outside(found), "|", f"{mean(found):.3f} |", flush=True)
    print("T_K, 100 runs, d = 2000, β = 0.7")
    for name in KINETIC:
        found = kinetic_case(name)
        print("|", name, "|", num_outside(found), "|", f"{mean(found):.3f} |", flush=True)
