"""Chains as one program on several devices."""

import json

import keras
import pytest
from targets.another_process import run_python

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX only")

CHAINS = """
    import json, os
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    import jax, keras, numpy as np
    import keras_langevin as kl
    from keras_langevin.sampling.vectorized import states

    X = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    made, plain = [], states.ChainStates.__init__

    def noticed(self, *args):
        plain(self, *args)
        made.append(self)

    states.ChainStates.__init__ = noticed

    def train(chain):
        keras.utils.set_random_seed(chain)
        layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((3,)), *layers])
        model.compile(kl.QDOPLangevin(num_data=50), kl.losses.GaussianNLL(0.3))
        sampler = kl.PosteriorSampler(burn_in=2)
        fit = {"batch_size": 10, "shuffle": False, "verbose": 0}
        model.fit(X, np.sin(X[:, :1]), epochs=5, callbacks=[sampler], **fit)
        return sampler

    def weights(num_chains, vectorized):
        ensemble = kl.sample_chains(train, num_chains, vectorized=vectorized, verbose=0)
        return ensemble.weights_by_name().values()

    # Four chains on four devices, three on one.
    expected, four, three = weights(4, False), weights(4, True), weights(3, True)
    differences = [max(np.abs(a - b[: len(a)]).max() for a, b in zip(found, expected))
                   for found in (four, three)]
    devices = [len(of.stacks[0][0].sharding.device_set) for of in made]
    print(json.dumps({"differences": [float(d) for d in differences], "devices": devices}))
"""


@pytest.mark.slow
def test_chains_are_spread_over_devices_that_divide_them():
    found = json.loads(run_python(CHAINS).splitlines()[-1])
    assert max(found["differences"]) < 1e-3
    assert found["devices"] == [4, 1]
