"""The correction k that a metric owes: against the law whose flux it makes vanish."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers, ops
from targets.natural_gradient_cases import flat, prepared

import keras_langevin as kl
from keras_langevin.preconditioners.fisher_correction import by_autodiff, by_finite_difference

# On torch `keras.ops.matmul` of float64 returns float32.
IS_DOUBLE = keras.backend.backend() != "torch"


def double_precision():
    if keras.backend.backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return contextlib.nullcontext()


class Logistic:
    """Two weights, F = (1/n) Σ p(1 − p) x xᵀ, in NumPy and complex step: derivatives are exact
    to rounding."""

    def __init__(self, damping=0.02):
        rng = np.random.default_rng(3)
        self.x = rng.normal(size=(6, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
        self.damping = damping
        self.points = rng.normal(size=(8, 2))

    def metric(self, θ):
        p = 1 / (1 + np.exp(-self.x @ θ))
        return (self.x.T * (p * (1 - p))) @ self.x / 6 + self.damping * np.eye(2)

    def slopes(self, θ, of):
        """∂_j of(M(θ)), the derivative in the last axis."""
        units = 1e-30j * np.eye(2)
        return np.stack([of(self.metric(θ + unit)).imag / 1e-30 for unit in units], axis=-1)

    def stationary_correction(self, θ, power=0.5):
        """What makes the flux of exp(−U/T) |M|^power vanish: |M|^-power Σ_j ∂_j (M⁻¹ |M|^power)."""
        weighted = self.slopes(θ, lambda m: np.linalg.inv(m) * np.linalg.det(m) ** power)
        return np.einsum("ijj->i", weighted) / np.linalg.det(self.metric(θ)) ** power

    def fisher(self, structure="dense"):
        optimizer = kl.SNGD(
            0.1, num_data=20, batch_size=5, damping=self.damping, structure=structure
        )
        keras.utils.set_random_seed(0)
        dense = layers.Dense(1, use_bias=False, dtype="float64")
        model = keras.Sequential([keras.Input((2,), dtype="float64"), dense])
        return prepared(optimizer, model, self.x)

    @staticmethod
    def values(θ):
        return [ops.convert_to_tensor(np.asarray(θ, "float64")[:, None])]


@pytest.mark.parametrize(("jeffreys", "power"), [(True, 0.5), (False, 0.0)])
def test_the_probability_flux_of_the_stated_law_vanishes(jeffreys, power):
    """The drift −M⁻¹∇G + (T/N) k with diffusion (T/N) M⁻¹ leaves exp(−U/T) |M|^power in place
    exactly when k is the stationary correction."""
    logistic = Logistic()
    with double_precision():
        fisher = logistic.fisher()
        for θ in logistic.points:
            values = logistic.values(θ)
            k = flat(by_autodiff(fisher, values, fisher.at(values), jeffreys))
            expected = logistic.stationary_correction(θ, power)
            tolerance = 1e-10 if IS_DOUBLE else 1e-5 * np.abs(expected).max()
            assert np.abs(k - expected).max() < tolerance


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.5), (1.0, -0.5), (-1.0, -0.5), (1.0, 0.0)])
def test_other_signs_have_a_flux(a, b):
    """The forms printed in version 3 of the paper: equations 2, 6 and 7."""
    logistic = Logistic()
    flux = 0.0
    for θ in logistic.points:
        inverse, slopes = np.linalg.inv(logistic.metric(θ)), logistic.slopes(θ, lambda m: m)
        k = a * np.einsum("ia,abj,bj->i", inverse, slopes, inverse)
        k = k + b * np.einsum("ij,abj,ab->i", inverse, slopes, inverse)
        expected = logistic.stationary_correction(θ, 0.0 if b == 0 else 0.5)
        flux = max(flux, np.abs(k - expected).max())
    assert flux > 0.1


@pytest.mark.parametrize("jeffreys", [True, False])
def test_finite_differences_agree(jeffreys):
    """Over draws z with average z zᵀ = I, to the order h²."""
    logistic = Logistic()
    with double_precision():
        fisher = logistic.fisher()
        for θ in logistic.points[:5]:
            values = logistic.values(θ)
            metric = fisher.at(values)
            draws = [logistic.values(2**0.5 * unit) for unit in np.eye(2)]
            ks = [by_finite_difference(fisher, values, metric, z, jeffreys) for z in draws]
            k = np.mean([flat(k) for k in ks], axis=0)
            expected = logistic.stationary_correction(θ, 0.5 if jeffreys else 0.0)
            assert np.abs(k - expected).max() < 2e-3 * max(np.abs(expected).max(), 1.0)


def test_finite_differences_agree_for_a_diagonal_metric():
    """k_i = (½ ∂_i Σ_k log f_k − ∂_i log f_i) / f_i."""
    logistic = Logistic()
    with double_precision():
        fisher = logistic.fisher("diagonal")
        θ = logistic.points[0]
        f = np.diag(logistic.metric(θ))
        log_slopes = logistic.slopes(θ, lambda m: np.log(np.diag(m)))
        expected = (0.5 * log_slopes.sum(axis=0) - np.diag(log_slopes)) / f
        values = logistic.values(θ)
        metric = fisher.at(values)
        ks = [
            flat(by_finite_difference(fisher, values, metric, z, True))
            for z in (logistic.values(2**0.5 * unit) for unit in np.eye(2))
        ]
    assert np.mean(ks, axis=0) == pytest.approx(expected, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("correction", ["divergence", "jeffreys"])
def test_the_midpoint_rule_agrees(correction):
    """Its mean step, over noise of covariance I in natural units, is (ηT/N) k."""

    class Chosen(kl.SNGD):
        def normals(self, shapes, iteration=None):
            return self.chosen

        def directions(self, shapes):
            return self.chosen

    logistic = Logistic()
    rate, n = 1e-3, 20
    optimizer = Chosen(
        rate,
        num_data=n,
        noise="gaussian",
        correction=correction,
        correction_method="midpoint",
        damping=logistic.damping,
        seed=1,
    )
    with double_precision():
        dense = layers.Dense(1, use_bias=False, dtype="float64")
        model = keras.Sequential([keras.Input((2,), dtype="float64"), dense])
        fisher = prepared(optimizer, model, logistic.x)
        θ = logistic.points[1]
        values = logistic.values(θ)
        metric, zeros = fisher.at(values), logistic.values(np.zeros(2))
        steps = []
        for unit in 2**0.5 * np.concatenate([np.eye(2), -np.eye(2)]):
            optimizer.chosen = logistic.values(unit)
            moved = optimizer.move(values, zeros, metric, ops.convert_to_tensor(rate, "float64"))
            steps.append(flat(moved) - θ)
        k = np.mean(steps, axis=0) / (rate / n)
    power = 0.5 if correction == "jeffreys" else 0.0
    assert k == pytest.approx(logistic.stationary_correction(θ, power), rel=5e-3)
