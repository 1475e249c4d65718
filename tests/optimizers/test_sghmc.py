"""SGHMC: the laws of its two schemes in closed form, mutants that must not have them, its options.

Share: x = ℓs/(2(1+β)), 1 where the schemes become unstable; noise: ρ = ℓNV/(2T(1−β)).

PYTHONPATH=tests KERAS_BACKEND=jax python tests/optimizers/test_sghmc.py
prints what the laws measure over what is exact
"""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import ops
from targets.classification import compiled, data
from targets.one_layer import JIT, SIGNS, NoLoss, dense, one_layer, run
from targets.regression import (
    READ_EVERY,
    STEPS_PER_EXECUTION,
    Constant,
    HalfSquaredError,
    Recorder,
    Regression,
    WeightedHalfSquaredError,
    relative_eigenvalues,
)
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin import preconditioners
from keras_langevin.diagnostics.temperatures import chi_squared_band
from keras_langevin.learning_rate.limits import StepSize
from keras_langevin.optimizers.sghmc import SGHMC
from keras_langevin.schedules import CyclicalCosine
from keras_langevin.weights import parameters

BURN_IN = 80


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.law)


one_scheme = pytest.mark.parametrize("scheme", [slow("baoab"), "euler"])
both_schemes = pytest.mark.parametrize("scheme", ["baoab", "euler"])


class MomentumRecorder(keras.callbacks.Callback):
    """The mean of r² at every reading after the burn-in."""

    def __init__(self, burn_in=BURN_IN):
        super().__init__()
        self.burn_in, self.squares = burn_in, []

    def on_train_batch_end(self, batch, logs=None):
        if batch >= self.burn_in and batch % READ_EVERY == READ_EVERY - 1:
            momenta = [ops.convert_to_numpy(r).ravel() for r in self.model.optimizer.momenta]
            self.squares.append(np.mean(np.concatenate(momenta).astype("float64") ** 2))


def draw_momenta(optimizer, temperature):
    generator = np.random.default_rng(3)
    for r in optimizer.momenta:
        r.assign(temperature**0.5 * generator.normal(size=r.shape))


# --------------------------------------------------------------- one weight, many chains

N = 100


class NoisyTargets(keras.utils.PyDataset):
    """Minibatches of one example: the gradient of every chain has a noise N(0, V) of its own."""

    def __init__(self, steps, chains, gradient_noise):
        super().__init__()
        self.steps, self.chains, self.stddev = steps, chains, gradient_noise**0.5
        self.generator = np.random.default_rng(4)

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        targets = self.stddev * self.generator.normal(size=(1, self.chains))
        return np.ones((1, 1), "float32"), targets.astype("float32")


def one_weight(optimizer, gradient_noise=0.0, steps=560, burn_in=BURN_IN, chains=16000):
    """E[θ²] N/T and E[r²]/T of chains on U = Nθ²/2 that start with their posterior's law."""
    layer = keras.layers.Dense(chains, use_bias=False)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(
        optimizer, HalfSquaredError(), jit_compile=JIT, steps_per_execution=STEPS_PER_EXECUTION
    )
    start = np.random.default_rng(2).normal(size=(1, chains))
    layer.kernel.assign(start * (optimizer.temperature / N) ** 0.5)
    optimizer.build(model.trainable_variables)
    draw_momenta(optimizer, optimizer.temperature)
    positions, momenta = Recorder(burn_in), MomentumRecorder(burn_in)
    targets = NoisyTargets(steps, chains, gradient_noise)
    model.fit(targets, epochs=1, verbose=0, shuffle=False, callbacks=[positions, momenta])
    squares = np.mean(np.square(positions.draws)) * N, np.mean(momenta.squares)
    return np.array(squares) / optimizer.temperature


def sghmc(share, cls=SGHMC, momentum=0.9, **arguments):
    """On the one weight, whose curvature is 1."""
    learning_rate = 2 * (1 + momentum) * share
    return cls(learning_rate, num_data=N, momentum=momentum, prior=None, seed=1, **arguments)


def law(scheme, share, momentum=0.9):
    """Variance of position and momentum over the posterior's and T."""
    if scheme == "baoab":
        return np.ones(2)
    return np.array([1.0, 2 / (1 + momentum)]) / (1 - share)


