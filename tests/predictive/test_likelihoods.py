"""Every likelihood by its laws: it is the loss normalised, and what a family states of it, its
moments, its distribution function, its draws and its Fisher information, are those of the density.
"""

import functools

import keras
import numpy as np
import pytest
from keras import losses, ops
from scipy import stats

import keras_langevin as kl
from keras_langevin.predictive import Family
from keras_langevin.predictive.huber import Huber
from keras_langevin.predictive.laplace import Laplace
from keras_langevin.predictive.log_cosh import LogCosh
from keras_langevin.predictive.negative_binomial import NegativeBinomial
from keras_langevin.predictive.registry import find_family

RNG = np.random.default_rng(0)
TFP = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TFP needs TensorFlow")


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, "float32"))


def array(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


LINE = np.sinh(np.linspace(-12, 12, 24001))  # from -80,000 to 80,000, densest about 0
COUNTS = np.arange(3000.0)
SHARES = 1 / (1 + np.exp(-np.linspace(-14, 14, 8001)))
POSITIVE = np.expm1(np.linspace(-12, 12, 8001))  # 1 + y of a logarithm

# Loss, outputs of one example, and where y may be.
CASES = {
    "mae": (losses.MeanAbsoluteError(), [0.3], LINE),
    "mae of 3": (losses.MeanAbsoluteError(), [0.3, -2.0, 1.0], LINE),
    "huber": (losses.Huber(), [0.3], LINE),
    "huber of 3": (losses.Huber(delta=2.5), [0.3, -2.0, 1.0], LINE),
    "log_cosh": (losses.LogCosh(), [0.3], LINE),
    "log_cosh of 3": (losses.LogCosh(), [0.3, -2.0, 1.0], LINE),
    "msle": (losses.MeanSquaredLogarithmicError(), [0.7], POSITIVE),
    "msle of 2": (losses.MeanSquaredLogarithmicError(), [0.7, 12.0], POSITIVE),
    "poisson": (losses.Poisson(), [0.4, 7.0, 60.0], COUNTS),
    "negative binomial": (kl.losses.NegativeBinomialNLL(), [0.3, 3.5, -0.8, -2.5], COUNTS),
    "almost poisson": (kl.losses.NegativeBinomialNLL(), [2.0, -12.0], COUNTS),
    "student": (kl.losses.StudentTNLL(), [0.3, -2.0, 0.2, -1.0], LINE),
    "student of 9": (kl.losses.StudentTNLL(df=9), [0.3, 0.2], LINE),
    "student with df": (kl.losses.StudentTNLL(df=None), [0.3, -2.0, 0.2, -1.0, 2.0, 1.0], LINE),
    "beta": (kl.losses.BetaNLL(), [0.4, -1.0, 1.6, 3.0], SHARES),
}
ALL = pytest.mark.parametrize("name", CASES)


class Law:
    """Of one example: its densities on a grid, one column for each unit."""

    def __init__(self, family, outputs, grid):
        self.family, self.grid = family, grid
        self.outputs = np.float32(outputs)
        members = tensor(np.broadcast_to(self.outputs, (1, len(grid), len(outputs))))
        self.parameters = family.parameters(members)
        self.mean = array(family.mean(self.parameters))[0, 0]
        self.units = len(self.mean)
        self.y = np.repeat(grid[:, None], self.units, axis=1)
        self.weights = np.ones(len(grid)) if grid is COUNTS else np.gradient(grid)
        self.mass = self.weights[:, None] * np.exp(self.log_density(self.outputs))

    def log_density(self, outputs):
        members = tensor(np.broadcast_to(outputs, (1, len(self.grid), len(outputs))))
        return array(self.family.log_likelihood(members, tensor(self.y)))[0]

    def expectation(self, values):
        return np.sum(self.mass * values, axis=0)


def check_sums_to_1(law):
    np.testing.assert_allclose(law.expectation(1.0), 1.0, rtol=3e-5)


def check_moments(law, is_median=False):
    variance = array(law.family.variance(law.parameters))[0, 0]
    mean = law.expectation(law.y)
    if is_median:
        np.testing.assert_allclose(law.expectation(law.y < law.mean), 0.5, atol=2e-3)
    else:
        np.testing.assert_allclose(law.mean, mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(variance, law.expectation((law.y - mean) ** 2), rtol=3e-3)


def check_cdf(law):
    found = array(law.family.cdf(law.parameters, tensor(law.y)))[0]
    expected = np.cumsum(law.mass, axis=0) - 0.5 * law.mass  # by the trapezoidal rule
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert (np.diff(found, axis=0) >= -1e-6).all()


def check_fisher(law, rtol):
    """E[s sᵀ] of numerical slopes, unit by unit, against the root's square."""
    width, step = len(law.outputs), 1e-2
    slopes = np.stack(
        [
            (law.log_density(law.outputs + step * e) - law.log_density(law.outputs - step * e))
            / (2 * step)
            for e in np.eye(width, dtype="float32")
        ]
    )
    expected = np.einsum("iyu,jyu,yu->ij", slopes, slopes, law.mass)
    draws = np.eye(width, dtype="float32")[:, None]
    root = array(law.family.fisher_scores(tensor(law.outputs[None]), tensor(draws)))[:, 0]
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(root.T @ root / scale, expected / scale, atol=rtol)


@functools.cache
def law_of(name):
    """Made once: no test changes it."""
    loss, outputs, grid = CASES[name]
    return Law(find_family(loss), outputs, grid)


@ALL
def test_the_density_sums_to_1(name):
    check_sums_to_1(law_of(name))


@ALL
def test_moments_are_those_of_the_density(name):
    check_moments(law_of(name), is_median="msle" in name)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2] is not COUNTS])
