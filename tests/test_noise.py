"""The noise is Gaussian, and a pure function of (seed, iteration, stream)."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats
from targets.rows import every_row

from keras_langevin.noise import random_signs, standard_normal

DRAWS = 1_000_000


def draw(shape=DRAWS, seed=1, iteration=0, stream=0, exact=False):
    shape = shape if isinstance(shape, tuple) else (shape,)
    return ops.convert_to_numpy(standard_normal(shape, seed, iteration, stream, exact))


def z_score(x, y):
    """Correlation of two independent arrays in standard errors."""
    return np.mean(x.astype("float64") * y) * len(x) ** 0.5


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def test_same_arguments_give_the_same_numbers():
    np.testing.assert_array_equal(draw(1000, 5, 6, 7), draw(1000, 5, 6, 7))
    as_tensor = ops.convert_to_tensor(6, dtype="int32")
    np.testing.assert_array_equal(draw(1000, 5, 6, 7), draw(1000, 5, as_tensor, 7))


@pytest.mark.backend
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch does not compile")
def test_eager_equals_compiled():
    step = compiled(lambda iteration: standard_normal((1000,), 5, iteration, 7))
    for iteration in (0, 6, 2**31 - 1):
        inside = step(ops.convert_to_tensor(iteration, dtype="int32"))
        np.testing.assert_allclose(
            ops.convert_to_numpy(inside), draw(1000, 5, iteration, 7), rtol=1e-5, atol=1e-6
        )


def test_every_part_of_the_key_changes_the_numbers():
    """Also where two parts change together: seed 2 must not be seed 1 a step later."""
    seeds = (0, 1, 2, 2**32, 2**32 + 1, 2**70 + 1)
    keys = list(itertools.product(seeds, range(3), range(3)))
    n = 400
    arrays = np.stack([draw(n, *key) for key in keys]).astype("float64")
    assert len(np.unique(arrays[:, 0])) == len(keys)
    correlations = arrays @ arrays.T / n**0.5
    np.fill_diagonal(correlations, 0.0)
    assert np.abs(correlations).max() < 5  # 1,431 pairs


def test_consecutive_iterations_streams_and_neighbours_are_uncorrelated():
    plain = draw()
    assert abs(z_score(plain, draw(iteration=1))) < 5
    assert abs(z_score(plain, draw(stream=1))) < 5
    assert abs(z_score(plain, draw(seed=2))) < 5
    for lag in (1, 2, 3, 64, 1024):
        assert abs(z_score(plain[lag:], plain[:-lag])) < 5
        assert abs(z_score(plain[lag:] ** 2 - 1, plain[:-lag] ** 2 - 1) / 2) < 5


def test_consecutive_iterations_of_one_number_are_uncorrelated():
    path = np.stack([draw(200, iteration=t) for t in range(100)])
    assert abs(path.mean() * path.size**0.5) < 5
    assert abs(z_score(path[1:].ravel(), path[:-1].ravel())) < 5


def moment(power):
    """E[z^power]."""
    return 0 if power % 2 else np.prod(np.arange(1.0, power, 2))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("seed", [1, 2**40 + 3])
def test_moments_and_distribution(seed, exact):
    z = draw(seed=seed, exact=exact).astype("float64")
    assert z.shape == (DRAWS,)
    for power in range(1, 9):
        variance = moment(2 * power) - moment(power) ** 2
        error = (np.mean(z**power) - moment(power)) / (variance / DRAWS) ** 0.5
        assert abs(error) < 5, power
    assert stats.kstest(z, "norm").pvalue > 1e-5


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("threshold", [3.0, 4.0])
def test_tails(threshold, exact):
    z = draw(exact=exact)
    for beyond in (z > threshold, z < -threshold):
        expected = DRAWS * stats.norm.sf(threshold)
        assert abs(beyond.sum() - expected) < 5 * expected**0.5


def signs(seed=1, iteration=0, stream=0):
    return ops.convert_to_numpy(random_signs((DRAWS // 10, 10), seed, iteration, stream))


def test_signs_are_even_and_independent_of_each_other_and_of_the_noise():
    plain = signs()
    assert plain.shape == (DRAWS // 10, 10) and plain.dtype == np.float32
    assert set(np.unique(plain)) == {-1.0, 1.0}
    np.testing.assert_array_equal(plain, signs())
    flat = plain.ravel()
    assert abs(z_score(flat, np.ones(DRAWS))) < 5
    for lag in (1, 2, 10, 1024):
        assert abs(z_score(flat[lag:], flat[:-lag])) < 5
    for other in (signs(iteration=1), signs(stream=1), signs(seed=2), draw()):
        assert abs(z_score(flat, other.ravel())) < 5


@pytest.mark.backend
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sizes are known elsewhere")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_signs_of_a_batch_of_unknown_size(jit_compile):
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec((None, 3)), tf.TensorSpec(())], jit_compile=jit_compile
    )
    def drawn(x, iteration):
        return random_signs(ops.shape(x), 1, iteration, 0)

    for n in (4, 7):
        expected = ops.convert_to_numpy(random_signs((n, 3), 1, 5, 0))
        np.testing.assert_array_equal(drawn(tf.zeros((n, 3)), 5.0), expected)


@every_row("shape", [(), (0,), (3, 0), (2, 3, 4)])
def test_shapes(shape):
    z = draw(shape)
    assert z.shape == shape
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z.ravel(), draw(z.size))