@pytest.mark.parametrize("temperature", [1.0, slow(0.3)])
@both_schemes
def test_law_at_a_large_step(scheme, temperature):
    optimizer = sghmc(0.375, scheme=scheme, temperature=temperature)
    assert one_weight(optimizer) == pytest.approx(law(scheme, 0.375), rel=0.02)


@pytest.mark.law
@pytest.mark.parametrize("momentum", [0.0, 0.6])
@both_schemes
def test_law_at_other_momenta(scheme, momentum):
    optimizer = sghmc(0.3, scheme=scheme, momentum=momentum)
    assert one_weight(optimizer) == pytest.approx(law(scheme, 0.3, momentum), rel=0.02)


def variance_for(noise, share):
    """V that is the share ρ of the noise that T = 1 asks for."""
    return noise * 2 * (1 - 0.9) / (2 * 1.9 * share * N)


# Scheme, x, ρ, whether V is known, variance over the posterior's.
NOISY = [
    slow("euler", 0.05, 0.0, False, 1 / 0.95),
    pytest.param("euler", 0.05, 0.8, True, 1 / 0.95, marks=pytest.mark.neutral),
    slow("euler", 0.05, 0.8, False, 1.8 / 0.95),
    slow("euler", 0.05, 3.0, False, 4.0 / 0.95),
    slow("euler", 0.05, 3.0, True, 3.0 / 0.95),  # nothing is left to be injected
    slow("baoab", 0.3, 0.8, False, 1 + 0.8 / 0.7),
    ("baoab", 0.3, 0.8, True, 1 + 0.8 * 0.3 / 0.7),
    slow("baoab", 0.05, 0.8, True, 1 + 0.8 * 0.05 / 0.95),
]


@pytest.mark.parametrize(("scheme", "share", "noise", "is_known", "expected"), NOISY)
def test_law_with_minibatch_noise(scheme, share, noise, is_known, expected):
    variance = variance_for(noise, share)
    optimizer = sghmc(share, scheme=scheme, noise_estimate=variance if is_known else None)
    assert one_weight(optimizer, variance)[0] == pytest.approx(expected, rel=0.03)


@one_scheme
def test_law_with_estimated_minibatch_noise(scheme):
    """Four fifths of the noise come from minibatches; without an estimate the factor is 1.8."""
    share, noise = 0.005, 0.8
    variance = variance_for(noise, share)
    optimizer = sghmc(share, scheme=scheme, noise_estimate="successive_differences")
    position, _ = one_weight(optimizer, variance, steps=1200, burn_in=480, chains=8000)
    step = 2 * 1.9 * share
    taken_for_noise = (1 - noise * step) / (1 + step**2 / 4 / (1 - 0.9))
    assert position == pytest.approx(taken_for_noise, rel=0.03)
    (estimates,) = optimizer._differences.variances
    mean = np.mean(ops.convert_to_numpy(estimates))
    assert mean == pytest.approx(variance * (1 + step), rel=0.02)


