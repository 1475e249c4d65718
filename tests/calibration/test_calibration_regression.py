"""Scores of Gaussian mixtures against numerical integrals and TensorFlow Probability."""

import math
import warnings

import numpy as np
import pytest
from scipy import integrate, stats
from targets.rows import every_row
from targets.tiers import imports_tensorflow

from keras_langevin import calibration

MEMBERS, EXAMPLES = 5, 12


@pytest.fixture
def mixture():
    rng = np.random.default_rng(0)
    mean = 2 * rng.normal(size=(MEMBERS, EXAMPLES))
    stddev = np.exp(0.7 * rng.normal(size=(MEMBERS, EXAMPLES)))
    return mean, stddev, 2 * rng.normal(size=EXAMPLES)


def integrated_score(mean, stddev, y):
    """∫ (F(z) - [y <= z])² dz of one example."""

    def below(z):
        return np.mean(stats.norm.cdf(z, mean, stddev)) ** 2

    def above(z):
        return np.mean(stats.norm.sf(z, mean, stddev)) ** 2

    options = {"epsabs": 1e-11, "epsrel": 1e-11, "limit": 400}
    reach = 12 * stddev.max()
    low, high = min(mean.min(), y) - reach, max(mean.max(), y) + reach
    return (
        integrate.quad(below, low, y, **options)[0] + integrate.quad(above, y, high, **options)[0]
    )


def one_gaussian(mean, stddev, y):
    z = (y - mean) / stddev
    absolute = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z)
    return np.mean(stddev * (absolute - 1 / math.sqrt(math.pi)))


def folded_mean(mean, stddev):
    return stats.foldnorm.mean(np.abs(mean) / stddev, scale=stddev)


def of_pairs(mean, stddev, y, half=0.5, spread=np.hypot, of_itself=1):
    distances = [
        folded_mean(mean[s] - mean[t], spread(stddev[s], stddev[t])) * (s != t or of_itself)
        for s in range(MEMBERS)
        for t in range(MEMBERS)
    ]
    return np.mean(folded_mean(y - mean, stddev)) - half * np.mean(distances)


def test_ranked_probability_equals_the_integral(mixture):
    expected = np.mean(
        [integrated_score(*one) for one in zip(*(a.T for a in mixture), strict=True)]
    )

    def is_right(score):
        return score == pytest.approx(expected, abs=1e-8)

    assert is_right(calibration.continuous_ranked_probability_score(*mixture))
    assert is_right(of_pairs(*mixture))
    mean, stddev, y = mixture
    total = np.sqrt(np.mean(stddev**2 + mean**2, axis=0) - mean.mean(axis=0) ** 2)
    mutants = {
        "the pairs count whole": of_pairs(*mixture, half=1.0),
        "stddevs add up": of_pairs(*mixture, spread=np.add),
        "no pair with itself": of_pairs(*mixture, of_itself=0),
        "one Gaussian of the same variance": one_gaussian(mean.mean(axis=0), total, y),
        "the members' mean score": one_gaussian(mean, stddev, y),
    }
    assert not any(is_right(score) for score in mutants.values()), mutants


def test_ranked_probability_of_one_gaussian(mixture):
    mean, stddev, y = mixture
    score = calibration.continuous_ranked_probability_score(mean[0], stddev[0], y)
    assert score == pytest.approx(one_gaussian(mean[0], stddev[0], y), abs=1e-12)
    repeated = [np.stack([a[0]] * 3) for a in (mean, stddev)]
    again = calibration.continuous_ranked_probability_score(*repeated, y)
    assert again == pytest.approx(score, abs=1e-12)
    same = calibration.continuous_ranked_probability_score(mean, 0.3, y)
    full = calibration.continuous_ranked_probability_score(mean, np.full_like(mean, 0.3), y)
    assert same == full


def test_without_spread_it_is_the_score_of_a_sample(mixture):
    mean, _, y = mixture
    pairs = np.abs(mean[:, None] - mean[None])
    expected = np.mean(np.abs(mean - y)) - 0.5 * np.mean(pairs)
    score = calibration.continuous_ranked_probability_score(mean, 0.0, y)
    assert score == pytest.approx(expected, abs=1e-12)
    assert abs(np.mean(np.abs(mean - y)) - 0.5 * pairs.sum() / (20 * EXAMPLES) - score) > 1e-3
    one = calibration.continuous_ranked_probability_score(mean[0], 0.0, y)
    assert one == pytest.approx(np.mean(np.abs(mean[0] - y)))
    tiny = calibration.continuous_ranked_probability_score(mean, 1e-200, y)
    assert tiny == pytest.approx(expected, abs=1e-12)


