"""The study of `examples/benchmarks/noise_quality.py`, smaller: what the noise passes, bad noise
fails."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import ndtr

from keras_langevin import noise
from keras_langevin.normal_numbers import normal_by_sum, word

if keras.backend.backend() != "jax":
    pytest.skip("the study runs on JAX alone", allow_module_level=True)

pytestmark = pytest.mark.fuzz
STRIDE = 997
LONG, SHORT = (100_000, 100), (10, 500_000)  # size of variable, iterations


@pytest.fixture(scope="module")
def study():
    from examples.benchmarks import noise_quality  # imports JAX

    return noise_quality


def sum_of_bytes(words):
    """A word's four bytes, centred and scaled: z without the polynomial."""
    total = sum(ops.bitwise_and(ops.right_shift(words, word(s)), word(255)) for s in (0, 8, 16, 24))
    return (ops.cast(total, "float32") - 510) / (4 * (256**2 - 1) / 12) ** 0.5


def normal_of_added_keys(shape, seed, iteration, stream):
    """The next iteration repeats this one, shifted by one number."""
    counter = ops.cast(ops.arange(shape[0]) + iteration + 1_000_003 * (2 * seed + stream), "uint32")
    words = noise._mix(noise._mix(counter))
    return normal_by_sum(words, noise._mix(words))


def normal_of_added_seed(shape, seed, iteration, stream):
    """The next seed repeats this one an iteration later."""
    return noise.standard_normal(shape, 0, iteration + seed, stream)


def law_scores(found):
    """What `law` found over some of the words, in standard errors."""
    scores = {f"moment {k}": found[f"moment {k}"] for k in range(1, 9)}
    beyond = {f"beyond {x:+}": ndtr(-abs(x)) ** 0.5 for x in (-4, -3, -2, -1, 1, 2, 3, 4)}
    scores |= {name: found[name] * scale for name, scale in beyond.items()}
    scores["distance"] = 2 * found["distance"]  # Kolmogorov: beyond 4.4 once in 10^4
    return {name: score * found["words"] ** 0.5 for name, score in scores.items()}


def failed(scores):
    return {name: score for name, score in scores.items() if not abs(score) < 5}


@pytest.mark.parametrize("way", ["fast", "exact"])
def test_the_law_is_normal(study, way):
    found = study.law(study.WAYS[way], STRIDE)
    assert found["words"] == -(-(2**32) // STRIDE)
    assert found["smallest"] < -5 and found["largest"] > 5
    assert not failed(law_scores(found))


def test_the_law_of_a_plain_sum_of_bytes_is_not(study):
    found = study.law(sum_of_bytes, 10 * STRIDE)
    assert {"moment 4", "moment 8", "beyond +3", "beyond -3"} <= set(failed(law_scores(found)))
    assert {"moment 1", "moment 2"}.isdisjoint(failed(law_scores(found)))


@pytest.mark.parametrize("use", [LONG, SHORT])
def test_draws_are_independent(study, use):
    scores = study.draws(noise.standard_normal, *use)["z"]
    assert len(scores) == (46 if use == LONG else 40)
    assert not failed(scores)
    assert 0.3 < np.mean(np.square(list(scores.values()))) < 3


def test_a_shift_with_the_iteration_is_seen(study):
    scores = study.draws(normal_of_added_keys, 1000, 2000)["z"]
    assert {"iteration +1, neighbour -1", "sums, neighbour 1"} <= set(failed(scores))


def test_a_shift_with_the_seed_is_seen(study):
    scores = study.draws(normal_of_added_seed, 1000, 2000)["z"]
    assert set(failed(scores)) == {"iteration +1, seed -1", "iteration +1, seed -1, squares"}


@pytest.mark.parametrize("generator, passes", [("pcg64", True), ("linear_congruential", False)])
def test_words_of_the_controls(study, generator, passes):
    """The lowest bit of a good generator is a fair coin; that of a bad one alternates."""
    bits = next(getattr(study, generator)()).ravel()[:100_000] & 1
    changes = np.count_nonzero(np.diff(bits.astype("int8")))
    assert (abs(changes - 50_000) < 5 * 25_000**0.5) == passes


def test_the_rows_have_all_parts(study):
    rows = study.Results(study.RESULTS / "noise_quality.jsonl").rows
    assert {row["part"] for row in rows} == set(study.PARTS)
