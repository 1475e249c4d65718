"""Risk and coverage against the mean over every order of ties."""

import itertools

import numpy as np
import pytest
from targets.rows import every_row

from keras_langevin import calibration

CONFIDENCE = np.array([0.5, 0.9, 0.5, 0.7, 0.5, 0.9])
IS_RIGHT = np.array([0, 1, 1, 1, 0, 0], bool)


def risk_in_order(is_right):
    return np.cumsum(~is_right) / np.arange(1, len(is_right) + 1)


def mean_over_orders(confidence, is_right):
    orders = [
        list(order)
        for order in itertools.permutations(range(len(confidence)))
        if all(np.diff(confidence[list(order)]) <= 0)
    ]
    return np.mean([risk_in_order(is_right[order]) for order in orders], axis=0)


def ties_as_they_come(confidence, is_right):
    return risk_in_order(is_right[np.argsort(-confidence, kind="stable")])


def least_confident_first(confidence, is_right):
    return risk_in_order(is_right[np.argsort(confidence, kind="stable")])


def test_the_curve_is_the_mean_over_the_orders_of_ties():
    expected = mean_over_orders(CONFIDENCE, IS_RIGHT)
    curve = calibration.risk_coverage_curve(CONFIDENCE, IS_RIGHT)
    np.testing.assert_allclose(curve.coverage, np.arange(1, 7) / 6)
    np.testing.assert_allclose(curve.risk, expected, atol=1e-12)
    np.testing.assert_allclose(curve.risk, [1 / 2, 1 / 2, 1 / 3, 5 / 12, 7 / 15, 1 / 2])
    for mutant in (ties_as_they_come, least_confident_first):
        assert not np.allclose(mutant(CONFIDENCE, IS_RIGHT), expected)


def test_without_ties_it_is_the_running_share_of_wrong_ones():
    rng = np.random.default_rng(0)
    confidence, is_right = rng.uniform(size=200), rng.uniform(size=200) < 0.8
    curve = calibration.risk_coverage_curve(confidence, is_right)
    np.testing.assert_allclose(curve.risk, ties_as_they_come(confidence, is_right))
    assert curve.risk[-1] == pytest.approx(np.mean(~is_right))
    wrong_way = least_confident_first(confidence, is_right)
    assert not np.allclose(curve.risk, wrong_way)
    area = calibration.area_under_risk_coverage(confidence, is_right)
    assert area == pytest.approx(curve.risk.mean())


def test_area_of_extremes():
    is_right = np.array([True] * 6 + [False] * 2)
    order = np.arange(8.0)
    best = calibration.area_under_risk_coverage(-order, is_right)
    worst = calibration.area_under_risk_coverage(order, is_right)
    assert best == pytest.approx((1 / 7 + 2 / 8) / 8)
    assert worst == pytest.approx(np.mean([1, 1, 2 / 3, 2 / 4, 2 / 5, 2 / 6, 2 / 7, 2 / 8]))
    assert calibration.area_under_risk_coverage(np.ones(8), is_right) == pytest.approx(0.25)
    assert calibration.area_under_risk_coverage(order, np.ones(8)) == 0


def test_only_the_order_of_confidences_matters():
    expected = calibration.risk_coverage_curve(CONFIDENCE, IS_RIGHT)
    for confidence in (np.log(CONFIDENCE), np.where(CONFIDENCE == 0.9, np.inf, CONFIDENCE)):
        curve = calibration.risk_coverage_curve(confidence, IS_RIGHT.astype(int))
        np.testing.assert_allclose(curve.risk, expected.risk)


@every_row(
    "confidence, is_right, message",
    [
        ([], [], r"`confidence` must have the shape \(examples,\)"),
        ([[0.5]], [[True]], r"confidence.shape=\(1, 1\)"),
        ([np.nan, 0.5], [True, False], r"`confidence` must be numbers. Received: 1 NaN of 2"),
        ([0.5, 0.6], [True], r"same shape. Received: confidence.shape=\(2,\), is_right.shape"),
        ([0.5, 0.6], [2, 0], "`is_right` must be booleans, or 0 and 1. Received: is_right of int"),
    ],
)
def test_bad_arguments_are_refused(confidence, is_right, message):
    for measure in (calibration.risk_coverage_curve, calibration.area_under_risk_coverage):
        with pytest.raises(ValueError, match=message):
            measure(confidence, is_right)