def test_the_true_distribution_has_the_best_score():
    y = np.random.default_rng(1).normal(size=20_000)

    def score(mean, stddev):
        return calibration.continuous_ranked_probability_score(np.full_like(y, mean), stddev, y)

    truth = score(0.0, 1.0)
    assert truth == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)
    assert all(score(*wrong) > truth for wrong in [(0.3, 1.0), (0.0, 0.7), (0.0, 1.4)])


def test_targets_of_several_numbers_are_scored_one_by_one(mixture):
    mean, stddev, y = mixture
    shaped = mean.reshape(MEMBERS, 4, 3), stddev.reshape(MEMBERS, 4, 3), y.reshape(4, 3)
    assert calibration.continuous_ranked_probability_score(*shaped) == pytest.approx(
        calibration.continuous_ranked_probability_score(*mixture), abs=1e-12
    )
    pit = calibration.probability_integral_transform(*shaped)
    np.testing.assert_array_equal(pit.ravel(), calibration.probability_integral_transform(*mixture))


@imports_tensorflow
def test_tensorflow_probability_agrees(mixture):
    mean, stddev, y = mixture
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_probability as tfp

        distribution = tfp.distributions.MixtureSameFamily(
            tfp.distributions.Categorical(logits=np.zeros(MEMBERS)),
            tfp.distributions.Normal(mean.T, stddev.T),
        )
        cdf, log_prob = distribution.cdf(y).numpy(), distribution.log_prob(y).numpy()
    pit = calibration.probability_integral_transform(mean, stddev, y)
    np.testing.assert_allclose(pit, cdf, atol=1e-12)
    total = np.sqrt(np.mean(stddev**2 + mean**2, axis=0) - mean.mean(axis=0) ** 2)
    assert not np.allclose(stats.norm.cdf(y, mean.mean(axis=0), total), cdf, atol=1e-3)

    log_likelihood = stats.norm.logpdf(y, mean, stddev)
    density = calibration.log_predictive_density(log_likelihood)
    assert density == pytest.approx(np.mean(log_prob), abs=1e-12)
    assert abs(np.mean(log_likelihood) - density) > 1e-2  # mutant: mean of logarithms
    assert abs(np.mean(np.logaddexp.reduce(log_likelihood)) - density) > 1  # mutant: sum


def test_log_predictive_density_is_minus_the_loss_of_the_average():
    members = np.random.default_rng(2).dirichlet(np.ones(3), size=(7, 50))
    labels = np.random.default_rng(3).integers(0, 3, size=50)
    density = calibration.log_predictive_density(np.log(members[:, np.arange(50), labels]))
    loss = calibration.negative_log_likelihood(members.mean(axis=0), labels)
    assert density == pytest.approx(-loss, abs=1e-12)


def test_log_predictive_density_of_extremes():
    density = calibration.log_predictive_density
    assert density([[-2000.0, 0.0], [-np.inf, 0.0]]) == pytest.approx(-1000 - 0.5 * math.log(2))
    assert density([[-np.inf], [-np.inf]]) == -np.inf


@every_row(
    "bad, message",
    [
        ([1.0, 2.0], r"\(members, examples\).*log_likelihood.shape=\(2,\)"),
        (np.zeros((0, 3)), "at least one of each"),
        ([[0.0, 1.0], [np.nan, 1.0]], "NaN of 1 of 2 members"),
    ],
)
def test_bad_log_likelihoods_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        calibration.log_predictive_density(bad)


def test_the_transform_is_exact_in_the_lower_tail():
    pit = calibration.probability_integral_transform([0.0, 0.0], 1.0, [-30.0, 30.0])
    np.testing.assert_allclose(pit, stats.norm.cdf([-30, 30]), rtol=1e-12)


def test_the_transform_without_spread_counts_members_below():
    mean = np.array([[0.0], [1.0], [1.0], [2.0]])
    for y, expected in [(-1.0, 0), (0.5, 0.25), (1.0, 0.5), (1.5, 0.75), (3.0, 1)]:
        assert calibration.probability_integral_transform(mean, 0.0, [y]) == expected


def share_inside(level, mean, stddev, y):
    """Share of targets between two quantiles of one Gaussian."""
    low, high = stats.norm.interval(level, mean, stddev)
    return np.mean((low <= y) & (y <= high))


