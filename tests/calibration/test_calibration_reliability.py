"""Bins of equal mass against scikit-learn and slow loops."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from targets.rows import every_row

from keras_langevin import calibration

CLASSES = 4


def predictions(examples, decimals=16, seed=0):
    """Overconfident distributions; fewer decimals make more ties of confidence."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(examples, CLASSES))
    labels = (0.5 * logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    confidence = p.max(axis=-1, keepdims=True)
    rounded = confidence.round(decimals)
    p = np.where(p == confidence, rounded, p * (1 - rounded) / (1 - confidence))
    return p, labels


def of_sorted_positions(probabilities, num_bins):
    """A wrong variant: cuts the sorted examples, through ties."""
    order = np.argsort(probabilities.max(axis=-1), kind="stable")
    bins = np.empty(len(order), int)
    for b, part in enumerate(np.array_split(order, num_bins)):
        bins[part] = b
    return bins


def error_of_bins(bins, probabilities, labels):
    gap = (probabilities.argmax(axis=-1) == labels) - probabilities.max(axis=-1)
    return sum(abs(gap[bins == b].sum()) for b in set(bins)) / len(labels)


@every_row("examples", [15, 16, 29, 500, 1000])
@every_row("num_bins", [1, 2, 7, 15])
def test_bins_of_equal_mass_hold_equal_numbers(examples, num_bins):
    p, labels = predictions(examples)
    count = calibration.reliability_curve(p, labels, num_bins, binning="mass").count
    assert count.sum() == examples and count.max() - count.min() <= 1
    if examples == 500 and num_bins == 7:
        width = calibration.reliability_curve(p, labels, num_bins).count
        assert width.max() - width.min() > 1


@every_row("binning", ["width", "mass"])
@every_row("decimals", [16, 2, 1])
@every_row("num_bins", [1, 3, 10, 15])
def test_the_curve_equals_scikit_learn(binning, decimals, num_bins):
    # No quantile is an example: there scikit-learn's rounded one may fall short of it.
    p, labels = predictions(702, decimals)
    # Where a confidence is an edge of equal width, scikit-learn puts it below.
    keep = np.abs(num_bins * p.max(-1) - np.round(num_bins * p.max(-1))) > 1e-9
    p, labels = (p[keep], labels[keep]) if binning == "width" else (p, labels)
    curve = calibration.reliability_curve(p, labels, num_bins, binning)
    is_right, confidence = p.argmax(-1) == labels, p.max(-1)
    strategy = {"width": "uniform", "mass": "quantile"}[binning]
    accuracy, mean = calibration_curve(is_right, confidence, n_bins=num_bins, strategy=strategy)
    some = curve.count > 0
    np.testing.assert_allclose(curve.accuracy[some], accuracy, atol=1e-12)
    np.testing.assert_allclose(curve.confidence[some], mean, atol=1e-12)
    other = calibration.reliability_curve(
        p, labels, num_bins, "mass" if binning == "width" else "width"
    )
    if num_bins > 1:
        assert not np.array_equal(other.count[other.count > 0], curve.count[some])


def test_the_order_of_examples_with_ties_does_not_matter():
    p, labels = predictions(300, decimals=1)

    def errors(error):
        orders = [np.random.default_rng(i).permutation(len(p)) for i in range(20)]
        return [error(p[order], labels[order]) for order in orders]

    def right(p, labels):
        return calibration.expected_calibration_error(p, labels, 10, binning="mass")

    def cuts_ties(p, labels):
        return error_of_bins(of_sorted_positions(p, 10), p, labels)

    assert np.ptp(errors(right)) < 1e-12
    assert np.ptp(errors(cuts_ties)) > 1e-3


def test_error_of_equal_mass_equals_a_slow_loop():
    p, labels = predictions(450)
    expected = error_of_bins(of_sorted_positions(p, 15), p, labels)  # right without ties
    error = calibration.expected_calibration_error(p, labels, 15, binning="mass")
    assert error == pytest.approx(expected, abs=1e-12)
    assert abs(calibration.expected_calibration_error(p, labels, 15) - expected) > 1e-4


def test_equal_confidences_share_the_lowest_bin():
    p = [[0.9, 0.1]] * 6
    curve = calibration.reliability_curve(p, [0, 0, 0, 0, 0, 1], 3, binning="mass")
    assert curve.count.tolist() == [6, 0, 0]
    assert curve.accuracy[0] == pytest.approx(5 / 6) and np.isnan(curve.accuracy[1:]).all()


def test_fewer_examples_than_bins_are_all_kept():
    p, labels = predictions(4)
    curve = calibration.reliability_curve(p, labels, 15, binning="mass")
    assert sorted(curve.count) == [0] * 11 + [1] * 4


@every_row("binning", ["Mass", "adaptive", None])
def test_other_binnings_are_refused(binning):
    p, labels = predictions(10)
    for measure in (calibration.reliability_curve, calibration.expected_calibration_error):
        with pytest.raises(ValueError, match=f"`binning` must be one of.*binning={binning!r}"):
            measure(p, labels, binning=binning)
