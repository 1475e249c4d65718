"""Rows of a report where labels do not count alike, are of several classes, or are left out."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special

from keras_langevin import calibration
from keras_langevin.predictive import Bernoulli, Categorical, Gaussian, HeteroscedasticGaussian
from keras_langevin.predictive.label_weights import copies, label_weights
from keras_langevin.predictive.quality_of_samples import report_of_samples

RNG = np.random.default_rng(0)
MEMBERS, N = 4, 40
LOGITS = RNG.normal(size=(MEMBERS, N, 3)).astype("float32")
NUMBERS = RNG.integers(0, 3, N)
WHOLE = RNG.integers(0, 3, N)  # weights, some of them 0
SHARES = special.softmax(LOGITS, axis=-1)
Y = RNG.normal(size=(N, 3))
YES = (Y > 0).astype("float32")

CASES = {
    "classes": (Categorical("probabilities"), SHARES, NUMBERS),
    "soft classes": (Categorical("probabilities"), SHARES, SHARES[0]),
    "yes or no": (Bernoulli("binary_probabilities"), special.expit(LOGITS), YES),
    "shades": (Bernoulli("binary_probabilities"), special.expit(LOGITS), special.expit(Y)),
    "known noise": (Gaussian(0.7), LOGITS, Y),
    "noise": (HeteroscedasticGaussian(), {"mean": LOGITS, "stddev": np.exp(0.3 * LOGITS)}, Y),
}


def rows(family, parameters, y, **arguments):
    found, figures = family.report(parameters, y, **arguments)
    return {row.name: row.value for row in found}, figures


def each(function, structure):
    return keras.tree.map_structure(function, structure)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("axes", [1, 2])
def test_an_example_of_weight_k_counts_as_k_examples(case, axes):
    family, parameters, y = CASES[case]
    outside = None
    if "noise" not in case:
        outside = parameters[:, ::-1] ** 2  # of classes and of yes or no they need no sum
    weights = WHOLE if axes == 1 else WHOLE[:, None]
    found, figures = rows(family, parameters, y, outside=outside, weights=weights)
    repeated = each(lambda p: np.repeat(p, WHOLE, axis=1), parameters)
    expected, _ = rows(family, repeated, np.repeat(y, WHOLE, axis=0), outside=outside)
    # The curve has n steps, not the sum of the weights.
    loose = {"area_under_risk_coverage": 0.02}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=loose.get(name, 1e-9)), name
    assert figures
    unweighted, _ = rows(family, parameters, y, outside=outside)
    same = [name for name in expected if found[name] == pytest.approx(unweighted[name], rel=1e-6)]
    assert set(same) <= {"false_positive_rate"}  # a step function


@pytest.mark.parametrize("case", CASES)
def test_weights_of_1_and_none_are_the_same(case):
    family, parameters, y = CASES[case]
    found, _ = rows(family, parameters, y, weights=np.ones(N))
    assert found == rows(family, parameters, y)[0]


def test_numbers_without_weights_are_those_of_calibration():
    found, _ = rows(Categorical("probabilities"), SHARES, NUMBERS, outside=SHARES[:, ::2] ** 0.5)
    p = SHARES.astype("float64").mean(axis=0)
    p = p / p.sum(axis=-1, keepdims=True)
    is_right = p.argmax(-1) == NUMBERS
    for name in ("accuracy", "brier_score", "expected_calibration_error"):
        assert found[name] == pytest.approx(getattr(calibration, name)(p, NUMBERS), rel=1e-6)
    area = calibration.area_under_risk_coverage(p.max(-1), is_right)
    assert found["area_under_risk_coverage"] == pytest.approx(area, rel=1e-9)
    outside = (SHARES[:, ::2] ** 0.5).astype("float64").mean(axis=0)
    entropies = [
        calibration.predictive_entropy(q / q.sum(axis=-1, keepdims=True)) for q in (p, outside)
    ]
    for name in ("out_of_distribution_auroc", "out_of_distribution_aupr", "false_positive_rate"):
        assert found[name] == pytest.approx(getattr(calibration, name)(*entropies), rel=1e-9)


def test_shades_are_not_rounded():
    """Brier against the target itself, guessing by the definition of the density, no accuracy."""
    family, parameters, y = CASES["shades"]
    found, _ = rows(family, parameters, y)
    p, mean = parameters.mean(axis=0), y.mean()
    assert found["brier_score"] == pytest.approx(2 * np.mean((p - y) ** 2), rel=1e-5)
    guess = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean))
    assert found["negative_log_likelihood_of_guessing"] == pytest.approx(guess, rel=1e-5)
    constant = ops.convert_to_tensor(np.full((1, *y.shape), mean, "float32"))
    reached = ops.convert_to_numpy(family.log_density(constant, ops.convert_to_tensor(y)))
    assert -reached.mean() == pytest.approx(guess, rel=1e-5)
    assert "accuracy" not in found and "accuracy_of_members" not in found


def test_a_class_that_is_ignored_is_left_out_of_every_row():
    y = np.where(RNG.uniform(size=N) < 0.3, 255, NUMBERS)
    family = Categorical("probabilities", ignore_class=255)
    expected, _ = rows(Categorical("probabilities"), SHARES[:, y < 255], y[y < 255])
    assert rows(family, SHARES, y)[0] == pytest.approx(expected)
    with pytest.raises(ValueError, match="At least one label must count"):
        family.report(SHARES, np.full(N, 255))


def test_guessing_knows_of_smoothed_labels():
    family = Categorical("probabilities", label_smoothing=0.3)
    found, _ = rows(family, SHARES, NUMBERS)
    p = 0.7 * np.bincount(NUMBERS, minlength=3) / N + 0.1
    expected = -np.sum(p * np.log(p))
    assert found["negative_log_likelihood_of_guessing"] == pytest.approx(expected, rel=1e-5)
    assert found["accuracy"] == rows(Categorical("probabilities"), SHARES, NUMBERS)[0]["accuracy"]


def test_classes_on_another_axis():
    y = RNG.integers(0, 3, (5, 8))
    last = SHARES.reshape(MEMBERS, 5, 8, 3)
    expected, _ = rows(Categorical("probabilities"), last, y)
    found, _ = rows(Categorical("probabilities", axis=-2), np.moveaxis(last, -1, -2), y)
    assert found == pytest.approx(expected)


def test_weights_that_do_not_fit_are_refused():
    for weights in (np.ones(3), -np.ones(N), np.full(N, np.nan), np.ones((N, 3, 2))):
        with pytest.raises(ValueError, match="Weights must be numbers >= 0 with the shape"):
            label_weights(weights, (N, 3))
    assert label_weights(np.ones((N, 1)), (N,)).shape == (N,)
    np.testing.assert_array_equal(copies(np.array([0, 0.5, 1.5])), [0, 1, 3])
    np.testing.assert_allclose(copies(np.array([1, np.pi])) / [1, np.pi], 9.66, atol=0.4)


class Guessing(Gaussian):
    """A likelihood of which only the mean is guessed, as one's own may be."""

    def guess(self, y):
        return ops.mean(y)

    def report(self, parameters, y, outside=None, weights=None):
        return report_of_samples(self, parameters, y, weights)

    def variance(self, parameters):
        return parameters**2


def test_the_report_of_draws_knows_weights():
    found, figures = rows(Guessing(1.0), LOGITS, Y, weights=WHOLE)
    everything, _ = rows(Guessing(1.0), LOGITS, Y)
    average = np.average(Y, axis=0, weights=WHOLE).mean()
    assert found["negative_log_likelihood_of_guessing"] == pytest.approx(average, rel=1e-5)
    error = np.average((LOGITS.mean(axis=0) - Y) ** 2, axis=0, weights=WHOLE).mean() ** 0.5
    assert found["root_mean_squared_error"] == pytest.approx(error, rel=1e-5)
    assert found["coverage_90"] != everything["coverage_90"] and len(figures) == 1
