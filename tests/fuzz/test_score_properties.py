"""What scores and uncertainties of any valid input satisfy."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as array_strategies
from keras import ops

import keras_langevin as kl
from keras_langevin.predictive import Bernoulli, Categorical, Gaussian


def examples(count):
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def predicted(draw):
    """Probabilities and labels."""
    count, classes = draw(st.integers(1, 20)), draw(st.integers(2, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    sharpness = draw(st.sampled_from([0.01, 1.0, 100.0]))
    p = generator.dirichlet(np.full(classes, sharpness), count)
    return p, generator.integers(0, classes, count), generator.permutation(count)


@examples(60)
@given(predicted(), st.integers(1, 30), st.sampled_from(["width", "mass"]))
def test_scores_of_classes_stay_in_their_bounds(example, num_bins, binning):
    p, labels, order = example
    error = kl.calibration.expected_calibration_error(p, labels, num_bins, binning)
    curve = kl.calibration.reliability_curve(p, labels, num_bins, binning)
    assert 0 <= error <= 1 + 1e-12
    assert curve.count.sum() == len(p)
    assert 0 <= kl.calibration.brier_score(p, labels) <= 2
    assert 0 <= kl.calibration.accuracy(p, labels) <= 1
    assert kl.calibration.negative_log_likelihood(p, labels) >= 0
    entropy = kl.calibration.predictive_entropy(p)
    assert (entropy >= 0).all() and (entropy <= np.log(p.shape[1]) + 1e-12).all()
    again = kl.calibration.expected_calibration_error(p[order], labels[order], num_bins, binning)
    assert again == pytest.approx(error, abs=1e-12)
    for score in (kl.calibration.brier_score, kl.calibration.accuracy):
        assert score(p[order], labels[order]) == pytest.approx(score(p, labels))


@examples(60)
@given(
    array_strategies.arrays("float64", st.integers(1, 12), elements=st.sampled_from([0, 1, 2.5])),
    array_strategies.arrays("float64", st.integers(1, 12), elements=st.floats(-1e6, 1e6)),
)
def test_auroc_and_its_complement_add_up(one, other):
    auroc = kl.calibration.out_of_distribution_auroc
    assert auroc(one, other) + auroc(other, one) == pytest.approx(1)
    assert auroc(one, one) == pytest.approx(0.5)
    assert 0 <= kl.calibration.out_of_distribution_aupr(one, other) <= 1
    assert 0 <= kl.calibration.false_positive_rate(one, other) <= 1


@examples(60)
@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
)
def test_scores_of_real_numbers_stay_in_their_bounds(members, count, seed, stddev):
    generator = np.random.default_rng(seed)
    mean, y = generator.normal(size=(members, count)), generator.normal(size=count)
    score = kl.calibration.continuous_ranked_probability_score
    assert score(mean, stddev, y) >= -1e-12
    assert score(mean[::-1], stddev, y) == pytest.approx(score(mean, stddev, y))
    pit = kl.calibration.probability_integral_transform(mean, stddev, y)
    assert (pit >= 0).all() and (pit <= 1).all()
    coverage = kl.calibration.interval_coverage_curve(pit)
    assert (np.diff(coverage) >= 0).all() and coverage.min() >= 0 and coverage.max() <= 1
    low, high = y - stddev, y + abs(generator.normal(size=count))
    assert 0 <= kl.calibration.interval_coverage(low, high, mean[0]) <= 1
    assert kl.calibration.interval_coverage(low, high, y) == 1


def run_uncertainties(count, shapes):
    """On the families themselves, which `predict_uncertainty` calls."""

    @examples(count)
    @given(
        st.sampled_from([Categorical("logits"), Bernoulli("binary_logits"), Gaussian(0.5)]),
        shapes,
        st.integers(0, 2**32),
    )
    def run(family, shape, seed):
        members, _, units = shape
        outputs = np.random.default_rng(seed).normal(0, 3, shape)
        outputs = ops.convert_to_tensor(outputs, "float32")
        found = family.uncertainty(outputs, (0.1, 0.5, 0.9))
        found = {key: ops.convert_to_numpy(value) for key, value in found.items()}
        assert (np.diff(found["quantiles"], axis=0) >= -1e-6).all()
        assert (found["epistemic"] >= 0).all() and (found["aleatoric"] >= 0).all()
        parts = found["aleatoric"] + found["epistemic"]
        np.testing.assert_allclose(found["total"], parts, rtol=1e-4, atol=1e-5)
        if members == 1:
            np.testing.assert_allclose(found["epistemic"], 0, atol=1e-5)
        if isinstance(family, Categorical):
            np.testing.assert_allclose(found["mean"].sum(axis=-1), 1, rtol=1e-5)
            assert (found["total"] <= np.log(units) + 1e-5).all()

    run()


def test_uncertainties_of_random_ensembles():
    run_uncertainties(5, st.sampled_from([(1, 2, 3), (3, 2, 3)]))  # new shapes are compiled anew


@pytest.mark.fuzz
@pytest.mark.further
def test_uncertainties_of_many_random_ensembles():
    run_uncertainties(50, st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 4)))
