"""Calibration measures against scikit-learn, TensorFlow Probability and slow loops."""

import math
import warnings

import keras
import numpy as np
import pytest
from sklearn import metrics
from targets.rows import every_row

from keras_langevin import calibration

CLASSES = 5


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.fixture
def logits():
    return 2 * np.random.default_rng(0).normal(size=(500, CLASSES))


@pytest.fixture
def probabilities(logits):
    return softmax(logits)


@pytest.fixture
def labels(logits):
    noise = np.random.default_rng(1).gumbel(size=logits.shape)
    return (0.5 * logits + noise).argmax(axis=-1)  # the predictions are overconfident


def slow_reliability_curve(probabilities, labels, num_bins):
    members = [[] for _ in range(num_bins)]
    for p, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        confidence = max(p)
        b = 0
        while b < num_bins - 1 and confidence >= (b + 1) / num_bins:
            b += 1
        members[b].append((confidence, p.index(confidence) == label))
    mean = [tuple(np.mean(m, axis=0)) if m else (math.nan, math.nan) for m in members]
    return [c for c, _ in mean], [a for _, a in mean], [len(m) for m in members]


def test_negative_log_likelihood_equals_scikit_learn(probabilities, labels):
    expected = metrics.log_loss(labels, probabilities, labels=range(CLASSES))
    assert calibration.negative_log_likelihood(probabilities, labels) == pytest.approx(expected)


def test_negative_log_likelihood_is_infinite_when_the_label_was_impossible():
    assert calibration.negative_log_likelihood([[0.5, 0.5], [1.0, 0.0]], [0, 1]) == math.inf
    assert calibration.negative_log_likelihood([[0.5, 0.5], [1.0, 0.0]], [0, 0]) < 1


def test_accuracy_equals_scikit_learn(probabilities, labels):
    expected = metrics.accuracy_score(labels, probabilities.argmax(-1))
    assert calibration.accuracy(probabilities, labels) == pytest.approx(expected)


def test_brier_score_is_the_classical_sum_over_classes(probabilities, labels):
    expected = np.mean(np.sum((probabilities - np.eye(CLASSES)[labels]) ** 2, axis=-1))
    assert calibration.brier_score(probabilities, labels) == pytest.approx(expected)
    assert calibration.brier_score([[0.0, 1.0]], [0]) == 2
    assert calibration.brier_score([[0.0, 1.0]], [1]) == 0


def test_brier_score_of_two_classes_is_twice_that_of_scikit_learn():
    p = np.random.default_rng(2).uniform(size=200)
    labels = np.random.default_rng(3).integers(0, 2, size=200)
    score = calibration.brier_score(np.stack([1 - p, p], axis=-1), labels)
    assert score == pytest.approx(2 * metrics.brier_score_loss(labels, p, scale_by_half=True))


@every_row("num_bins", [1, 2, 10, 15])
def test_reliability_curve_equals_a_slow_loop(probabilities, labels, num_bins):
    curve = calibration.reliability_curve(probabilities, labels, num_bins)
    confidence, accuracy, count = slow_reliability_curve(probabilities, labels, num_bins)
    np.testing.assert_allclose(curve.confidence, confidence)
    np.testing.assert_allclose(curve.accuracy, accuracy)
    np.testing.assert_array_equal(curve.count, count)


@every_row("num_bins", [2, 7, 10, 15, 100])
def test_a_confidence_on_a_boundary_belongs_to_the_bin_above(num_bins):
    edges = np.arange(num_bins + 1) / num_bins
    edges = edges[edges >= 0.5]  # lower ones cannot be the larger of two probabilities
    probabilities = np.stack([edges, 1 - edges], axis=-1)
    curve = calibration.reliability_curve(probabilities, np.zeros(len(edges), int), num_bins)
    expected = np.zeros(num_bins, int)
    expected[num_bins - len(edges) + 1 :] = 1
    expected[-1] += 1  # 1 itself
    np.testing.assert_array_equal(curve.count, expected)


