"""The study of reference posteriors: its likelihoods, its stored references, what it measures."""

import keras
import numpy as np
import pytest
from keras import ops

from examples.studies.reference_posteriors import compare, posteriors, references


@pytest.fixture
def outputs():
    """Makes outputs of several draws of random weights at a posterior's test points."""

    def make(posterior, draws=3):
        networks = [posterior.network() for _ in range(draws)]
        x = posterior.test[0]
        return np.stack([ops.convert_to_numpy(n(x)) for n in networks]).astype("float64")

    return make


@pytest.mark.parametrize("name", posteriors.POSTERIORS)
def test_log_densities_are_those_of_the_loss(name, outputs):
    """Of the network at random weights; Keras' loss of counts leaves log y! out."""
    posterior = posteriors.load(name)
    y = posterior.test[1]
    constants = 0.0
    if isinstance(posterior.likelihood.loss(), keras.losses.Poisson):
        constants = np.mean([np.log(np.arange(1, count + 1)).sum() for count in y])
    for found in outputs(posterior):
        loss = ops.convert_to_numpy(posterior.likelihood.loss()(y, found.astype("float32")))
        density = posterior.likelihood.log_density(y, found).mean()
        assert density == pytest.approx(-loss - constants, rel=1e-4)


@pytest.mark.parametrize("name", posteriors.POSTERIORS)
def test_the_stored_reference_is_of_this_posterior(name):
    """And converged: R-hat, and a chain that is near the others."""
    posterior = posteriors.load(name)
    reference = references.load(posterior)
    assert reference.mean.shape == reference.stddev.shape
    assert len(reference.mean) == len(posterior.test[1]) <= posteriors.MOST_TEST_POINTS
    assert reference.facts["r_hat"] <= 1.01
    assert reference.facts["chain_off"] <= 0.05


def test_a_reference_of_another_posterior_is_refused(monkeypatch):
    posterior = posteriors.load("wine")
    monkeypatch.setitem(posteriors.PRIOR, "stddev", 2.0)
    with pytest.raises(SystemExit, match="signature"):
        references.load(posterior)


def test_a_posterior_that_is_not_known_is_named():
    with pytest.raises(SystemExit, match="Received: nothing"):
        posteriors.load("nothing")


def test_measures_of_draws_that_are_known():
    """Draws of the reference's own law are near it, and others are as far as they were moved."""
    posterior = posteriors.load("diabetes")
    reference = references.load(posterior)
    generator = np.random.default_rng(0)
    normal = generator.normal(size=(2000, 3, *reference.mean.shape))

    def measured(shift=0.0, width=1.0):
        draws = reference.mean + reference.stddev * (shift + width * normal)
        return compare.measures(posterior, reference, draws)

    exact = measured()
    assert exact["off"] <= 0.02  # √(2/π)/√6000 = 0.010
    assert exact["width"] == pytest.approx(1.0, abs=0.02)
    assert exact["r_hat"] <= 1.01
    assert 0 < exact["enough_after"] < 0.5
    wrong = measured(shift=0.3, width=2.0)
    assert wrong["off"] == pytest.approx(0.3, abs=0.02)
    assert wrong["width"] == pytest.approx(2.0, abs=0.04)
    assert wrong["enough_after"] is None


@pytest.mark.parametrize("gradients", compare.BUDGETS)
def test_samples_fall_on_whole_executions(gradients):
    steps, thinning = compare.schedule(gradients)
    assert steps * compare.EPOCHS == gradients and steps % thinning == 0
    assert 300 <= gradients // 2 // thinning <= 500


def test_batches_leave_no_row_out():
    batches = compare.endless_batches(np.arange(10), np.arange(10), batch_size=4)
    rows = np.concatenate([next(batches)[1] for _ in range(5)])
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