class Alternating(keras.optimizers.schedules.LearningRateSchedule):
    """ℓ and ℓ/4 in turns of 20 steps."""

    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def __call__(self, step):
        return ops.where(step // 20 % 2 == 0, 1.0, 0.25) * self.learning_rate


def law_of_alternating(learning_rate, β=0.9, steps=560):
    """Variance of position and momentum over the posterior's and T, mean over the readings."""
    covariance, readings = np.eye(2), []
    for step in range(steps):
        h = (2 * (learning_rate if step // 20 % 2 == 0 else learning_rate / 4) / (1 + β)) ** 0.5
        kick, drift = np.array([[1, 0], [-h, 1]]), np.array([[1, h / 2], [0, 1]])
        covariance = drift @ kick @ covariance @ kick.T @ drift.T
        covariance = np.diag([1, β]) @ covariance @ np.diag([1, β]) + np.diag([0, 1 - β**2])
        covariance = drift @ covariance @ drift.T
        if step >= BURN_IN and step % READ_EVERY == READ_EVERY - 1:
            readings.append(np.diag(covariance))
    return np.mean(readings, axis=0)


class StoredVelocity(SGHMC):
    """h r is kept in the place of r, and not rescaled when h changes."""

    def time_step(self, learning_rate):
        self.__dict__["h"] = super().time_step(learning_rate)
        return self.__dict__["h"]

    def _baoab(self, r, kick, β, noise):
        velocity, r = super()._baoab(r / self.h, kick, β, noise)
        return velocity, self.h * r


@pytest.mark.neutral
@pytest.mark.parametrize("cls", [SGHMC, slow(StoredVelocity)])
def test_law_with_a_learning_rate_that_changes(cls):
    learning_rate = 2 * 1.9 * 0.375
    optimizer = cls(Alternating(learning_rate), num_data=N, momentum=0.9, prior=None, seed=1)
    position, momentum = one_weight(optimizer)
    expected = law_of_alternating(learning_rate)
    assert expected[0] == pytest.approx(1.0, abs=0.01)
    assert (position == pytest.approx(expected[0], rel=0.02)) == (cls is SGHMC)
    assert (momentum == pytest.approx(expected[1], rel=0.02)) == (cls is SGHMC)


# ----------------------------------------------------------------- correlated, with a metric


class Chains(Regression):
    """Without the pass over the data that `Regression` fills the metric with: it is at rest."""

    def second_moments(self, optimizer, start, steps=480, batch_size=None):
        """E[(θ − μ)(θ − μ)ᵀ] and the mean of r²; the metric is that at the posterior mean."""
        loss = HalfSquaredError() if batch_size is None else WeightedHalfSquaredError()
        model = self.model(optimizer, loss)
        optimizer.build(model.trainable_variables)
        with optimizer.filling_metric():
            self.fit(model, 1, batch_size, whole=True)
        self.place(model, start)
        draw_momenta(optimizer, optimizer.temperature)
        positions, momenta = Recorder(BURN_IN), MomentumRecorder()
        self.fit(model, steps, batch_size, callbacks=[positions, momenta])
        offset = np.stack(positions.draws) - self.mean[:, None]
        second_moment = np.einsum("tir,tjr->ij", offset, offset) / offset[:, 0].size
        return second_moment, np.mean(momenta.squares)

    def exact_law(self, metric_inverse, learning_rate, β, scheme, temperature, batch_size):
        """Covariance of θ, and the mean of r², on independent minibatches drawn with replacement:
        the fixed point of the recursion of second moments of (θ, r)."""
        identity, n = np.eye(3), self.n
        factor = np.linalg.cholesky(metric_inverse)
        if scheme == "euler":
            h, kicked, passed = (learning_rate / n) ** 0.5, 1.0, 1.0
            injected, moved = 2 * temperature * (1 - β), 1.0
            carried = β
        else:
            h, kicked, passed = (2 * learning_rate / n / (1 + β)) ** 0.5, β, 0.5 * (1 + β)
            injected, moved = temperature * (1 - β**2), 0.5
            carried = 0.5 * (1 + β)
        force = -h * n * factor.T  # on r, of the gradient of G
        by_gradient = np.r_[h * passed * factor @ force, kicked * force]
        by_noise = injected**0.5 * np.r_[h * moved * factor, identity]
        free = np.block([[identity, h * carried * factor], [np.zeros((3, 3)), β * identity]])
        step = free + by_gradient @ np.c_[self.hessian, np.zeros((3, 3))]
        gradients = self.design * (self.design @ self.mean - self.y)[:, None]
        gradients -= gradients.mean(0)
        source = by_gradient @ (gradients.T @ gradients) @ by_gradient.T / n / batch_size
        source += by_noise @ by_noise.T
        operator = np.eye(36) - np.kron(step, step)
        data_hessian = self.design.T @ self.design / n
        for row in self.design:
            deviation = by_gradient @ np.c_[np.outer(row, row) - data_hessian, np.zeros((3, 3))]
            operator -= np.kron(deviation, deviation) / batch_size / n
        covariance = np.linalg.solve(operator, source.ravel()).reshape(6, 6)
        return covariance[:3, :3], np.trace(covariance[3:, 3:]) / 3


PROBLEM = Chains()
C = PROBLEM.quasi_diagonal_inverse()
STIFFEST = np.linalg.eigvals(C @ PROBLEM.hessian).real.max()
FROZEN = {
    "averaging": preconditioners.Averaging(freeze_after=1),
    "epsilon": 0.0,
    "statistics_stride": 1,
}


def qdop(
    share, scheme, cls=SGHMC, metric_class=preconditioners.QuasiDiagonalOuterProduct, temperature=1
):
    return cls(
        2 * 1.9 * share / STIFFEST,
        num_data=PROBLEM.n,
        scheme=scheme,
        preconditioner=metric_class(**FROZEN),
        temperature=temperature,
        prior=kl.priors.Normal(1.0),
        seed=1,
    )


def closed_form(scheme, learning_rate, temperature, β=0.9):
    """(T/N) H⁻¹ with "baoab", whatever C, and (T/N)(H − ℓ/(2(1+β)) H C H)⁻¹ with "euler"."""
    step = learning_rate / (1 + β) if scheme == "euler" else 0.0
    return PROBLEM.exact_covariance(C, step, temperature)


def ratios(share, scheme, batch_size=None, steps=480, **arguments):
    """Eigenvalues of measured over exact covariance, and the same of the mean of r²."""
    optimizer = qdop(share, scheme, **arguments)
    learning_rate = float(ops.convert_to_numpy(optimizer.learning_rate))
    law = learning_rate, 0.9, scheme, optimizer.temperature
    exact, kinetic = PROBLEM.exact_law(C, *law, batch_size or np.inf)
    if batch_size is None:
        exact = closed_form(scheme, learning_rate, optimizer.temperature)
    moment, squares = PROBLEM.second_moments(optimizer, exact, steps, batch_size)
    if not np.isfinite(moment).all():
        return np.full(3, np.inf), np.inf
    return relative_eigenvalues(moment, exact), squares / kinetic


@both_schemes
def test_the_closed_form_is_the_fixed_point_of_the_recursion(scheme):
    exact, kinetic = PROBLEM.exact_law(C, 0.7 / STIFFEST, 0.9, scheme, 0.3, np.inf)
    np.testing.assert_allclose(exact, closed_form(scheme, 0.7 / STIFFEST, 0.3), rtol=1e-6)
    if scheme == "baoab":
        assert kinetic == pytest.approx(0.3)


@pytest.mark.parametrize("temperature", [1.0, slow(0.3)])
@pytest.mark.parametrize("scheme", [pytest.param("baoab", marks=pytest.mark.neutral), "euler"])
def test_covariance_with_a_metric(scheme, temperature):
    covariance, kinetic = ratios(0.25, scheme, temperature=temperature)
    assert covariance == pytest.approx(1.0, abs=0.04)
    assert kinetic == pytest.approx(1.0, abs=0.02)


@pytest.mark.law
@pytest.mark.further
@pytest.mark.parametrize("temperature", [1.0, 0.3])
@both_schemes
def test_covariance_with_a_metric_and_minibatches(scheme, temperature):
    covariance, kinetic = ratios(0.01, scheme, batch_size=20, temperature=temperature)
    assert covariance == pytest.approx(1.0, abs=0.04)
    assert kinetic == pytest.approx(1.0, abs=0.02)


# ------------------------------------------------------------------------------- mutants


class OrnsteinUhlenbeckNoise(SGHMC):
    """T(1−β²), the noise of "baoab", with "euler"."""

    def noise_variance(self, learning_rate, β, gradient_noise=0.0):
        return super().noise_variance(learning_rate, β, gradient_noise) * 0.5 * (1 + β)


class RootTwoMissing(SGHMC):
    def noise_variance(self, learning_rate, β, gradient_noise=0.0):
        return super().noise_variance(learning_rate, β, gradient_noise) / 2


class NoiseThatRepeats(SGHMC):
    """What a random state that JAX does not track would give."""

    def normals(self, shapes, iteration=None):
        return super().normals(shapes, iteration=0)


class MomentumAppliedTwice(SGHMC):
    def _euler(self, r, kick, β, noise):
        return super()._euler(β * r, kick, β, noise)

    def _baoab(self, r, kick, β, noise):
        return super()._baoab(β * r, kick, β, noise)


class ReducedForTheMomentumAlone(SGHMC):
    """Keeps the variance of β (r − kick) + noise in "baoab", not where it sends θ."""

    def noise_variance(self, learning_rate, β, gradient_noise=0.0):
        kick = 2 * learning_rate * self.num_data * gradient_noise / (1 + β)
        return super().noise_variance(learning_rate, β) - β**2 * kick


class FactorForItsTranspose(preconditioners.QuasiDiagonalOuterProduct):
    def whiten(self, metric, vectors):
        return self.sample(metric, vectors)


def fails_on_one_weight(cls, scheme):
    position, kinetic = one_weight(sghmc(0.375, cls, scheme=scheme)) / law(scheme, 0.375)
    return not abs(position - 1) < 0.02 or not abs(kinetic - 1) < 0.02


@pytest.mark.law
@pytest.mark.parametrize(
    ("cls", "scheme"),
    [
        (OrnsteinUhlenbeckNoise, "euler"),
        (RootTwoMissing, "euler"),
        (RootTwoMissing, "baoab"),
        (NoiseThatRepeats, "euler"),
        (NoiseThatRepeats, "baoab"),
        (MomentumAppliedTwice, "euler"),
        (MomentumAppliedTwice, "baoab"),
    ],
)
def test_mutants_fail_the_test_of_the_law(cls, scheme):
    assert fails_on_one_weight(cls, scheme)


@pytest.mark.law
def test_a_wrong_reduction_of_the_noise_fails():
    variance = variance_for(0.8, 0.05)
    for cls in (SGHMC, ReducedForTheMomentumAlone):
        optimizer = sghmc(0.05, cls, noise_estimate=variance)
        position, _ = one_weight(optimizer, variance)
        expected = 1 + 0.8 * 0.05 / 0.95
        assert (position == pytest.approx(expected, rel=0.03)) == (cls is SGHMC)


@pytest.mark.law
@both_schemes
def test_the_factor_in_the_place_of_its_transpose_fails(scheme):
    for metric_class in (preconditioners.QuasiDiagonalOuterProduct, FactorForItsTranspose):
        covariance, _ = ratios(0.05, scheme, steps=240, metric_class=metric_class)
        fails = covariance != pytest.approx(1.0, abs=0.04)
        assert fails == (metric_class is FactorForItsTranspose)


# -------------------------------------------------------------------------------- metrics

ABSTRACT = ("Preconditioner", "Averaging", "AveragingPreconditioner", "Diagonal", "Fisher")
METRICS = [name for name in preconditioners.__all__ if name not in ABSTRACT]


# Pairs of numbers, dense matrices and shears run on every backend; the others are diagonal, or
# differ from these in what they measure.
EVERYWHERE = ("QuasiDiagonalOuterProduct", "DenseFisher", "BatchNormalization")


@pytest.mark.parametrize(
    "name",
    [n if n in EVERYWHERE else pytest.param(n, marks=pytest.mark.neutral) for n in METRICS],
)
def test_whitening_is_the_transpose_of_sampling(name):
    """⟨Lᵀv, ξ⟩ = ⟨v, Lξ⟩ and L Lᵀ = C, on the metric of a small network after some training."""
    metric = getattr(preconditioners, name)()
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dense(2, use_bias=False)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    optimizer = SGHMC(1e-3, num_data=64, preconditioner=metric, seed=1)
    model.compile(optimizer, loss="mse", jit_compile=JIT_IF_NEEDED)
    kl.track_statistics(model, optimizer)
    x = np.random.default_rng(0).normal(2.0, 1.0, size=(64, 3)).astype("float32")
    y = x[:, :2]
    if hasattr(metric, "set_data"):
        metric.set_data(x, y)
    model.fit(x, y, batch_size=32, epochs=1, verbose=0)
    shapes, at = metric.layout.shapes, metric.current()
    whiten, sample, solve = (
        dense(lambda v, f=f: f(at, v), shapes) for f in (metric.whiten, metric.sample, metric.solve)
    )
    scale = np.abs(sample).max()
    np.testing.assert_allclose(whiten, sample.T, rtol=1e-4, atol=1e-6 * scale)
    np.testing.assert_allclose(sample @ whiten, solve, rtol=1e-3, atol=1e-5 * scale**2)


# ------------------------------------------------------------------------- what it has to do


def path(optimizer, steps=6):
    keras.utils.set_random_seed(0)
    model = one_layer(optimizer, "mse", units=2)
    x = np.random.default_rng(0).normal(size=(16, 3))
    return run(model, x, x[:, :2], steps)[0]


@both_schemes
def test_cold_it_is_sgd_with_momentum(scheme):
    cold = path(SGHMC(0.1, num_data=16, momentum=0.8, scheme=scheme, temperature=0.0, prior=None))
    expected = path(keras.optimizers.SGD(0.1, momentum=0.8))
    np.testing.assert_allclose(cold, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.neutral
@one_scheme
def test_without_noise_while_a_schedule_explores(scheme):
    def cyclical(temperature):
        rate = CyclicalCosine(0.05, cycle_steps=6, exploration=0.5)
        return path(SGHMC(rate, num_data=16, scheme=scheme, temperature=temperature, seed=1))

    warm, cold = cyclical(1.0), cyclical(0.0)
    np.testing.assert_array_equal(warm[:3], cold[:3])
    assert np.abs(warm[3] - cold[3]).max() > 1e-3


@pytest.mark.neutral
@one_scheme
def test_friction_is_a_momentum(scheme):
    time = (0.05 / 16) ** 0.5
    β = np.exp(-3 * time) if scheme == "baoab" else 1 - 3 * time
    by_momentum = path(SGHMC(0.05, num_data=16, momentum=β, scheme=scheme, seed=1))
    optimizer = SGHMC(0.05, num_data=16, friction=3.0, scheme=scheme, seed=1)
    np.testing.assert_allclose(path(optimizer), by_momentum, rtol=1e-4, atol=1e-6)
    assert optimizer.momentum == pytest.approx(β, rel=1e-6)


def test_nothing_moves_while_the_metric_is_filled():
    metric = preconditioners.QuasiDiagonalOuterProduct()
    model = compiled(1e-2, SGHMC, preconditioner=metric, noise_estimate="successive_differences")
    model.fit(*data(), batch_size=20, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=1)])

    def state():
        differences = model.optimizer._differences
        own = [*model.optimizer.momenta, *differences.previous, *differences.variances]
        return [np.array(ops.convert_to_numpy(v)) for v in [*parameters(model), *own]]

    before = state()
    kl.warm_up_metric(model, *data(), batch_size=20, num_batches=4)
    for old, new in zip(before, state(), strict=True):
        np.testing.assert_array_equal(old, new)
        assert np.abs(old).max() > 0
    assert float(ops.convert_to_numpy(metric.count)) == 14


@one_scheme
def test_the_logs_hold_the_kinetic_temperature(scheme):
    """Where only the prior acts, with a metric that is far from 1."""
    metric = preconditioners.RMSProp(epsilon=1e-4)
    optimizer = SGHMC(
        0.05,
        num_data=100,
        scheme=scheme,
        temperature=0.3,
        prior=kl.priors.Normal(2.0),
        seed=1,
        preconditioner=metric,
    )
    model = one_layer(optimizer, NoLoss(), units=250)
    data = Constant(SIGNS, np.zeros((4, 250)), steps=100)
    logs = model.fit(data, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=0)]).history
    bounds = [logs[f"kinetic_temperature_{which}"][0] for which in ("low", "high")]
    assert bounds == pytest.approx([0.3 * 0.889, 0.3 * 1.119], abs=0.3 * 0.0005)  # d = 1000
    assert bounds[0] < logs["kinetic_temperature"][0] < bounds[1]
    assert logs["noise_scale"][0] == pytest.approx((2 * 0.05 * 0.3 * 0.1 / 100) ** 0.5, rel=1e-4)


