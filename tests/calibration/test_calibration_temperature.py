"""Temperature scaling against SciPy, planted temperatures, and wrong variants."""

import math
import warnings

import numpy as np
import pytest
from scipy import optimize
from targets.rows import every_row

from keras_langevin import calibration

CLASSES = 4


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def planted(temperature, examples=400, members=None, seed=0):
    """Predictions that are true once their logits are divided by the temperature."""
    rng = np.random.default_rng(seed)
    truth = 2 * rng.normal(size=(examples, CLASSES))
    labels = (truth + rng.gumbel(size=truth.shape)).argmax(axis=-1)
    noise = 0 if members is None else 1.5 * rng.normal(size=(members, *truth.shape))
    return softmax(temperature * (truth + noise)), labels


def loss_of(probabilities, labels):
    return -np.mean(np.log(probabilities[np.arange(len(labels)), labels]))


def powers(probabilities, temperature):
    p = probabilities ** (1 / temperature)
    return p / p.sum(axis=-1, keepdims=True)


def scipy_temperature(probabilities, labels, temper):
    """The minimum by a bounded Brent search."""
    result = optimize.minimize_scalar(
        lambda t: loss_of(temper(probabilities, math.exp(t)), labels),
        bounds=(-2, 3),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return math.exp(result.x), result.fun


def slope(log_temperature, probabilities, labels):
    """Of the loss of one distribution, by hand: E_tempered[log p] - log p(label)."""
    logarithms = np.log(probabilities)
    tempered = powers(probabilities, math.exp(log_temperature))
    mean = np.sum(tempered * logarithms, axis=-1)
    return np.mean(mean - logarithms[np.arange(len(labels)), labels])


@every_row("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_of_an_average_equals_scipy(temperature):
    p, labels = planted(temperature)
    scaling = calibration.temperature_scaling(p, labels)
    expected = math.exp(optimize.brentq(slope, -2, 3, args=(p, labels), xtol=1e-14))
    assert scaling.temperature == pytest.approx(expected, rel=1e-6)
    _, loss = scipy_temperature(p, labels, powers)
    assert scaling.negative_log_likelihood_after == pytest.approx(loss, abs=1e-10)
    assert scaling.negative_log_likelihood_before == pytest.approx(loss_of(p, labels))
    if temperature != 1:  # mutant: powers of τ for powers of 1 / τ
        assert abs(1 / scaling.temperature - expected) > 0.5


@every_row("temperature", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_found(temperature):
    p, labels = planted(temperature, examples=20_000)
    scaling = calibration.temperature_scaling(p, labels)
    assert scaling.temperature == pytest.approx(temperature, rel=0.05)
    truth = p ** (1 / temperature)
    tempered = scaling(p)
    np.testing.assert_allclose(tempered, truth / truth.sum(-1, keepdims=True), atol=0.02)
    np.testing.assert_array_equal(tempered.argmax(-1), p.argmax(-1))
    before = calibration.expected_calibration_error(p, labels)
    after = calibration.expected_calibration_error(tempered, labels)
    assert after < 0.015 and (temperature == 1 or before > 0.05)


def tempered_then_averaged(members, temperature):
    return powers(members, temperature).mean(axis=0)


def averaged_then_tempered(members, temperature):
    return powers(members.mean(axis=0), temperature)


@every_row("temperature", [0.5, 3.0])
def test_the_temperature_of_members_equals_scipy(temperature):
    members, labels = planted(temperature, members=6)
    scaling = calibration.temperature_scaling(members, labels)
    expected, loss = scipy_temperature(members, labels, tempered_then_averaged)
    assert scaling.temperature == pytest.approx(expected, rel=1e-6)
    assert scaling.negative_log_likelihood_after == pytest.approx(loss, abs=1e-10)
    before = loss_of(members.mean(axis=0), labels)
    assert scaling.negative_log_likelihood_before == pytest.approx(before)

    other, _ = scipy_temperature(members, labels, averaged_then_tempered)
    assert abs(other / expected - 1) > 0.02  # mutant: the other order
    pooled = calibration.temperature_scaling(members.mean(axis=0), labels)
    assert pooled.temperature == pytest.approx(other, rel=1e-6)


def test_calling_tempers_the_way_it_was_chosen():
    members, labels = planted(2.0, members=6)
    of_members = calibration.temperature_scaling(members, labels)
    p = of_members(members)
    np.testing.assert_allclose(p, tempered_then_averaged(members, of_members.temperature))
    assert loss_of(p, labels) == pytest.approx(of_members.negative_log_likelihood_after)
    assert not np.allclose(p, averaged_then_tempered(members, of_members.temperature))

    average = members.mean(axis=0)
    pooled = calibration.temperature_scaling(average, labels)
    np.testing.assert_allclose(pooled(average), powers(average, pooled.temperature))
    assert loss_of(pooled(average), labels) == pytest.approx(pooled.negative_log_likelihood_after)
    with pytest.raises(ValueError, match=r"shape \(members, examples, classes\). Received"):
        of_members(average)
    with pytest.raises(ValueError, match=r"chosen for probabilities of the shape \(examples, cla"):
        pooled(members)


def test_of_several_minima_the_lowest_is_taken():
    """A member that is surely wrong at times makes the loss bend twice."""
    first = np.array(
        [
            [0.458, 0.567, 0.51, 0.521, 0.594, 0.564, 0.512],
            [0.001, 0.001, 0.375, 0.93, 0.982, 0.998, 0.999],
        ]
    )
    members, labels = np.stack([first, 1 - first], axis=-1), np.array([1, 1, 1, 0, 0, 1, 1])
    bounds = math.log(0.01), math.log(100)

    def loss(log_temperature):
        return loss_of(tempered_then_averaged(members, math.exp(log_temperature)), labels)

    lowest = min(map(loss, np.linspace(*bounds, 5000)))
    scaling = calibration.temperature_scaling(members, labels)
    assert scaling.negative_log_likelihood_after == pytest.approx(lowest, abs=1e-6)
    local = optimize.minimize_scalar(loss, bounds=bounds, method="bounded")  # mutant: no grid
    assert local.fun > lowest + 5e-3


@every_row("p", [[[0.9, 0.1]] * 4, [[[0.9, 0.1]] * 4, [[0.6, 0.4]] * 4]])
def test_an_optimum_at_a_bound_is_reported(p):
    with pytest.warns(UserWarning, match="at the end of its range, 0.01"):
        scaling = calibration.temperature_scaling(p, [0, 0, 0, 0])
    assert scaling.temperature == 0.01
    with pytest.warns(UserWarning, match="at the end of its range, 100"):
        scaling = calibration.temperature_scaling(p, [1, 1, 1, 1])
    assert scaling.temperature == 100


@every_row("p", [[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
def test_where_nothing_can_be_gained_the_temperature_is_one(p):
    scaling = calibration.temperature_scaling([p] * 5, [0] * 5)
    assert scaling.temperature == 1
    assert scaling.negative_log_likelihood_after == scaling.negative_log_likelihood_before


def test_it_never_gets_worse_and_extreme_probabilities_are_finite():
    rng = np.random.default_rng(3)
    for scale in (0.01, 1.0, 200.0):
        p, labels = softmax(scale * rng.normal(size=(50, 3))), rng.integers(0, 3, size=50)
        p = np.maximum(p, 1e-300)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The best temperature")
            scaling = calibration.temperature_scaling(p, labels)
        after = scaling.negative_log_likelihood_after
        assert after <= scaling.negative_log_likelihood_before
        assert np.isfinite(scaling(p)).all()


def test_zeros_matter_only_for_labels():
    members = np.array([[[0.0, 1.0], *[[0.2, 0.8]] * 3], [[0.5, 0.5], *[[0.3, 0.7]] * 3]])
    labels = [0, 0, 1, 1]  # one member allows the first
    scaling = calibration.temperature_scaling(members, labels)
    assert np.isfinite(scaling.negative_log_likelihood_after)
    for p in (members[0], members[[0, 0]]):
        with pytest.raises(ValueError, match="probability 0 of the label in all members for 1 of"):
            calibration.temperature_scaling(p, labels)


@every_row(
    "p, labels, message",
    [
        ([0.5, 0.5], [0], r"\(examples, classes\) or \(members, examples, classes\)"),
        (np.full((2, 3, 4, 2), 0.5), [0], r"probabilities.shape=\(2, 3, 4, 2\)"),
        (np.full((2, 3, 2), 0.5), [0, 1], r"`labels` must have the shape \(3,\)"),
        ([[0.5, 0.5]], [2], "from 0 to 1"),
        ([[0.5, 0.6]], [1], "sum farthest from 1=1.1"),
    ],
)
def test_bad_arguments_are_refused(p, labels, message):
    with pytest.raises(ValueError, match=message):
        calibration.temperature_scaling(p, labels)