def test_certain_predictions_are_kept():
    curve = calibration.reliability_curve([[1.0, 0.0], [0.0, 1.0]], [0, 0])
    assert curve.count.tolist() == [0] * 14 + [2]
    assert curve.confidence[-1] == 1 and curve.accuracy[-1] == 0.5
    assert calibration.expected_calibration_error([[1.0, 0.0], [0.0, 1.0]], [0, 0]) == 0.5


def test_empty_bins_are_nan_and_do_not_count():
    curve = calibration.reliability_curve([[0.9, 0.1]], [0], num_bins=4)
    np.testing.assert_array_equal(np.isnan(curve.accuracy), [True, True, True, False])
    np.testing.assert_array_equal(np.isnan(curve.confidence), [True, True, True, False])
    error = calibration.expected_calibration_error([[0.9, 0.1]], [0], num_bins=4)
    assert error == pytest.approx(0.1)


def test_expected_calibration_error_by_hand():
    probabilities = [[0.55, 0.45], [0.55, 0.45], [0.95, 0.05], [0.95, 0.05]]
    labels = [0, 1, 0, 0]  # half right at 0.55, all right at 0.95
    error = calibration.expected_calibration_error(probabilities, labels, num_bins=10)
    assert error == pytest.approx(0.05)
    error = calibration.expected_calibration_error(probabilities, labels, num_bins=1)
    assert error == 0  # three of four right at a mean confidence of 0.75


@every_row("num_bins", [1, 10, 15])
def test_expected_calibration_error_equals_a_slow_loop(probabilities, labels, num_bins):
    bins = zip(*slow_reliability_curve(probabilities, labels, num_bins), strict=True)
    expected = sum(n * abs(a - c) for c, a, n in bins if n) / len(labels)
    error = calibration.expected_calibration_error(probabilities, labels, num_bins)
    assert error == pytest.approx(expected)