def test_the_distribution_function_is_that_of_the_density(name):
    check_cdf(law_of(name))


@pytest.mark.parametrize("name", [name for name in CASES if name != "almost poisson"])
def test_the_fisher_information_is_that_of_the_density(name):
    check_fisher(law_of(name), rtol=0.02 if "mae" in name else 4e-3)


@pytest.mark.parametrize("log_mean", [-2.0, 1.0, 4.0, 7.0])
@pytest.mark.parametrize("log_dispersion", [-7.0, -4.0, -2.0, 0.0, 1.5])
def test_the_information_about_a_dispersion_from_poisson_to_wild(log_mean, log_dispersion):
    size, mean = np.exp(-log_dispersion), np.exp(log_mean)
    counts = np.arange(60_000.0)
    above = stats.nbinom(size, size / (size + mean)).sf(counts)
    of_size = np.sum(above / (size + counts) ** 2) - mean / (size * (size + mean))
    outputs = tensor([[log_mean, log_dispersion]])
    found = array(NegativeBinomial().fisher_scores(outputs, tensor([[1.0, 1.0]])))[0] ** 2
    assert found[0] == pytest.approx(mean / (1 + mean / size), rel=1e-4)
    assert found[1] == pytest.approx(size**2 * of_size, rel=0.06)


@pytest.mark.parametrize(
    ("family", "check"),
    [
        (
            type("Wrong", (Laplace,), {"noise_variance": lambda self, c: 2.1 * c**2})(),
            check_moments,
        ),
        (type("Wrong", (Laplace,), {"numbers": lambda self, o: 3.1})(), check_fisher),
        (type("Wrong", (Huber,), {"noise_variance": LogCosh.noise_variance})(), check_moments),
        (type("Wrong", (Huber,), {"_masses": lambda self, c: (2.0, 1.0)})(), check_sums_to_1),
        (type("Wrong", (LogCosh,), {"noise_cdf": Laplace.noise_cdf})(), check_cdf),
        (
            type("Wrong", (LogCosh,), {"noise_information": Laplace.noise_information})(),
            check_fisher,
        ),
    ],
)
def test_a_wrong_law_is_noticed(family, check):
    if check is check_fisher and isinstance(family, Laplace):
        family.noise_information = lambda count: 1.1 / count**2
    with pytest.raises(AssertionError):
        check(Law(family, [0.3], LINE), *([4e-3] if check is check_fisher else []))