@every_row("degrees, low, high", [(20, 0.3717, 1.9998), (1000, 0.8886, 1.1190)])
def test_the_chi_squared_band(degrees, low, high):
    """Against tables of χ²: 7.434 and 39.997 for 20 degrees of freedom."""
    assert chi_squared_band(degrees) == pytest.approx((low, high), rel=0.01)


# ------------------------------------------------------------------------------------ "auto"


def test_the_limits_know_the_momentum():
    measured = {"largest_eigenvalue": 4.0, "gradient_noise": 2.0, "batch_size": 20}
    measured.update(num_data=200, temperature=1.0)
    without, found = StepSize(**measured), StepSize(**measured, momentum=0.9)
    assert without.stability_limit == 0.5
    assert found.stability_limit == pytest.approx(1.9 * without.stability_limit)
    assert found.noise_limit == pytest.approx(0.1 * without.noise_limit)
    assert found.recommended == pytest.approx(0.5 * 0.1 * without.noise_limit)
    assert "2(1+β)/λ = 0.95" in found.problems(1.0)[0]
    cold = dataclasses.replace(found, temperature=0.0)
    assert cold.recommended == pytest.approx(0.5 * without.stability_limit)
    assert cold.recommended_for(10**6) == cold.recommended


def test_auto_bounds_the_noise_of_minibatches():
    metric = preconditioners.QuasiDiagonalOuterProduct()
    model = compiled("auto", SGHMC, preconditioner=metric)
    sampler = kl.PosteriorSampler(burn_in=1)
    history = model.fit(*data(), 20, 2, verbose=0, callbacks=[sampler]).history
    assert history["minibatch_noise"][-1] == pytest.approx(0.5)
    assert history["learning_rate"][-1] > 0
    assert model.optimizer.get_config()["learning_rate"] == "auto"


