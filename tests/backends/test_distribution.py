"""Two replicas sample the path of one that sees the same batches."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import SAMPLERS

NAMES = [case.name for case in SAMPLERS if case.on_replicas]

pytestmark = [
    pytest.mark.law,
    pytest.mark.backend,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow only"),
]

SCRIPT = '''
import json, sys

import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import keras_langevin as kl

# One strategy for all: a second one on the same devices would count its collectives anew.
ONE, TWO = (tf.distribute.MirroredStrategy(d) for d in (["cpu:0"], ["cpu:0", "cpu:1"]))


class ByReplica(kl.SGLD):
    """Replicas whose arithmetic differs, as TensorFlow's graph optimizer can make it."""

    def step(self, *arguments):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for variable, value in super().step(*arguments):
            yield variable, value + tf.cast(replica, value.dtype)


def train(sampler, strategy, prior=0.5, **options):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((12,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]
        )
        optimizer = sampler(
            0.02, num_data=32, prior=kl.priors.Normal(prior), temperature=1.0, seed=1, **options
        )
        model.compile(optimizer, loss="mse", jit_compile=False)
        kl.track_statistics(model, optimizer)
    rng = np.random.default_rng(0)
    # More inputs than a batch or a replica's share of it has examples, for the q of BNP.
    x = rng.normal(1.0, 1.0, size=(24, 12)).astype("float32")
    y = rng.normal(size=(24, 2)).astype("float32")
    model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    replicas = [
        [local.numpy().tolist() for local in strategy.experimental_local_results(v.value)]
        for v in model.trainable_variables
        if not kl.weights.is_statistic(v)
    ]
    states = [v.numpy().tolist() for v in optimizer.variables]
    return {"replicas": replicas, "states": states}


results = {}
for name in sys.argv[1:]:
    sampler = getattr(kl, name)
    results[name] = {"one": train(sampler, ONE), "two": train(sampler, TWO)}
results["SGLD"]["other"] = train(kl.SGLD, TWO, prior=0.1)
results["SGLD"]["by_replica"] = train(ByReplica, TWO)
json.dump(results, sys.stdout)
'''


@pytest.fixture(scope="module")
def results():
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *NAMES],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("sampler", NAMES)
def test_two_replicas_follow_the_path_of_one(results, sampler):
    one, two = results[sampler]["one"], results[sampler]["two"]
    for single, mirrored in zip(one["replicas"], two["replicas"], strict=True):
        assert len(single) == 1
        assert len(mirrored) == 2
        np.testing.assert_array_equal(mirrored[0], mirrored[1])
        np.testing.assert_allclose(mirrored[0], single[0], rtol=1e-5, atol=1e-5)
    for single, mirrored in zip(one["states"], two["states"], strict=True):
        np.testing.assert_allclose(mirrored, single, rtol=1e-4, atol=1e-6)


def test_the_copies_of_a_chain_cannot_drift_apart(results):
    assert results["SGLD"]["by_replica"] == results["SGLD"]["two"]


def test_the_comparison_can_fail(results):
    first, second = results["SGLD"]["two"]["replicas"], results["SGLD"]["other"]["replicas"]
    assert np.abs(np.subtract(first[0], second[0])).max() > 1e-3