@every_row("true_stddev", [0.5, 1.0, 2.0])
def test_coverage_equals_that_of_the_intervals(true_stddev):
    rng = np.random.default_rng(4)
    mean, stddev = rng.normal(size=800), np.exp(rng.normal(size=800))
    y = mean + true_stddev * stddev * rng.normal(size=800)
    levels = np.array([0.1, 0.5, 0.9, 0.99])
    expected = [share_inside(level, mean, stddev, y) for level in levels]

    pit = calibration.probability_integral_transform(mean, stddev, y)
    observed = calibration.interval_coverage_curve(pit, levels)
    np.testing.assert_allclose(observed, expected, atol=1e-12)
    one_sided = np.mean(pit[:, None] <= levels, axis=0)
    if true_stddev != 1:
        assert np.abs(one_sided - expected).max() > 0.1
    intervals = [stats.norm.interval(level, mean, stddev) for level in levels]
    direct = [calibration.interval_coverage(low, high, y) for low, high in intervals]
    np.testing.assert_allclose(direct, expected, atol=1e-12)
    # Four standard errors about the law of the planted spread.
    law = 2 * stats.norm.cdf(stats.norm.ppf(0.5 + levels / 2) / true_stddev) - 1
    assert (np.abs(observed - law) < 4 * np.sqrt(law * (1 - law) / 800)).all()


def test_a_mixture_is_calibrated_only_by_its_own_distribution():
    rng = np.random.default_rng(5)
    mean, stddev = np.array([[-3.0], [3.0]]), 0.5
    y = rng.choice([-3.0, 3.0], size=4000) + stddev * rng.normal(size=4000)
    pit = calibration.probability_integral_transform(np.repeat(mean, 4000, axis=1), stddev, y)
    levels = np.arange(1, 20) / 20
    assert np.abs(calibration.interval_coverage_curve(pit) - levels).max() < 0.03
    matched = calibration.probability_integral_transform(np.zeros(4000), math.sqrt(9.25), y)
    assert np.abs(calibration.interval_coverage_curve(matched) - levels).max() > 0.2


def test_ends_belong_to_intervals():
    low, high, y = np.zeros(4), np.ones(4), np.array([0.0, 1.0, -1e-9, 1 + 1e-9])
    assert calibration.interval_coverage(low, high, y) == 0.5
    assert calibration.interval_coverage_curve([0.25, 0.75, 0.5, 1.0], [0, 0.5, 1]).tolist() == [
        0.25,
        0.75,
        1,
    ]
    assert calibration.interval_coverage(low, np.full(4, np.inf), y) == 0.75
    assert calibration.mean_interval_width([0.0, 1.0], [1.0, 4.0]) == 2


@every_row(
    "measure",
    [
        calibration.continuous_ranked_probability_score,
        calibration.probability_integral_transform,
    ],
)
@every_row(
    "mean, stddev, y, message",
    [
        (np.zeros((3, 1)), 1.0, [0.0, 1.0, 2.0], r"mean.shape=\(3, 1\).*y.shape=\(3,\)"),
        ([0.0, 1.0], [[1.0, 1.0]], [0.0, 1.0], r"stddev.shape=\(1, 2\)"),
        (np.zeros((2, 3)), np.ones(3), np.zeros(3), r"stddev.shape=\(3,\)"),
        ([0.0], [-1.0], [0.0], "must not be negative. Received: smallest stddev=-1.*log scales"),
        ([np.nan], 1.0, [0.0], "`mean` must be finite. Received: 1 of 1"),
        ([0.0], np.inf, [0.0], "`stddev` must be finite"),
        ([0.0], 1.0, [np.inf], "`y` must be finite"),
        (0.0, 1.0, 0.0, r"`y` must have the shape \(examples, ...\)"),
        ([], 1.0, [], "at least one example"),
    ],
)
def test_bad_gaussians_are_refused(measure, mean, stddev, y, message):
    with pytest.raises(ValueError, match=message):
        measure(mean, stddev, y)


@every_row(
    "low, high, y, message",
    [
        ([1.0, 0.0], [0.0, 1.0], [0.0, 0.0], "1 of 2 intervals that end before they begin"),
        ([0.0], [1.0], [0.0, 0.0], r"same shape. Received: low.shape=\(1,\), high.shape=\(1,\), y"),
        ([[0.0], [0.0]], [[1.0], [1.0]], [0.0, 0.0], r"Use `y\[:, None\]`"),
        ([np.nan], [1.0], [0.0], "`low` must be numbers. Received: 1 NaN of 1"),
        ([], [], [], "at least one example"),
    ],
)
def test_bad_intervals_are_refused(low, high, y, message):
    with pytest.raises(ValueError, match=message):
        calibration.interval_coverage(low, high, y)


@every_row(
    "pit, levels, message",
    [
        ([0.5, 1.2], None, "`pit` must be numbers from 0 to 1. Received: pit from 0.5 to 1.2"),
        ([0.5], [90], "`levels` must be numbers from 0 to 1.*Give 90 % as 0.9"),
        ([np.nan], None, "`pit` must be numbers. Received: 1 NaN"),
    ],
)
def test_bad_shares_are_refused(pit, levels, message):
    with pytest.raises(ValueError, match=message):
        calibration.interval_coverage_curve(pit, levels)