# --------------------------------------------------------------------------- against the loss


def some_labels(grid, shape):
    if grid is COUNTS:
        return RNG.poisson(4.0, shape).astype("float32")
    if grid is SHARES:
        return RNG.uniform(0.01, 0.99, shape).astype("float32")
    return np.abs(RNG.normal(size=shape)).astype("float32") * (1 if grid is POSITIVE else 3)


@ALL
@pytest.mark.parametrize("positions", [(), (4,)], ids=["", "positions"])
def test_the_loss_and_the_negative_log_likelihood_differ_by_what_no_output_changes(name, positions):
    """So N times the loss is -log p(data), up to a constant; of our own losses, exactly."""
    loss, outputs, grid = CASES[name]
    family = find_family(loss)
    units = len(array(family.mean(family.parameters(tensor([[outputs]]))))[0, 0])
    y = some_labels(grid, (5, *positions, units))
    of_loss, of_density = [], []
    for scale in (0.7, 1.3):
        predicted = np.abs(np.float32(outputs)) * scale + np.zeros((*y.shape[:-1], 1), "float32")
        of_loss.append(5 * float(loss(tensor(y), tensor(predicted))))
        log_density = array(family.log_density(tensor(predicted[None]), tensor(y)))
        of_density.append(-log_density.sum())
    own = "keras_langevin" in type(loss).__module__ or "poisson" in name
    count = len(y[0].reshape(-1)) / (units if own and name != "poisson" else 1)
    if own:  # a mean over positions, and of Poisson's over units
        of_density = [one / count for one in of_density]
    assert of_density[1] - of_density[0] == pytest.approx(of_loss[1] - of_loss[0], rel=3e-4)
    if name not in ("poisson",) and own:
        assert of_density[0] == pytest.approx(of_loss[0], rel=1e-4)


FLAT = [name for name, case in CASES.items() if len(case[1]) == 1]


@pytest.mark.parametrize("name", FLAT)
def test_targets_and_outputs_may_lack_the_last_axis_as_in_keras(name):
    loss, _, grid = CASES[name]
    family = find_family(loss)
    y = some_labels(grid, (6, 1))
    predicted = np.abs(some_labels(grid, (2, 6, 1))) + 0.1
    expected = array(family.log_density(tensor(predicted), tensor(y)))
    assert expected.shape == (6,)
    for flat_y, flat_outputs in ((y[:, 0], predicted), (y, predicted[..., 0]), (y[:, 0],) * 2):
        if flat_outputs.ndim == 1:
            flat_outputs = predicted[..., 0]
        found = array(family.log_density(tensor(flat_outputs), tensor(flat_y)))
        np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-5)
        rows, _ = family.report(np.float32(flat_outputs), flat_y)
        assert all(np.isfinite(row.value) for row in rows)
        assert np.isfinite(float(loss(tensor(flat_y), tensor(flat_outputs[0]))))


TWO = [kl.losses.GaussianNLL(), kl.losses.StudentTNLL(), kl.losses.BetaNLL()]


@pytest.mark.parametrize("loss", [*TWO, kl.losses.NegativeBinomialNLL(), kl.losses.GaussianNLL(2)])
def test_our_own_losses_take_flat_targets_and_both_widths_of_floats(loss):
    outputs = RNG.normal(size=(6, 1 if getattr(loss, "stddev", None) else 2))
    y = RNG.uniform(0.1, 0.9, (6, 1))
    if isinstance(loss, kl.losses.NegativeBinomialNLL):
        y = np.ceil(y)
    expected = float(loss(tensor(y), tensor(outputs)))
    assert float(loss(tensor(y[:, 0]), tensor(outputs))) == pytest.approx(expected)
    wide = type(loss)(**{**loss.get_config(), "dtype": "float64"})
    if keras.backend.backend() != "jax":  # which needs jax_enable_x64
        each = wide.call(y, ops.convert_to_tensor(outputs, "float64"))
        assert keras.backend.standardize_dtype(each.dtype) == "float64"
        assert array(each).mean() == pytest.approx(expected, rel=1e-5)