# --------------------------------------------------------------------------------- arguments


@every_row(
    "arguments, message",
    [
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\).*momentum=1\.0"),
        ({"momentum": -0.1}, r"`momentum` must be in \[0, 1\)"),
        ({"momentum": "fast"}, "`momentum` must be a finite number"),
        ({"friction": 0.0}, "`friction` must be greater than zero"),
        ({"friction": 1.0, "momentum": 0.9}, "`momentum` or `friction`, not both"),
        ({"friction": 1.0, "learning_rate": "auto"}, 'learning_rate="auto", friction=1.0'),
        ({"scheme": "leapfrog"}, "`scheme` must be one of.*scheme='leapfrog'"),
        ({"noise_estimate": -1.0}, "`noise_estimate` must not be negative"),
        ({"noise_estimate": "fisher"}, '`noise_estimate` must be None.*"successive_differences"'),
        (
            {"preconditioner": preconditioners.RMSProp(divergence=True)},
            "divergence term.*divergence=True",
        ),
        ({"num_data": None}, "`num_data` is required"),
        ({"use_ema": True}, "collapses the variance"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SGHMC(**{"learning_rate": 0.1, "num_data": 100, **arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"momentum": 0.5, "scheme": "euler", "noise_estimate": 0.25},
        {"friction": 2.0, "noise_estimate": "successive_differences"},
    ],
)
def test_config_round_trip(arguments):
    metric = preconditioners.QuasiDiagonalOuterProduct(
        damping=3.0, averaging=preconditioners.Averaging(freeze_after=7)
    )
    optimizer = SGHMC(0.1, num_data=50, preconditioner=metric, **arguments)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is SGHMC
    assert again.get_config() == optimizer.get_config()
    assert again.preconditioner.get_config() == metric.get_config()
    assert again.momentum == optimizer.momentum


def rows_of_the_laws():
    """Scheme, target, T, batch, covariance / exact, E[r²] / exact."""
    for scheme, temperature in itertools.product(("baoab", "euler"), (1.0, 0.3)):
        optimizer = sghmc(0.375, scheme=scheme, temperature=temperature)
        measured = one_weight(optimizer) / law(scheme, 0.375)
        yield scheme, "one weight, x = 0.375", temperature, "all", *map("{:.3f}".format, measured)
        for share, batch_size in ((0.25, None), (0.01, 20)):
            arguments = {"batch_size": batch_size, "temperature": temperature}
            covariance, kinetic = ratios(share, scheme, **arguments)
            between = f"{covariance.min():.3f} to {covariance.max():.3f}"
            target, batch = f"regression, QDOP, x = {share}", batch_size or "all"
            yield scheme, target, temperature, batch, between, f"{kinetic:.3f}"


if __name__ == "__main__":
    for row in rows_of_the_laws():
        print("|", " | ".join(map(str, row)), "|", flush=True)