@pytest.mark.backend
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TFP needs TensorFlow")
def test_tensorflow_probability_agrees(logits, probabilities, labels):
    logits, labels = logits.astype("float32"), labels.astype("int32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_probability as tfp

        brier = tfp.stats.brier_score(labels=labels, logits=logits)
        errors = {
            num_bins: tfp.stats.expected_calibration_error(
                num_bins, logits=logits, labels_true=labels
            )
            for num_bins in (10, 15)
        }
    assert calibration.brier_score(probabilities, labels) == pytest.approx(np.mean(brier) + 1)
    for num_bins, expected in errors.items():
        error = calibration.expected_calibration_error(probabilities, labels, num_bins)
        assert error == pytest.approx(float(expected), abs=1e-6)


def test_predictive_entropy(probabilities):
    expected = [-sum(p * math.log(p) for p in row) for row in probabilities.tolist()]
    np.testing.assert_allclose(calibration.predictive_entropy(probabilities), expected)
    assert calibration.predictive_entropy([0.0, 1.0, 0.0]) == 0
    assert calibration.predictive_entropy([0.25] * 4) == pytest.approx(math.log(4))


def test_predictive_entropy_of_members_keeps_their_axis(probabilities):
    members = probabilities.reshape(4, 125, CLASSES)
    entropy = calibration.predictive_entropy(members)
    np.testing.assert_array_equal(entropy.ravel(), calibration.predictive_entropy(probabilities))
    assert entropy.shape == (4, 125)


@every_row("decimals", [0, 1, 8])
def test_auroc_equals_scikit_learn_and_a_slow_loop(decimals):
    score_in = np.random.default_rng(4).normal(size=120).round(decimals)
    score_out = np.random.default_rng(5).normal(loc=0.7, size=80).round(decimals)
    auroc = calibration.out_of_distribution_auroc(score_in, score_out)
    is_out = [0] * len(score_in) + [1] * len(score_out)
    assert auroc == pytest.approx(metrics.roc_auc_score(is_out, [*score_in, *score_out]))
    wins = [(o > i) + 0.5 * (o == i) for o in score_out for i in score_in]
    assert auroc == pytest.approx(np.mean(wins))


def test_auroc_of_extremes():
    assert calibration.out_of_distribution_auroc([1.0, 2.0], [3.0, np.inf]) == 1
    assert calibration.out_of_distribution_auroc([3.0, 4.0], [1.0]) == 0
    assert calibration.out_of_distribution_auroc([1.0, 1.0], [1.0]) == 0.5


def test_single_precision_and_half_precision_softmax_are_accepted(logits, labels):
    expected = calibration.negative_log_likelihood(softmax(logits), labels)
    for dtype, tolerance in [("float32", 1e-6), ("float16", 1e-2)]:
        rounded = softmax(logits.astype(dtype)).astype(dtype)
        nll = calibration.negative_log_likelihood(rounded, labels)
        assert nll == pytest.approx(expected, rel=tolerance)


def test_backend_tensors_are_accepted(probabilities, labels):
    tensors = keras.ops.convert_to_tensor(probabilities), keras.ops.convert_to_tensor(labels)
    expected = calibration.brier_score(probabilities, labels)
    assert calibration.brier_score(*tensors) == pytest.approx(expected)


MEASURES = [
    calibration.negative_log_likelihood,
    calibration.accuracy,
    calibration.brier_score,
    calibration.reliability_curve,
    calibration.expected_calibration_error,
]


@every_row("measure", MEASURES)
@every_row(
    "probabilities, labels, message",
    [
        ([0.5, 0.5], [0, 1], r"\(examples, classes\).*probabilities.shape=\(2,\)"),
        ([[[0.5, 0.5]]], [[0]], r"probabilities.shape=\(1, 1, 2\). Average over"),
        ([[0.5], [0.5]], [0, 1], r"probabilities.shape=\(2, 1\).*binary"),
        (np.zeros((0, 3)), [], r"at least one example"),
        ([[2.0, -1.0]], [0], r"smallest probability=-1"),
        ([[3.0, 1.0]], [0], r"sum farthest from 1=4.*softmax"),
        (np.log([[0.5, 0.5]]), [0], r"`np.exp` to log-probabilities"),
        ([[0.5, 0.5], [0.6, 0.5]], [0, 1], r"sum farthest from 1=1.1"),
        ([[0.5, 0.5], [np.nan, 0.5]], [0, 1], r"NaN in 1 rows"),
        ([[0.5, 0.5]], [0, 1], r"`labels` must have the shape \(1,\).*labels.shape=\(2,\)"),
        ([[0.5, 0.5]], [[0, 1]], r"labels.shape=\(1, 2\).*one-hot"),
        ([[0.5, 0.5]], [1.0], r"must be integers. Received: labels.dtype=float64"),
        ([[0.5, 0.5]], [2], r"from 0 to 1.*labels from 2 to 2"),
        ([[0.5, 0.5], [0.5, 0.5]], [0, -1], r"labels from -1 to 0"),
    ],
)
def test_bad_predictions_are_refused(measure, probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        measure(probabilities, labels)


@every_row("num_bins", [0, -1, 2.0, True, "10"])
def test_bad_bin_numbers_are_refused(probabilities, labels, num_bins):
    for measure in (calibration.reliability_curve, calibration.expected_calibration_error):
        with pytest.raises(ValueError, match=f"Received: num_bins={num_bins!r}"):
            measure(probabilities, labels, num_bins)


@every_row("bad", [[], 1.0, [[1.0, 2.0]], [1.0, np.nan]])
def test_bad_scores_are_refused(bad):
    with pytest.raises(ValueError, match="`score_in` must"):
        calibration.out_of_distribution_auroc(bad, [1.0])
    with pytest.raises(ValueError, match="`score_out` must"):
        calibration.out_of_distribution_auroc([1.0], bad)


def test_logits_must_not_be_averaged():
    """The mean of probabilities and the softmax of mean logits are different predictions."""
    members = np.array([[[4.0, 0.0]], [[-4.0, 0.0]], [[4.0, 0.0]]])
    of_probabilities = calibration.predictive_entropy(softmax(members).mean(axis=0))
    of_logits = calibration.predictive_entropy(softmax(members.mean(axis=0)))
    assert of_probabilities[0] == pytest.approx(0.6406, abs=1e-3)
    assert of_logits[0] == pytest.approx(0.5123, abs=1e-3)
    with pytest.raises(ValueError, match="softmax"):
        calibration.predictive_entropy(members.mean(axis=0))
