"""SMILE: one step against a reference in float64, the law of long chains, and what bad batches
and step sizes do to it."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import ops
from targets.gaussian_chain import GaussianChain, state
from targets.regression import READ_EVERY, Recorder
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin.optimizers import smile
from keras_langevin.optimizers.gradient_noise import SuccessiveDifferences
from keras_langevin.optimizers.step_size_tuner import (
    AbsoluteEnergy,
    EnergyVariance,
    target_energy_for,
)

WIDE = np.logspace(-1, 1, 100)
UNIT = np.ones(100)
slow = pytest.mark.law
needs_speed = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="tens of thousands of steps, eagerly"
)


def make(learning_rate=0.5, cls=kl.SMILE, **kwargs):
    arguments = {
        "num_data": 1,
        "prior": None,
        "seed": 1,
        "preconditioned": False,
        "tuner": None,
        "decoherence_length": 20.0,
    }
    return cls(learning_rate, **{**arguments, **kwargs})


# -------------------------------------------------------------------------- the single step


def exact_kick(u, g, time):
    d, size = len(u), np.linalg.norm(g)
    e, delta = g / size, time * size / (len(u) - 1)
    turned = u + e * (np.sinh(delta) + (e @ u) * (np.cosh(delta) - 1))
    energy = (d - 1) * np.log(np.cosh(delta) + (e @ u) * np.sinh(delta))
    return turned / np.linalg.norm(turned), energy


def test_trajectory_and_energy_against_float64():
    """Leapfrog in float64 from the same direction, 20 steps: the same path, and the energy
    error S, made of gradients alone, is the change of the energy itself on a Gaussian."""
    variances, ε = np.logspace(-1, 1, 30), 0.4
    optimizer = make(ε, decoherence_length=np.inf)
    theta = keras.Variable(np.random.default_rng(0).normal(size=30) * variances**0.5)
    optimizer.build([theta])
    before = 0.0
    path, energies = [], []
    for step in range(21):
        position = ops.convert_to_numpy(theta).astype("float64")
        if step:
            path.append(position)
        optimizer.apply([ops.convert_to_tensor((position / variances).astype("float32"))])
        if step == 0:
            start, u = position, ops.convert_to_numpy(optimizer.direction[0]).astype("float64")
        squared = state(optimizer, "mean_energy") * max(step, 1) * 30
        energies.append(squared - before)
        before = squared
    θ, gained = start, -exact_kick(u, start / variances, ε / 2)[1]  # the first half kick, undone
    for step in range(20):
        moved = θ + ε * u
        np.testing.assert_allclose(path[step], moved, atol=2e-5)
        u, more = exact_kick(u, -moved / variances, ε / 2)
        potential = 0.5 * np.sum(moved**2 / variances) - 0.5 * np.sum(θ**2 / variances)
        error = gained + more + potential
        assert energies[step + 1] == pytest.approx(error**2, rel=0.02, abs=1e-6)
        u, gained = exact_kick(u, -moved / variances, ε / 2)
        θ = moved


def test_direction_has_length_one_over_all_variables():
    optimizer = make(0.3, preconditioned=True)
    variables = [keras.Variable(np.ones((3, 4))), keras.Variable(np.ones(5))]
    optimizer.build(variables)
    rng = np.random.default_rng(0)
    for _ in range(30):
        optimizer.apply(
            [ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32")) for v in variables]
        )
        squares = sum(float(ops.sum(ops.square(u))) for u in optimizer.direction)
        assert squares == pytest.approx(1.0, abs=1e-5)


class FixedScale(kl.SMILE):
    """P, the scale of the weights, is given and not estimated; no noise of minibatches is seen."""

    fixed = None

    def _scale(self):
        return self.fixed

    def _rescaled(self, noisy, is_bad):
        return self.fixed, 0.0, []


def test_a_scale_is_a_change_of_coordinates():
    """Steps with P are those without in φ = θ/P, where the slopes are P ∇: in drift and in kick."""
    rng = np.random.default_rng(0)
    scale, start, variances = rng.uniform(0.2, 3.0, 8), rng.normal(size=8), rng.uniform(0.5, 2.0, 8)

    def path(by, factor):
        optimizer = make(0.2, FixedScale, preconditioned=by is not None)
        optimizer.fixed = None if by is None else [ops.convert_to_tensor(by, "float32")]
        θ = keras.Variable(start / factor)
        optimizer.build([θ])
        for _ in range(5):
            slopes = factor**2 * ops.convert_to_numpy(θ) / variances
            slopes = slopes if by is None else slopes / factor
            optimizer.apply([ops.convert_to_tensor(slopes.astype("float32"))])
        return factor * ops.convert_to_numpy(θ)

    scaled = path(scale, np.ones(8))
    np.testing.assert_allclose(scaled, path(None, scale), rtol=1e-4, atol=1e-4)
    assert np.abs(scaled - path(None, np.ones(8))).max() > 0.05


def test_a_step_is_as_long_as_it_says():
    optimizer = make(0.3)
    variables = [keras.Variable(np.ones((3, 4))), keras.Variable(np.ones(5))]
    optimizer.build(variables)
    before = np.concatenate([ops.convert_to_numpy(v).ravel() for v in variables])
    optimizer.apply([ops.ones(v.shape) for v in variables])
    after = np.concatenate([ops.convert_to_numpy(v).ravel() for v in variables])
    assert np.linalg.norm(after - before) == pytest.approx(0.3, rel=1e-5)


# ------------------------------------------------------------------------------- the energy


def mean_energy(ε, noise, steps=400, **kwargs):
    """E[S²]/d at the stationary law, by `mean_energy` averaged over the readings."""
    optimizer = make(ε, **kwargs)
    rng = np.random.default_rng(5)

    class Energies(Recorder):
        def on_train_batch_end(self, batch, logs=None):
            if batch >= self.burn_in and batch % READ_EVERY == READ_EVERY - 1:
                self.model.layers  # noqa: B018  (brings the state of JAX up to date)
                self.draws.append(state(self.model.optimizer, "mean_energy"))

    chain = GaussianChain(UNIT, noise)
    recorder = chain.run(optimizer, steps, start=rng.normal(size=100), recorder=Energies(100))
    return np.mean(recorder.draws)


@slow
def test_energy_grows_with_the_sixth_power_of_the_step_and_with_noise_the_fourth():
    exact = [mean_energy(ε, 0.0) for ε in (1.0, 2.0)]
    assert np.log2(exact[1] / exact[0]) == pytest.approx(6, abs=0.5)
    noisy = [mean_energy(ε, 16.0) for ε in (0.1, 0.2)]
    assert np.log2(noisy[1] / noisy[0]) == pytest.approx(4, abs=0.4)
    predicted = 0.2**4 * 16.0**4 / (16 * 100 * 99)
    assert noisy[1] == pytest.approx(predicted, rel=0.25)


# ------------------------------------------------------------------------------ decoherence


class Directions(Recorder):
    def on_train_batch_end(self, batch, logs=None):
        if batch >= self.burn_in and batch % READ_EVERY == READ_EVERY - 1:
            self.model.layers  # noqa: B018
            self.draws.append(ops.convert_to_numpy(self.model.optimizer.direction[0])[0])


def measured_length(optimizer, ε, noise, steps=6000):
    chain = GaussianChain(np.full(100, np.inf), noise)
    draws = np.stack(chain.run(optimizer, steps, recorder=Directions(2000)).draws)
    overlap = np.mean(np.sum(draws[1:] * draws[:-1], axis=1))
    return -READ_EVERY * ε / np.log(overlap)


@slow
@pytest.mark.parametrize("is_anisotropic", [False, True])
def test_noise_of_minibatches_decoheres_over_the_length_that_is_said(is_anisotropic):
    """2(d − 1)/(ε σ²), with σ² the mean variance, and with injection the L that was asked for."""
    noise = np.sqrt(np.linspace(0.5, 1.5, 100)) if is_anisotropic else np.ones(100)
    ε, sigma = 0.5, 4.0
    alone = measured_length(make(ε, decoherence_length=np.inf), ε, sigma * noise)
    assert alone == pytest.approx(2 * 99 / (ε * sigma**2), rel=0.03)
    together = measured_length(make(ε, decoherence_length=12.0), ε, sigma * noise)
    assert together == pytest.approx(12.0, rel=0.03)


# ---------------------------------------------------------------------------------- the law


def law(optimizer, variances=WIDE, noise=0.0, steps=12000):
    return GaussianChain(variances, noise).second_moment_error(optimizer, steps, burn_in=1000)


class SlopeOfTheMeanLoss(kl.SMILE):
    def _slopes(self, values, gradients):
        slopes, noisy, finite = super()._slopes(values, gradients)
        return [s / self.num_data for s in slopes], noisy, finite


class SlopeTurnedRound(kl.SMILE):
    def _slopes(self, values, gradients):
        slopes, noisy, finite = super()._slopes(values, gradients)
        return [-s for s in slopes], noisy, finite


class KicksTwiceAsLong(kl.SMILE):
    def _finish(self, direction, force, step_size):
        return super()._finish(direction, [2.0 * f for f in force], step_size)


class ScaleInTheDriftAlone(kl.SMILE):
    def step(self, parameters, gradients, learning_rate):
        smile_product = smile.product
        calls = []

        def product(scale, vectors):
            calls.append(0)
            is_force = len(calls) in (1, 3)
            return vectors if is_force else smile_product(scale, vectors)

        smile.product = product
        try:
            yield from super().step(parameters, gradients, learning_rate)
        finally:
            smile.product = smile_product


@needs_speed
@pytest.mark.parametrize("ε", [pytest.param(0.5, marks=slow), 2.0])
def test_samples_a_gaussian_with_exact_gradients(ε):
    error, ratios, _ = law(make(ε), steps=12_000 if ε < 1 else 6000)
    assert error < 0.01
    assert ratios.mean() == pytest.approx(1.0, abs=0.05)


@needs_speed
@slow
@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_temperature_scales_the_variances(temperature):
    _, ratios, _ = law(make(1.0, temperature=temperature))
    assert ratios.mean() == pytest.approx(temperature, rel=0.06)


@needs_speed
@slow
@pytest.mark.parametrize("mutant", [SlopeOfTheMeanLoss, SlopeTurnedRound, KicksTwiceAsLong])
def test_mutants_fail_the_test_of_the_law(mutant):
    error, ratios, _ = law(make(1.0, cls=mutant, num_data=2), steps=6000)
    assert not (error < 0.01 and abs(ratios.mean() - 0.5) < 0.025)


@pytest.mark.neutral
@needs_speed
def test_num_data_sets_the_width():
    _, ratios, _ = law(make(1.0, num_data=2))
    assert ratios.mean() == pytest.approx(0.5, rel=0.05)


DIAGONAL_NOISE = 8.0 * np.logspace(-0.5, 0.5, 100)


@needs_speed
@slow
@pytest.mark.further
def test_preconditioning_removes_the_bias_of_anisotropic_noise():
    def run(**kwargs):
        optimizer = make(0.3, decoherence_length=1000.0, **kwargs)
        return law(optimizer, UNIT, DIAGONAL_NOISE, steps=40_000)[0]

    assert run(preconditioned=True) < 0.02
    assert run() > 0.1
    assert run(preconditioned=True, cls=ScaleInTheDriftAlone) > 0.1


class MovingAverage(SuccessiveDifferences):
    """The published estimator: the variance about a moving average of the gradient."""

    def update(self, gradients, is_held):
        count = ops.convert_to_tensor(self.count)
        means = [0.99 * m + 0.01 * g for m, g in zip(self.previous, gradients, strict=True)]
        variances = [
            0.99 * v + 0.01 * ops.square(g - m)
            for v, g, m in zip(self.variances, gradients, means, strict=True)
        ]
        changes = [*zip(self.previous, means, strict=True)]
        changes += [*zip(self.variances, variances, strict=True), (self.count, count + 1.0)]
        return variances, count, changes


def moving_average(monkeypatch):
    monkeypatch.setattr(smile, "SuccessiveDifferences", MovingAverage)


@needs_speed
@slow
@pytest.mark.further
def test_successive_differences_beat_a_moving_average(monkeypatch):
    """Isotropic noise, so that any difference between the weights is the estimator's fault; in
    stiff directions the gradient itself changes as much as the noise does."""

    def run():
        optimizer = make(0.3, preconditioned=True, decoherence_length=1000.0)
        return law(optimizer, np.logspace(-2, 0, 100), 8.0, steps=60_000)[0]

    assert run() <= 0.002
    moving_average(monkeypatch)
    assert run() >= 0.008


# ------------------------------------------------------------------------------- bad batches


def nan_at(share):
    chosen = np.random.default_rng(3).random(100_000) < share

    def disturb(step, noise):
        if chosen[step]:
            noise[:] = np.nan

    return disturb


def one_outlier(step, noise):
    if step == 500:
        noise *= 1000.0


def one_nan(step, noise):
    if step == 500:
        noise[0, 3] = np.nan


@pytest.mark.parametrize("tuner", ["absolute", pytest.param(None, marks=slow)])
@pytest.mark.parametrize(
    ("disturb", "most"),
    [
        pytest.param(one_nan, 1, marks=slow),
        (nan_at(0.01), 40),
        pytest.param(one_outlier, 40, marks=pytest.mark.neutral),
    ],
)
def test_bad_batches_neither_kill_nor_lock_a_chain(disturb, most, tuner):
    """Also while it tunes. The steps that do not stand are those that were disturbed."""
    chain = GaussianChain(UNIT, 8.0, disturb)
    optimizer = make(0.2, tuner=tuner, preconditioned=True, target_energy=1e-4, tuning_steps=1000)
    recorder = chain.run(optimizer, 1600)
    assert np.isfinite(chain.end).all()
    rejected = state(optimizer, "num_rejected")
    if tuner or disturb is not one_outlier:
        assert 1 <= rejected <= most
    assert state(optimizer, "num_closed") > 1500
    last = np.stack(recorder.draws)[-40:, 0]
    assert np.ptp(last, axis=0).max() > 0.5
    assert 0.05 < state(optimizer, "open_step") < 2.0


@needs_speed
@slow
@pytest.mark.parametrize("disturb", [nan_at(0.01), None], ids=["nan", "none"])
def test_one_batch_in_a_hundred_being_nan_does_not_change_the_law(disturb):
    chain = GaussianChain(UNIT, 8.0, disturb)
    optimizer = make(0.3, preconditioned=True, decoherence_length=1000.0)
    error, ratios, _ = chain.second_moment_error(optimizer, 40_000, 1000)
    assert error < 0.004
    assert ratios.mean() == pytest.approx(1.0, abs=0.05)


def test_a_bad_first_batch_moves_nothing():
    optimizer = make(0.2)
    variable = keras.Variable(np.arange(3.0))
    optimizer.build([variable])
    optimizer.apply([ops.convert_to_tensor(np.array([1.0, np.nan, 1.0], "float32"))])
    np.testing.assert_array_equal(ops.convert_to_numpy(variable), np.arange(3.0))
    optimizer.apply([ops.ones((3,))])
    moved = ops.convert_to_numpy(variable) - np.arange(3.0)
    assert 0 < np.linalg.norm(moved) <= 0.2 + 1e-6


def test_a_step_taken_back_leaves_the_weights_where_they_were():
    optimizer = make(0.2, preconditioned=True)
    variable = keras.Variable(np.arange(4.0))
    optimizer.build([variable])
    optimizer.apply([ops.ones((4,))])
    optimizer.apply([ops.convert_to_tensor(np.full(4, np.inf, "float32"))])
    np.testing.assert_allclose(ops.convert_to_numpy(variable), np.arange(4.0), atol=1e-6)


# -------------------------------------------------------------------------------- the tuners


def number(value):
    return float(ops.convert_to_numpy(value))


def tuned(start, tuner="absolute", steps=1600, disturb=None, **kwargs):
    optimizer = make(start, tuner=tuner, preconditioned=True, decoherence_length=1000.0, **kwargs)
    GaussianChain(WIDE, 8.0, disturb).run(optimizer, steps)
    return state(optimizer, "open_step")


@needs_speed
@slow
def test_the_first_step_size_is_forgotten():
    """From 1e-4 and from 1e-1, without and with one outlier on the way."""
    small, large = (tuned(s, steps=3000, target_energy=1e-4) for s in (1e-4, 1e-1))
    assert small == pytest.approx(large, rel=0.1)
    disturbed = tuned(1e-1, steps=3000, target_energy=1e-4, disturb=one_outlier)
    assert disturbed == pytest.approx(large, rel=0.1)


@slow
def test_the_published_rule_does_not_forget_the_first_step_size():
    """Its documented defect: |ΔE| is that of the minibatches, whatever the step size."""
    small, large = (tuned(s, "energy_variance", steps=800) for s in (1e-4, 1e-1))
    assert large > 50 * small


@pytest.mark.neutral
def test_the_published_rule_locks_after_an_outlier():
    """After |ΔE| of 1000 times the typical size its quantiles are negative: all is taken back."""
    rule, kept = EnergyVariance(), {}
    rule.build(10, lambda shape, name: kept.setdefault(name, keras.Variable(0.0, name=name)))
    rng = np.random.default_rng(0)
    rejected = []
    for step in range(250):
        size = 1000.0 if step == 150 else abs(rng.normal())
        energy = ops.convert_to_tensor(np.float32(size))
        rejected.append(bool(rule.is_unacceptable(energy, step)))
        for variable, value in rule.update(energy, 0.1, ops.convert_to_tensor(0.1), True)[1]:
            variable.assign(value)
    assert np.mean(rejected[20:150]) < 0.1
    assert np.all(rejected[150:])


@pytest.mark.neutral
def test_absolute_rule_brings_its_statistic_to_the_target():
    """On a stream S² = v (ε/ε*)⁴ χ²: the root is at E[S²]/d = v*, from both sides."""
    for start in (0.01, 3.0):
        rule, kept = AbsoluteEnergy(1e-3), {}
        rule.build(10, lambda shape, name, k=kept: k.setdefault(name, keras.Variable(0.0)))
        rng, ε = np.random.default_rng(0), ops.convert_to_tensor(np.float32(start))
        for _ in range(700):
            squared = 10 * 1e-3 * (number(ε) / 0.3) ** 4 * rng.normal() ** 2
            energy = ops.convert_to_tensor(np.float32(np.sqrt(squared)))
            ε, changes = rule.update(energy, ε, ε, ops.convert_to_tensor(True))
            for variable, value in changes:
                variable.assign(value)
        held, _ = rule.update(energy, ε, ε, ops.convert_to_tensor(False))
        assert number(held) == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("inert", ["absolute", pytest.param("energy_variance", marks=slow)])
def test_a_tuner_that_does_nothing_is_the_plain_scheme_bit_for_bit(inert, monkeypatch):
    monkeypatch.setattr(EnergyVariance, "adaption_strength", 0.0)
    monkeypatch.setattr(EnergyVariance, "reset_probability", 1 - 1e-10)
    monkeypatch.setattr(EnergyVariance, "first_step", 10**6)
    ends = []
    for tuner in (None, inert):
        chain = GaussianChain(UNIT, 2.0)
        chain.run(make(0.25, tuner=tuner, preconditioned=True, tuning_steps=0), 64)
        ends.append(chain.end)
    np.testing.assert_array_equal(*ends)


# ------------------------------------------------------------------------------- inside `fit`


def network(optimizer):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)]
    )
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    return model


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype("float32")
    return x, (x @ [1.0, -1.0, 0.5] + 0.1 * rng.normal(size=200))[:, None].astype("float32")


@pytest.mark.parametrize("unit", ["epoch", pytest.param("step", marks=slow)])
def test_the_step_size_is_held_when_burn_in_ends(unit):
    model = network(kl.SMILE(num_data=200, seed=1))
    sampler = kl.PosteriorSampler(burn_in=4 if unit == "epoch" else 40, thinning=1, unit=unit)
    history = model.fit(*data(), batch_size=20, epochs=7, verbose=0, callbacks=[sampler])
    sizes = history.history["step_size"]
    assert sizes[0] < sizes[2] < sizes[3]
    assert sizes[5] == sizes[6]
    assert set(history.history) >= {"step_size", "energy_error", "rejected"}
    assert sampler.ensemble().predict(data()[0], verbose=0).shape == (200, 1)


@slow
def test_the_loss_is_measured_for_the_published_rule_alone():
    model = network(kl.SMILE(num_data=200, tuner="energy_variance", seed=1))
    x, y = data()
    kl.track_statistics(model, model.optimizer)
    before = float(np.mean((model.predict(x, verbose=0) - y) ** 2))
    model.fit(x, y, batch_size=200, epochs=1, verbose=0)
    (measured,) = model.optimizer.statistic_variables
    assert float(ops.convert_to_numpy(measured)) == pytest.approx(before, rel=1e-4)
    plain = network(kl.SMILE(num_data=200, seed=1))
    kl.track_statistics(plain, plain.optimizer)
    assert not plain.optimizer.statistic_variables


def test_default_decoherence_length_is_that_of_a_draw_from_the_prior():
    optimizer = kl.SMILE(num_data=10, prior=kl.priors.Normal(0.5))
    optimizer.build([keras.Variable(np.zeros((4, 5))), keras.Variable(np.zeros(5))])
    assert optimizer.length == pytest.approx(0.5 * 25**0.5)


def test_config_round_trip():
    optimizer = kl.SMILE(
        0.01,
        num_data=7,
        preconditioned=False,
        tuner="energy_variance",
        decoherence_length=3.0,
        tuning_steps=5,
        freeze_after=9,
        temperature=0.5,
        seed=3,
    )
    config = optimizer.get_config()
    again = kl.SMILE.from_config(config)
    assert again.get_config() == config
    assert config["decoherence_length"] == 3.0 and config["freeze_after"] == 9


@every_row(
    "arguments, words",
    [
        ({"learning_rate": "auto", "tuner": None}, "learning_rate"),
        ({"learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 10)}, "tuner=None"),
        ({"tuner": "gamma"}, "tuner"),
        ({"temperature": 0.0}, "temperature"),
        ({"target_energy": 0.0}, "target_energy"),
        ({"decoherence_length": -1.0}, "decoherence_length"),
        ({"preconditioner": kl.preconditioners.Euclidean()}, "preconditioner"),
        ({"tuning_steps": 1.5}, "tuning_steps"),
        ({"variance_decay": 1.5}, "variance_decay"),
    ],
)
def test_arguments_are_checked(arguments, words):
    with pytest.raises(ValueError, match=words):
        kl.SMILE(**{"num_data": 10, **arguments})


@pytest.mark.parametrize("is_over", [False, True])
def test_burn_in_may_be_over_before_the_optimizer_is_built(is_over):
    """As in a fit on TensorFlow with `burn_in=0`."""
    optimizer = kl.SMILE(num_data=10, tuning_steps=5)
    if is_over:
        optimizer.end_burn_in()
    optimizer.build([keras.Variable(np.zeros(3))])
    assert number(optimizer.burn_in_is_over) == is_over


def test_one_weight_is_too_few():
    with pytest.raises(ValueError, match="at least 2 weights"):
        kl.SMILE(num_data=10).build([keras.Variable(1.0)])


def test_the_target_energy_falls_with_the_length_of_the_run():
    assert target_energy_for(60_000) == target_energy_for(None) == pytest.approx(1e-4)
    assert target_energy_for(600_000) == pytest.approx(1e-4 / 10**1.2)
    assert target_energy_for(100) == 1e-2
