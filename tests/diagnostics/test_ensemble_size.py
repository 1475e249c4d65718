"""The log predictive density of growing ensembles."""

import numpy as np
import pytest
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin.diagnostics import enough_members, ensemble_size, running_log_predictive_density

pytestmark = pytest.mark.neutral


def log_likelihoods(members, examples=200, spread=1.0, seed=0):
    """y ~ N(0, 1) and members N(f, 1) whose f are N(0, spread²), as they would be drawn."""
    generator = np.random.default_rng(seed)
    y = np.random.default_rng(100).normal(size=examples)
    f = spread * generator.normal(size=(members, examples))
    return -0.5 * (y - f) ** 2 - 0.5 * np.log(2 * np.pi)


def of_the_first(log_likelihood, m):
    return np.mean(np.log(np.mean(np.exp(log_likelihood[:m]), axis=0)))


def test_mean_against_all_orders():
    """Four members have 24 orders; 4000 random ones come close to their mean."""
    likelihood = log_likelihoods(4, spread=2.0)
    curve = running_log_predictive_density(likelihood, num_orders=4000)
    assert curve.num_members.tolist() == [1, 2, 3, 4]
    pairs = [[a, b] for a in range(4) for b in range(4) if a != b]
    expected = [
        np.mean(likelihood),
        np.mean([of_the_first(likelihood[pair], 2) for pair in pairs]),
        np.mean([of_the_first(np.delete(likelihood, i, axis=0), 3) for i in range(4)]),
        of_the_first(likelihood, 4),
    ]
    np.testing.assert_allclose(curve.mean, expected, atol=2e-3)
    assert curve.mean[-1] == pytest.approx(expected[-1], rel=1e-12)


def test_likelihoods_far_below_the_smallest_number():
    likelihood = log_likelihoods(40)
    curve = running_log_predictive_density(likelihood - 5000.0)
    other = running_log_predictive_density(likelihood)
    np.testing.assert_allclose(curve.mean, other.mean - 5000.0, rtol=1e-12)
    np.testing.assert_allclose(curve.stderr, other.stderr, rtol=1e-6)


def test_many_members_have_few_points():
    curve = running_log_predictive_density(log_likelihoods(1000), num_orders=4)
    sizes = curve.num_members
    assert sizes[0] == 1 and sizes[-1] == 1000 and 20 <= len(sizes) <= 30
    assert len(curve.mean) == len(curve.stderr) == len(sizes)
    assert curve.mean[-1] == pytest.approx(of_the_first(log_likelihoods(1000), 1000))
    again = running_log_predictive_density(log_likelihoods(1000), num_orders=4)
    for one, other in zip(curve, again, strict=True):
        np.testing.assert_array_equal(one, other)
    other = running_log_predictive_density(log_likelihoods(1000), num_orders=4, seed=1)
    assert (curve.mean[1:-1] != other.mean[1:-1]).all()  # one member has no order


def is_honest(stderr_of, members=40, repeats=200):
    """Whether the stated error, in the mean square, is the standard deviation over fresh
    ensembles, for some numbers of members."""
    curves, errors = [], []
    for seed in range(repeats):
        likelihood = log_likelihoods(members, examples=20, seed=seed)
        curve = running_log_predictive_density(likelihood, seed=seed)
        curves.append([of_the_first(likelihood, m) for m in curve.num_members])
        errors.append(stderr_of(curve))
    ratio = np.sqrt(np.mean(np.square(errors), axis=0)) / np.std(curves, axis=0)
    return ratio, curve.num_members


def test_the_error_is_that_of_a_fresh_ensemble():
    ratio, sizes = is_honest(lambda curve: curve.stderr)
    assert ratio == pytest.approx(1.0, abs=0.2), dict(zip(sizes, ratio, strict=True))


def test_the_spread_over_orders_alone_is_not():
    def spread_over_orders(curve):
        return curve.stderr * np.sqrt(1 - curve.num_members / curve.num_members[-1])

    ratio, sizes = is_honest(spread_over_orders)
    assert (ratio[sizes > 15] < 0.85).all() and ratio[-1] == 0


def test_enough_members():
    """The gain of m members over one is nearly a(1 − 1/m)."""
    sizes = np.arange(1, 21)
    curve = kl.diagnostics.RunningLogPredictiveDensity(sizes, -1.0 - 0.1 / sizes, 0.0 * sizes)
    found = enough_members(curve, tolerance=0.0101)
    assert found == (7, False)  # 0.1/7 − 0.1/20 < 0.0101 < 0.1/6 − 0.1/20
    assert enough_members(curve, tolerance=1.0) == (1, False)
    assert enough_members(curve, tolerance=0.004).is_rising  # 0.1/20 are still missing
    assert not enough_members(curve, tolerance=0.006).is_rising
    wiggle = curve._replace(mean=np.where(sizes == 12, -1.5, curve.mean))
    assert enough_members(wiggle, tolerance=0.0101).num_members == 13


def test_equal_members_are_no_more_than_one():
    curve = running_log_predictive_density(np.repeat(log_likelihoods(1), 10, axis=0))
    assert enough_members(curve, tolerance=1e-9) == (1, False)
    np.testing.assert_allclose(curve.stderr, 0.0, atol=1e-9)


def test_one_member_may_not_be_enough():
    curve = running_log_predictive_density(log_likelihoods(1))
    assert enough_members(curve) == (1, True) and np.isnan(curve.stderr).all()


def test_a_mean_of_logarithms_fails(monkeypatch):
    """A mutant: the mean of the members' densities, which does not grow with their number."""

    def running(log_likelihood, sizes):
        return np.array([np.mean(log_likelihood[:m]) for m in sizes])

    likelihood = log_likelihoods(30)
    assert np.ptp(running_log_predictive_density(likelihood).mean) > 0.2
    monkeypatch.setattr(ensemble_size, "_running", running)
    assert np.ptp(running_log_predictive_density(likelihood).mean) < 0.05


def test_minus_infinity_counts_as_a_likelihood_of_zero():
    likelihood = log_likelihoods(3)
    likelihood[1, 4] = -np.inf
    curve = running_log_predictive_density(likelihood)
    assert curve.mean[0] == -np.inf and np.isfinite(curve.mean[-1])
    assert curve.mean[-1] == pytest.approx(of_the_first(likelihood, 3))
    assert enough_members(curve, tolerance=10.0).num_members > 1


@every_row(
    "change, message",
    [
        (lambda ll: ll[0], r"\(members, examples\).*Received: shape \(200,\)"),
        (lambda ll: ll[:0], r"at least one of each. Received: shape \(0, 200\)"),
        (lambda ll: np.where(ll == ll[2, 7], np.nan, ll), "Received: nan for member 2, example 7"),
        (lambda ll: np.where(ll == ll[2, 7], np.inf, ll), "Received: inf for member 2, example 7"),
        (lambda ll: np.where(np.arange(200) == 9, -np.inf, ll), "all members for example 9"),
    ],
)
def test_bad_likelihoods(change, message):
    with pytest.raises(ValueError, match=message):
        running_log_predictive_density(change(log_likelihoods(4)))


def test_bad_arguments():
    with pytest.raises(ValueError, match="`num_orders` must be an integer >= 1"):
        running_log_predictive_density(log_likelihoods(4), num_orders=0)
    with pytest.raises(ValueError, match="`tolerance` must not be negative"):
        enough_members(running_log_predictive_density(log_likelihoods(4)), tolerance=-0.1)
