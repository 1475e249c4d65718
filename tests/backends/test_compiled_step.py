"""A step of every sampler that XLA compiled on TensorFlow is the step taken eagerly."""

import keras
import numpy as np
import pytest
from cases import SAMPLERS
from targets.small_network import assert_equal, assert_moved, data, network, weights

import keras_langevin as kl

pytestmark = [
    pytest.mark.backend,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="JAX compiles all; torch nothing"
    ),
]


def two_steps(case, seed=1, **how):
    model = network(2)
    model.compile(case.make(0.01, 40, seed=seed), "mse", **how)
    before, batches = weights(model), kl.RandomBatches(*data(40), 10, batches_per_epoch=2, seed=2)
    model.fit(batches, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=0)])
    assert_moved(before, weights(model))
    return weights(model)


@pytest.mark.parametrize("case", SAMPLERS, ids=[case.name for case in SAMPLERS])
def test_a_compiled_step_is_the_eager_one(case):
    compiled = two_steps(case, jit_compile=True)
    eager = {"run_eagerly": True, "jit_compile": False}
    assert_equal(compiled, two_steps(case, **eager), 1e-4)
    assert np.abs(compiled[0] - two_steps(case, seed=2, **eager)[0]).max() > 1e-3
