"""Batches that are independent of each other, and what it costs when they are not."""

import numpy as np
import pytest
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin.random_batches import epoch_balance


def test_random_batches_draw_without_replacement_and_anew():
    x = np.arange(20)
    batches = kl.RandomBatches(x, -x, batch_size=7, batches_per_epoch=200, seed=3)
    assert len(batches) == 200
    drawn = [batches[i] for i in range(200)]
    assert all(len(set(a)) == 7 and (a == -b).all() for a, b in drawn)
    counts = np.bincount(np.concatenate([a for a, _ in drawn]), minlength=20)
    assert counts.min() > 40 and counts.max() < 100  # 70 expected
    sums = np.array([a.sum() for a, _ in drawn])
    expected = 35 / 7 * 7**2 * (1 - 7 / 20) * 20 / 19 * (20**2 - 1) / 12 / 35  # hypergeometric
    assert sums.var() == pytest.approx(expected, rel=0.4)
    again = kl.RandomBatches(x, -x, batch_size=7, batches_per_epoch=200, seed=3)
    np.testing.assert_array_equal(again[5][0], drawn[5][0])
    again.on_epoch_end()
    assert (again[5][0] != drawn[5][0]).any()


@every_row("arguments", [{"batch_size": 21}, {"batch_size": 0}, {"y": np.zeros(3)}, {"seed": -1}])
def test_random_batches_refuse(arguments):
    with pytest.raises(ValueError, match="Received"):
        kl.RandomBatches(np.zeros(20), **arguments)


def test_epochs_through_shuffled_data_lower_the_temperature():
    """The formula against a simulation of reshuffled epochs; 0.27 where T = 1 and η = 0.1."""
    rng, eta, n, chains = np.random.default_rng(0), 0.1, 20, 4000
    state = np.zeros(chains)
    ends = []
    for epoch in range(60):
        noise = rng.normal(size=(n, chains))
        noise = (noise - noise.mean(axis=0)) * (n / (n - 1)) ** 0.5
        for step in noise:
            state = (1 - eta) * state - eta * step
        if epoch >= 10:
            ends.append(np.mean(state**2))
    independent = eta**2 / (1 - (1 - eta) ** 2)
    assert np.mean(ends) / independent == pytest.approx(epoch_balance(eta, n), rel=0.02)
    assert epoch_balance(eta, n) == pytest.approx(0.27, abs=0.005)
    assert epoch_balance(eta, 1) == 1.0
