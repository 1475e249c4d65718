"""The test for what more samples would gain: what it estimates, and how often it is wrong."""

import itertools

import numpy as np
import pytest

from keras_langevin.diagnostics import effective_sample_size
from keras_langevin.sampling import stopping_rule
from keras_langevin.sampling.stopping_rule import (
    GROWTH,
    LOOKS,
    StoppingRule,
    gain_left,
    log_e_value,
)

pytestmark = pytest.mark.neutral

MIN_GAIN, ALPHA = 0.01, 0.1


def test_what_is_left_is_what_the_density_lacks():
    """Log-normal densities, whose mean is known; samples that are independent."""
    rng = np.random.default_rng(0)
    draws = 0.5 * rng.normal(size=(2, 10, 100_000))
    found = gain_left(draws, [10.0, 10.0])
    assert found.shape == (100_000,)
    lacking = 0.5 * 0.5**2 - np.log(np.mean(np.exp(draws), axis=(0, 1)))
    assert np.mean(found) == pytest.approx(np.mean(lacking), rel=0.15)
    fewer = gain_left(draws, [5.0, 5.0])  # samples that are worth half
    np.testing.assert_allclose(fewer, 2 * found)


def test_it_has_bounds():
    assert np.all(gain_left(np.full((1, 16, 3), -7.0), [16.0]) == 0)  # all say the same
    impossible = np.full((1, 16, 1), -np.inf)
    assert gain_left(impossible, [16.0]) == 0.5
    impossible[0, 0] = -1000.0  # one sample alone knows it
    assert gain_left(impossible, [16.0]) == pytest.approx(15 / 32)
    assert gain_left(impossible, [2.0]) == 0.5
    assert gain_left(impossible, [np.nan]) == 0.5  # nobody knows what they are worth


def test_chains_that_disagree_lack_no_more_for_it():
    """More samples of each would not bring them together."""
    draws = 0.1 * np.random.default_rng(0).normal(size=(2, 50, 1000))
    apart = draws + np.array([0.0, 3.0])[:, None, None]
    assert np.mean(gain_left(apart, [50.0, 50.0])) < 2.1 * np.mean(gain_left(draws, [50.0, 50.0]))


def test_the_evidence_is_that_of_the_formula():
    gains = np.array([0.0, 0.02, 0.3])
    stakes = np.array([0.25, 0.5, 0.75, 1.0]) / (0.25 - 0.1)
    wealth = np.prod(1 + stakes[:, None] * (0.1 - np.minimum(gains, 0.25)), axis=1)
    assert log_e_value(gains, 0.1, 0.25) == pytest.approx(np.log(np.mean(wealth)))
    assert log_e_value(np.zeros(5), 0.6, 0.5) == np.inf  # no example can gain as much


def test_it_looks_at_its_times_alone():
    rule = StoppingRule(MIN_GAIN, ALPHA)
    gains = np.full(1000, MIN_GAIN)
    for age in range(1, 2000):
        rule.says_enough(age, gains)
    assert rule.num_looks == LOOKS
    assert not rule.says_enough(5000, np.zeros(1000))
    early = StoppingRule(MIN_GAIN, ALPHA)
    assert not early.says_enough(15, np.zeros(1000)) and early.says_enough(16, np.zeros(1000))


@pytest.mark.parametrize("num_examples", [30, 100, 1000, 5000])
def test_it_stops_where_half_of_it_is_left(num_examples):
    rule = StoppingRule(MIN_GAIN, ALPHA)
    gains = np.random.default_rng(0).exponential(MIN_GAIN / 4, num_examples)
    assert rule.says_enough(16, gains)
    assert not StoppingRule(MIN_GAIN, ALPHA).says_enough(16, 8 * gains)


# --------------------------------------------------------------------------- how often it is wrong


def rare(rng, size, largest):
    """A few examples gain all that there is to gain, which a few others do not show."""
    return largest * (rng.uniform(size=size) < MIN_GAIN / largest)


def typical(rng, size, largest):
    return MIN_GAIN * rng.uniform(0, 2, size=size)


def share_stopped(law, num_examples, says_enough, runs=400):
    """Of runs with exactly `MIN_GAIN` left at each of the looks, all of which look at the same
    examples, a third of them with other gains than at the look before."""
    rng = np.random.default_rng(0)
    largest = min(0.5, num_examples * MIN_GAIN / stopping_rule.EVIDENCE)
    count = 0
    for _ in range(runs):
        decides, gains = says_enough(), law(rng, num_examples, largest)
        for look in range(LOOKS):
            changed = rng.uniform(size=num_examples) < 1 / 3
            gains = np.where(changed, law(rng, num_examples, largest), gains)
            if decides(16 * (1.01 * GROWTH) ** look, gains):
                count += 1
                break
    return count / runs


def rule():
    return StoppingRule(MIN_GAIN, ALPHA).says_enough


def t_tests():
    """What one might do instead: a test of the mean at every look."""

    def says_enough(age, gains):
        error = np.std(gains, ddof=1) / len(gains) ** 0.5
        return np.mean(gains) + 1.2816 * error < MIN_GAIN  # the normal quantile of 10 %

    return says_enough


@pytest.mark.law
@pytest.mark.parametrize("law", [rare, typical])
@pytest.mark.parametrize("num_examples", [60, 300, 1000])
def test_it_is_seldom_wrong_however_often_it_looks(law, num_examples):
    error = 3 * (ALPHA / 400) ** 0.5
    assert share_stopped(law, num_examples, rule) <= ALPHA + error
    assert share_stopped(law, num_examples, t_tests) > 2 * ALPHA  # the wrong one is refused


@pytest.mark.law
def test_the_evidence_against_what_is_true_is_one_on_average():
    """Also where the examples have other expectations, which average `MIN_GAIN`."""
    rng = np.random.default_rng(1)
    means = np.linspace(0, 2 * MIN_GAIN, 100)
    found = [
        np.exp(log_e_value(0.1 * (rng.uniform(size=100) < means / 0.1), MIN_GAIN, 0.1))
        for _ in range(20_000)
    ]
    assert np.mean(found) <= 1 + 4 * np.std(found) / len(found) ** 0.5
    assert np.mean(found) > 0.3  # and is no bet that is lost from the start


@pytest.mark.law
def test_what_is_left_is_right_for_chains_of_samples_that_resemble_each_other():
    """Densities driven by 50 numbers, each of which keeps 0.7 of itself; m_eff is measured."""
    rng, keeps, found, lacking = np.random.default_rng(0), 0.7, [], []
    for _ in range(20):
        slopes = rng.normal(size=(300, 50)) * (0.2 / 50) ** 0.5
        drivers = rng.normal(size=(250, 50))
        for before, now in itertools.pairwise(drivers):
            now *= (1 - keeps**2) ** 0.5
            now += keeps * before
        draws = drivers @ slopes.T
        size = np.median(effective_sample_size(draws[:, :40], kind="bulk"))
        found.append(np.mean(gain_left(draws[None], [size])))
        mean = np.log(np.mean(np.exp(draws), axis=0))
        lacking.append(np.mean(0.5 * np.sum(slopes**2, axis=1) - mean))
    error = np.std(lacking) / len(lacking) ** 0.5
    assert np.mean(found) == pytest.approx(np.mean(lacking), abs=0.2 * np.mean(found) + 3 * error)
    assert 250 * np.mean(found) > 3 * 0.5 * 0.2  # and not that of independent samples
