"""The studies of images and of language (`examples/studies/momentum/`): their parts, and each at a
size that takes seconds."""

import json

import keras
import numpy as np
import pytest
from targets.running import run_calls

from examples.studies.momentum import images, language


def rows_of(tmp_path, study, *arguments):
    """After two runs, in the second of which nothing is run again."""
    results = tmp_path / "rows.jsonl"
    run_calls(study, *[[*arguments, "--results", results, "--weights-dir", tmp_path]] * 2)
    return [json.loads(line) for line in results.read_text().splitlines()]


quickest = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="run on TensorFlow alone, which traces quickest"
)


@pytest.mark.slow
@pytest.mark.backend
@quickest
def test_image_study(tmp_path):
    *warm, ensemble, smile = rows_of(
        tmp_path, "studies.momentum.images", "--methods", "deep ensemble,pSMILE"
    )
    assert [row["stage"] for row in warm] == ["warm start"] * 2
    assert (ensemble["members"], smile["members"]) == (2, 16)
    assert ensemble["nll"] < 0.8 and smile["accuracy"] > 0.75
    assert smile["nll"] < ensemble["nll"] + 0.1
    assert max(smile["logs"]["step_size"]) > 10 * smile["first_step"]  # the tuner has worked
    assert "| pSMILE |" in (tmp_path / "rows.md").read_text()


@pytest.mark.slow
@pytest.mark.backend
@quickest
def test_language_study(tmp_path):
    warm, *runs = rows_of(
        tmp_path, "studies.momentum.language", "--quick", "--methods", "pSMILE, no tuner"
    )
    assert warm["perplexity"] < 2  # of 25 characters
    tiny, useful, huge = (row["perplexity"] for row in runs)
    assert useful < warm["perplexity"] - 0.01 < tiny < warm["perplexity"] + 0.01
    assert huge > 2 * warm["perplexity"]
    assert (tmp_path / "rows.png").exists()


def test_networks_have_the_published_numbers_of_weights():
    assert images.lenet((28, 28, 1)).count_params() == 61_706
    assert images.resnet7((32, 32, 3)).count_params() == 428_272


def test_filter_response_is_its_formula():
    x = np.random.default_rng(0).normal(0.5, size=(2, 4, 5, 3)).astype("float32")
    layer = images.FilterResponse()
    found = keras.ops.convert_to_numpy(layer(x))
    mean, square = x.mean(axis=(1, 2), keepdims=True), np.square(x).mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found, np.maximum(x / np.sqrt(square + 1e-6), 0), atol=1e-5)
    centred = np.maximum(x / np.sqrt(square - mean**2 + 1e-6), 0)
    assert np.abs(found - centred).max() > 0.01
    epsilon, gamma, beta, tau = [-1.5], [2.0, 1.0, 0.5], [0.1, 0.2, 0.3], [-0.2, 0.0, 0.4]
    layer.set_weights([np.array(w, "float32") for w in (epsilon, gamma, beta, tau)])
    expected = np.maximum(gamma * x / np.sqrt(square + 1.5) + beta, tau)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected, atol=1e-5)


def test_scores_are_those_of_averaged_probabilities():
    members = np.random.default_rng(0).dirichlet(np.ones(5), size=(6, 40)).astype("float32")
    y = np.arange(40) % 5
    found = images.metrics(members, y)
    assert found["nll"] == pytest.approx(-np.mean(np.log(of_labels(members.mean(axis=0), y))))
    assert found["nll"] < -np.mean(np.log(of_labels(members, y))) - 0.1  # not the members' mean
    assert found["accuracy"] == np.mean(members.mean(axis=0).argmax(axis=1) == y)


def of_labels(probabilities, labels):
    return probabilities[..., np.arange(len(labels)), labels]


def test_targets_are_the_next_characters():
    numbers = np.arange(103)
    x, y = language.windows(numbers, 10)
    assert x.shape == y.shape == (10, 10)
    assert np.array_equal(y, x + 1) and np.array_equal(x.ravel(), numbers[:100])
    assert len(language.windows(numbers[:100], 10)[0]) == 9  # the last has no whole target


def test_no_character_sees_what_comes_after_it():
    size = language.QUICK
    model = language.network(11, size)
    x = np.random.default_rng(0).integers(0, 11, (1, size.context))
    changed = x.copy()
    changed[0, 7] = (changed[0, 7] + 1) % 11
    before, after = (model.predict(each, verbose=0) for each in (x, changed))
    moved = np.abs(before - after).max(axis=(0, 2)) > 1e-6
    assert not moved[:7].any() and moved[7:].all()


def test_step_sizes_span_four_decades():
    for method in language.METHODS:
        sizes = language.step_sizes(method)
        assert len(sizes) == 9 and sizes[-1] / sizes[0] == pytest.approx(1e4)


def test_a_lost_seed_makes_a_method_lost():
    runs = [
        {"method": "SGLD", "step_size": 1.0, "perplexity": 2.0},
        {"method": "SGLD", "step_size": 1.0, "diverged": True},
        {"method": "SGLD", "step_size": 0.1, "perplexity": 2.0},
    ]
    assert language.mean_perplexities(runs, "SGLD") == {0.1: 2.0, 1.0: np.inf}
