"""One step of microcanonical dynamics against float64, and what it conserves."""

import numpy as np
import pytest
from keras import ops

from keras_langevin.optimizers.microcanonical import dot, kick, normalised, refresh


def arrays(*vectors):
    return [ops.convert_to_tensor(np.asarray(v, "float32")) for v in vectors]


def flat(vectors):
    return np.concatenate([ops.convert_to_numpy(v).astype("float64").ravel() for v in vectors])


def unit(rng, dimension):
    u = rng.normal(size=dimension).astype("float32").astype("float64")
    return u / np.linalg.norm(u)


def exact_kick(u, g, time):
    """In float64, from the definition: cosh and sinh."""
    d, size = len(u), np.linalg.norm(g)
    e, delta = g / size, time * size / (len(u) - 1)
    c = e @ u
    # In extended precision cosh δ + c sinh δ − 1 keeps its digits for small δ.
    delta, c = np.longdouble(delta), np.longdouble(c)
    speed = np.log1p(2 * np.sinh(delta / 2) ** 2 + c * np.sinh(delta))
    turned = u + e * float(np.sinh(delta) + c * (np.cosh(delta) - 1))
    return turned / np.linalg.norm(turned), float((d - 1) * speed)


# Of |u| = 1 and slopes as in a network: δ = h|g|/(d − 1) from 1e-6 to 3.
@pytest.mark.parametrize(
    ("dimension", "delta"),
    [(10, 1e-3), (10, 0.3), (10, 3.0), (400_000, 1e-6), (400_000, 1e-4), (400_000, 0.1)]
    + [pytest.param(10**7, delta, marks=pytest.mark.law) for delta in (1e-6, 1e-4)],
)
@pytest.mark.parametrize("cosine", [0.0, 0.7, -0.7])
def test_kick_against_float64(dimension, delta, cosine):
    """The energy to 1e-5 of the work h|g| that it measures, the direction to 1e-5."""
    rng = np.random.default_rng(0)
    u, other = unit(rng, dimension), unit(rng, dimension)
    other -= (other @ u) * u
    g = cosine * u + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)
    time = 0.01
    g = (g * delta * (dimension - 1) / time).astype("float32")
    u = u.astype("float32")
    half = dimension // 2
    turned, gained = kick(arrays(u[:half], u[half:]), arrays(g[:half], g[half:]), time, dimension)
    u, g = u.astype("float64"), g.astype("float64")
    expected, energy = exact_kick(u / np.linalg.norm(u), g, time)
    work = time * np.linalg.norm(g)
    assert float(ops.convert_to_numpy(gained)) == pytest.approx(energy, abs=1e-5 * max(1.0, work))
    np.testing.assert_allclose(flat(turned), expected, atol=1e-5)
    assert np.linalg.norm(flat(turned)) == pytest.approx(1.0, abs=1e-6)


def test_the_published_energy_loses_its_digits():
    """(d − 1)(δ − log 2 + log((1 + c) + (1 − c) e^(−2δ))) in float32, at d = 4e5: the test above
    would fail with it."""
    dimension, delta, cosine = 400_000, np.float32(1e-4), np.float32(0.1)
    with_e = (1 + cosine) + (1 - cosine) * np.exp(-2 * delta)
    published = (dimension - 1) * (delta - np.log(np.float32(2)) + np.log(with_e))
    exact = (dimension - 1) * np.log1p(2 * np.sinh(0.5e-4) ** 2 + 0.1 * np.sinh(1e-4))
    assert abs(float(published) - exact) > 1e-5 * (dimension - 1) * delta


@pytest.mark.parametrize("cosine", [-1.0, -1 + 1e-7, 1.0])
@pytest.mark.parametrize("delta", [0.5, 5.0, 30.0])
def test_kick_along_and_against_the_slope_is_finite(cosine, delta):
    e = np.eye(5)[0]
    u = cosine * e + np.sqrt(max(1 - cosine**2, 0.0)) * np.eye(5)[1]
    turned, gained = kick(arrays(u), arrays(4.0 * delta * e), 1.0, 5)
    assert np.isfinite(flat(turned)).all()
    expected = 4.0 * delta * np.sign(cosine)
    if abs(cosine) == 1.0:
        assert float(ops.convert_to_numpy(gained)) == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_kick_is_reversible():
    rng = np.random.default_rng(1)
    u, g = unit(rng, 50), 20 * rng.normal(size=50)
    there, gained = kick(arrays(u), arrays(g), 0.3, 50)
    back, lost = kick(there, arrays(-g), 0.3, 50)
    np.testing.assert_allclose(flat(back), u, atol=1e-5)
    total = ops.convert_to_numpy(gained) + ops.convert_to_numpy(lost)
    assert float(total) == pytest.approx(0.0, abs=1e-4)


def test_refresh_decorrelates_by_the_factor_it_says():
    """E[u'·u] = e^(−x) for a small time x, in units of the decoherence length."""
    rng = np.random.default_rng(2)
    dimension, x = 1000, 0.05
    u = arrays(unit(rng, dimension))
    overlaps = []
    for _ in range(50):
        turned = refresh(u, arrays(rng.normal(size=dimension)), x, dimension)
        overlaps.append(float(ops.convert_to_numpy(dot(turned, u))))
    assert np.mean(overlaps) == pytest.approx(np.exp(-x), abs=0.003)


def test_without_decoherence_nothing_turns():
    u = arrays(unit(np.random.default_rng(3), 10))
    turned = refresh(u, arrays(np.ones(10)), 0.0, 10)
    np.testing.assert_allclose(flat(turned), flat(u), atol=1e-7)


def test_normalised_spans_all_variables():
    vectors = normalised(arrays(np.ones((3, 4)), 2 * np.ones(5)))
    assert np.linalg.norm(flat(vectors)) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(flat(vectors)[-1] / flat(vectors)[0], 2.0, rtol=1e-5)
