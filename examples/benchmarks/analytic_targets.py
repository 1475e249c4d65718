"""Three densities in ten dimensions with known moments, and four laws of gradient noise.

The definitions are those of the analytic benchmark in the code of Sommer et al. (2026), "Can
Microcanonical Langevin Dynamics Leverage Mini-Batch Gradient Noise?", arXiv:2602.06500. It takes
E[x²] and Var[x²] of Rosenbrock and Funnel from long chains; here they are exact, which moves
Var[x²] of Rosenbrock's y by 0.1 % and of Funnel's x, whose share in the score is small, by four.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

D = 10
SPREADS = np.logspace(-1, 1, D)  # standard deviations
ROTATION = np.linalg.qr(np.random.default_rng(1).standard_normal((D, D)))[0]
CORRELATED = ROTATION * SPREADS  # F of F Fᵀ = Q diag(spreads²) Qᵀ

# Factor F of the covariance F Fᵀ that one row of data gives the gradient.
NOISES = {
    "isotropic": np.eye(D),
    "diagonal": np.diag(SPREADS),
    "correlated": CORRELATED,
    "spatial": CORRELATED,
}
SPATIAL = "spatial"


@dataclasses.dataclass(frozen=True)
class Target:
    """A density on R^10.

    Attributes:
        name: Of the density.
        log_density: Function of one point, up to a constant.
        draw: Function from a NumPy generator to a point that follows the density.
        start: Where published chains start.
        second_moment, variance: E[xᵢ²] and Var[xᵢ²], each of shape (10,).
        slow: Direction, in units of its standard deviation, that chains are slow to cross.
        length: s; spatially varied noise is multiplied by exp(−x₂/s), x₂ the third coordinate.
    """

    name: str
    log_density: Callable
    draw: Callable
    start: np.ndarray
    second_moment: np.ndarray
    variance: np.ndarray
    slow: np.ndarray
    length: float

    def bias(self, second_moment):
        """b²_avg: mean over i of (estimate of E[xᵢ²] − E[xᵢ²])² / Var[xᵢ²]."""
        return np.mean((second_moment - self.second_moment) ** 2 / self.variance, -1)


def coordinates(x, which):
    """x[which], by a product: the gradient of a slice stops XLA from vectorizing, twice slower."""
    return x @ jnp.asarray(np.eye(D)[:, which], "float32")


def gaussian():
    """N(0, Q diag(spreads²) Qᵀ)."""
    precision = (ROTATION / SPREADS**2) @ ROTATION.T
    moment = np.sum(CORRELATED**2, axis=1)
    return Target(
        "ICG",
        lambda x: -0.5 * x @ jnp.asarray(precision, "float32") @ x,
        lambda rng: CORRELATED @ rng.standard_normal(D),
        start=np.zeros(D),
        second_moment=moment,
        variance=2.0 * moment**2,
        slow=ROTATION[:, -1] / SPREADS[-1],
        length=6.5,
    )


def rosenbrock():
    """Five times x ~ N(1, 1), y ~ N(x², 0.1): first all x, then all y."""
    pairs = D // 2

    def log_density(z):
        x, y = coordinates(z, slice(pairs)), coordinates(z, slice(pairs, D))
        return -0.5 * jnp.sum((x - 1.0) ** 2 + (x**2 - y) ** 2 / 0.1)

    def draw(rng):
        x = 1.0 + rng.standard_normal(pairs)
        return np.concatenate([x, x**2 + 0.1**0.5 * rng.standard_normal(pairs)])

    fourth, eighth = 10.0, 764.0  # of N(1, 1)
    moment = np.repeat([2.0, fourth + 0.1], pairs)
    moment_4 = np.repeat([fourth, eighth + 6 * 0.1 * fourth + 3 * 0.1**2], pairs)
    return Target(
        "Rosenbrock",
        log_density,
        draw,
        start=np.repeat([1.0, 2.0], pairs),
        second_moment=moment,
        variance=moment_4 - moment**2,
        slow=np.eye(D)[0],
        length=1.414,
    )


def funnel():
    """θ ~ N(0, 3²), nine times x ~ N(0, exp θ)."""

    def log_density(z):
        θ, x = coordinates(z, 0), coordinates(z, slice(1, D))
        return -0.5 * (θ**2 / 9.0 + jnp.exp(-θ) * jnp.sum(x**2) + (D - 1) * θ)

    def draw(rng):
        z = rng.standard_normal(D)
        return np.append(3.0 * z[0], np.exp(1.5 * z[0]) * z[1:])

    return Target(
        "Funnel",
        log_density,
        draw,
        start=np.zeros(D),
        second_moment=np.append(9.0, np.full(D - 1, np.exp(4.5))),
        variance=np.append(162.0, np.full(D - 1, 3 * np.exp(18.0) - np.exp(9.0))),
        slow=np.eye(D)[0] / 3.0,
        length=9.0,
    )


TARGETS = {target.name: target for target in (gaussian(), rosenbrock(), funnel())}
