"""Average precision and false positive rate against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics
from targets.rows import every_row

from keras_langevin import calibration

TIES = every_row("decimals", [0, 1, 8])  # many, some, none


def scores(decimals, num_in=150, num_out=60):
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=num_in).round(decimals),
        rng.normal(loc=1.2, size=num_out).round(decimals),
    )


def together(score_in, score_out):
    return [0] * len(score_in) + [1] * len(score_out), [*score_in, *score_out]


def precision_of_sorted_positions(score_in, score_out):
    """A wrong variant: ties are taken one by one, the strange ones first."""
    is_out, score = map(np.array, together(score_in, score_out))
    is_out = is_out[np.lexsort((-is_out, -score))]
    return np.mean((np.cumsum(is_out) / np.arange(1, len(is_out) + 1))[is_out == 1])


@TIES
def test_aupr_equals_scikit_learn(decimals):
    score_in, score_out = scores(decimals)
    expected = metrics.average_precision_score(*together(score_in, score_out))
    aupr = calibration.out_of_distribution_aupr(score_in, score_out)
    assert aupr == pytest.approx(expected, abs=1e-12)
    assert abs(calibration.out_of_distribution_aupr(score_out, score_in) - expected) > 1e-3
    if decimals < 8:
        assert abs(precision_of_sorted_positions(score_in, score_out) - expected) > 1e-3


def test_aupr_of_extremes():
    assert calibration.out_of_distribution_aupr([1.0, 2.0], [3.0, np.inf]) == 1
    assert calibration.out_of_distribution_aupr([1.0, 1.0, 1.0], [1.0]) == 0.25
    assert calibration.out_of_distribution_aupr([3.0, 4.0], [1.0]) == pytest.approx(1 / 3)


def rate_from_roc_curve(score_in, score_out, share):
    false, true, _ = metrics.roc_curve(*together(score_in, score_out), drop_intermediate=False)
    return false[np.flatnonzero(true >= share)[0]]


@TIES
@every_row("share", [0.05, 0.5, 0.8, 0.95, 0.99, 1.0])
@every_row("num_out", [1, 19, 20, 21, 60, 100])
def test_false_positive_rate_equals_scikit_learn(decimals, share, num_out):
    score_in, score_out = scores(decimals, num_out=num_out)
    rate = calibration.false_positive_rate(score_in, score_out, share)
    assert rate == pytest.approx(rate_from_roc_curve(score_in, score_out, share), abs=1e-12)


def test_wrong_rates_differ_from_scikit_learn():
    score_in, score_out = scores(1)
    expected = rate_from_roc_curve(score_in, score_out, 0.95)
    assert calibration.false_positive_rate(score_in, score_out) == pytest.approx(expected)
    threshold = np.sort(score_out)[::-1][56]  # the 57th of 60
    assert np.mean(score_in >= threshold) == pytest.approx(expected)
    wrong = {
        "strictly above": np.mean(score_in > threshold),
        "one found too few": np.mean(score_in >= np.sort(score_out)[::-1][55]),
        "in distribution is positive": np.mean(score_out <= np.quantile(score_in, 0.95)),
    }
    for name, rate in wrong.items():
        assert abs(rate - expected) > 1e-3, name


def test_false_positive_rate_of_extremes():
    assert calibration.false_positive_rate([1.0, 2.0], [3.0, 4.0]) == 0
    assert calibration.false_positive_rate([3.0, 4.0], [1.0, 2.0]) == 1
    assert calibration.false_positive_rate([1.0, 3.0], [2.0] * 19 + [0.0]) == 0.5


@every_row("bad", [[], 1.0, [[1.0, 2.0]], [1.0, np.nan]])
def test_bad_scores_are_refused(bad):
    for measure in (calibration.out_of_distribution_aupr, calibration.false_positive_rate):
        with pytest.raises(ValueError, match="`score_in` must"):
            measure(bad, [1.0])
        with pytest.raises(ValueError, match="`score_out` must"):
            measure([1.0], bad)


@every_row("share", [0, 1.1, -0.5, np.nan, 95])
def test_bad_rates_are_refused(share):
    with pytest.raises(ValueError, match="`true_positive_rate` must be"):
        calibration.false_positive_rate([1.0], [1.0], share)
