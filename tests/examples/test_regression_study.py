"""The study of regression (`examples/studies/momentum/`): its parts, and all of it at a size that
takes seconds."""

import json

import keras
import numpy as np
import pytest
from targets.running import run_module

import keras_langevin as kl
from examples.studies.common.batches import shuffled_batches
from examples.studies.momentum import regression


@pytest.mark.slow
@pytest.mark.further
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="run on JAX alone")
def test_regression_study_runs_and_reports(tmp_path):
    results = tmp_path / "rows.jsonl"
    methods = "deep ensemble,pSMILE"
    run_module("studies.momentum.regression", "--quick", "--methods", methods, "--results", results)
    ensemble, smile = [json.loads(line) for line in results.read_text().splitlines()]
    assert smile["method"] == "pSMILE" and not smile["diverged"]
    assert smile["lppd"] > ensemble["lppd"] > -0.7  # N(0, 1), which knows no x, has -1.42
    assert smile["rmse"] < 0.3
    assert "| pSMILE |" in results.with_suffix(".md").read_text()
    assert results.with_suffix(".png").exists()


def test_batches_are_whole_passes():
    x, y = np.arange(10)[:, None], np.arange(10)
    assert passes_of(shuffled_batches(x, y, 4, seed=0))
    assert not passes_of(shuffled_without_the_last(x, y, 4))


def passes_of(stream):
    """Whether any ten rows in a row, from the start, are all the data, and inputs fit targets."""
    pairs = [next(stream) for _ in range(10)]
    x, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return np.array_equal(x[:, 0], y) and all(
        len(set(part)) == 10 for part in y.reshape(-1, 10).tolist()
    )


def shuffled_without_the_last(x, y, batch_size):
    """What leaving out incomplete batches gives."""
    generator = np.random.default_rng(0)
    while True:
        rows = generator.permutation(len(x))
        for first in range(0, len(x) - batch_size + 1, batch_size):
            yield x[rows[first : first + batch_size]], y[rows[first : first + batch_size]]


def test_training_rows_alone_standardise():
    problem = regression.synthetic()
    parts = problem.split(0)
    assert has_training_units(parts)
    rows = problem.split_rows(0)
    everything = regression.standardised(problem.x, np.arange(len(problem.x)))
    assert not has_training_units({part: (everything[r], None) for part, r in rows.items()})
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(problem.x)))


def has_training_units(parts):
    x, _ = parts["train"]
    return np.allclose(x.mean(axis=0), 0, atol=1e-5) and np.allclose(x.std(axis=0), 1, atol=1e-4)


def test_scores_are_those_of_the_mixture():
    keras.utils.set_random_seed(1)
    weights = [regression.network(3).get_weights() for _ in range(8)]
    member = regression.network(3)
    ensemble = kl.BayesianEnsembleModel(
        member, weights, output="mean_and_log_scale", chains=[0] * 4 + [1] * 4
    )
    x, y = np.random.normal(size=(20, 3)).astype("float32"), np.random.normal(size=(20, 1))
    row = regression.scores(ensemble, x, y)
    expected = -ensemble.evaluate(x, y, verbose=0)
    assert row["lppd"] == pytest.approx(expected, abs=1e-5)
    assert np.mean(row["chain_lppd"]) < row["lppd"] - 1e-3  # not the mean over the chains
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean((y - ensemble.predict(x)) ** 2)), rel=1e-4)


def test_full_batches_take_steps_for_every_sample():
    budget = regression.Budget(steps=6000, samples=100)
    assert regression.steps_of(budget, 1000) == 6000
    assert regression.steps_of(budget, 12_165) == 1000