# --------------------------------------------------------------------- draws, quantiles, guesses


@ALL
def test_draws_are_those_of_the_density(name):
    law = law_of(name)
    parameters = keras.tree.map_structure(
        lambda p: np.repeat(ops.convert_to_numpy(p)[:, :1], 5000, axis=1), law.parameters
    )
    drawn = np.asarray(law.family.sample(parameters, np.random.default_rng(0)), "float64")[0]
    assert drawn.shape == (5000, law.units)
    for unit in range(law.units):
        cdf = np.cumsum(law.mass[:, unit])
        if law.grid is COUNTS:
            p = law.mass[:12, unit]
            counted = np.array([np.mean(drawn[:, unit] == k) for k in range(12)])
            assert (np.abs(counted - p) < 4.5 * np.sqrt(p * (1 - p) / 5000) + 1e-4).all()
        else:
            middle = cdf - 0.5 * law.mass[:, unit]
            found = stats.kstest(drawn[:, unit], lambda y, f=middle: np.interp(y, law.grid, f))
            assert found.pvalue > 1e-4


@ALL
def test_quantiles_of_a_mixture_hold_their_share(name):
    loss, outputs, grid = CASES[name]
    family = find_family(loss)
    other = np.float32(outputs) * 1.5
    members = tensor(np.stack([outputs, other])[:, None])
    laws = [Law(family, o, grid) for o in (outputs, other)]
    cdf = np.mean([np.cumsum(law.mass, axis=0) for law in laws], axis=0)
    levels = (0.02, 0.5, 0.9)
    found = array(family.quantiles(members, levels))[:, 0]
    for level, quantiles in zip(levels, found, strict=True):
        for unit, q in enumerate(quantiles):
            if grid is COUNTS:
                assert q == np.searchsorted(cdf[:, unit], level)
            else:
                middle = cdf[:, unit] - 0.5 * np.mean([law.mass[:, unit] for law in laws], axis=0)
                assert np.interp(q, grid, middle) == pytest.approx(level, abs=2e-3)


@ALL
def test_nothing_constant_is_better_than_the_guess(name):
    """And the guess is reached, nearly, by a constant from where the labels come from."""
    _, outputs, _ = CASES[name]
    law = law_of(name)
    parameters = keras.tree.map_structure(
        lambda p: np.repeat(ops.convert_to_numpy(p)[:, :1], 2000, axis=1), law.parameters
    )
    y = np.asarray(law.family.sample(parameters, np.random.default_rng(1)), "float32")[0]
    rows, figures = law.family.report(parameters, y)
    rows = {row.name: row.value for row in rows}
    members = tensor(np.broadcast_to(np.float32(outputs), (1, 2000, len(outputs))))
    truth = -array(law.family.log_density(members, tensor(y))).mean()
    guess = rows["negative_log_likelihood_of_guessing"]
    assert truth - 0.02 < guess < truth + 1e-3
    assert rows["coverage_90"] == pytest.approx(0.9, abs=0.03) and len(figures) == 1
    assert rows["epistemic_share"] == 0


@pytest.mark.backend
@TFP
@pytest.mark.parametrize("name", [name for name in CASES if name != "almost poisson"])
def test_the_distribution_is_the_mixture(name):
    """(Of a size of e^12 TFP loses the digits in float32.)"""
    import tensorflow_probability as tfp

    loss, outputs, grid = CASES[name]
    family = find_family(loss)
    members = np.stack([np.float32(outputs), np.float32(outputs) * 1.5])[:, None]
    units = len(array(family.mean(family.parameters(tensor(members))))[0, 0])
    y = some_labels(grid, (1, units))
    parameters = keras.tree.map_structure(ops.convert_to_numpy, family.parameters(tensor(members)))
    if type(family).component is Family.component:
        with pytest.raises(NotImplementedError, match="must implement `component"):
            family.distribution(parameters, tfp)
        return
    found = array(family.distribution(parameters, tfp).log_prob(y))
    expected = array(family.log_density(tensor(members), tensor(y)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
