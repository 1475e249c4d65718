"""Two replicas sample the path of one that sees the same batches."""

import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import SAMPLERS
from targets.another_process import check_ended
from targets.running import ROOT

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


def train(sampler, strategy, prior=0.5, callbacks=(), rows=24, batch_size=8, **options):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((12,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]
        )
        optimizer = sampler(
            0.02, num_data=32, prior=kl.priors.Normal(prior), temperature=1.0, seed=1, **options
        )
        model.compile(optimizer, loss="mse", jit_compile=False)
        if not callbacks:  # a `PosteriorSampler` does so itself, outside of the scope
            kl.track_statistics(model, optimizer)
    rng = np.random.default_rng(0)
    # More inputs than a batch or a replica's share of it has examples, for the q of BNP.
    x = rng.normal(1.0, 1.0, size=(rows, 12)).astype("float32")
    y = rng.normal(size=(rows, 2)).astype("float32")
    data = {"x": x, "y": y, "batch_size": batch_size, "shuffle": False}
    model.fit(**data, verbose=0, callbacks=list(callbacks))
    replicas = [
        [local.numpy().tolist() for local in strategy.experimental_local_results(v.value)]
        for v in model.trainable_variables
        if not kl.weights.is_statistic(v)
    ]
    states = [v.numpy().tolist() for v in optimizer.variables]
    return {"replicas": replicas, "states": states, "bad_steps": optimizer.nonfinite_steps}


results = {}
for name in sys.argv[1:]:
    sampler = getattr(kl, name)
    two = train(sampler, TWO, callbacks=[kl.PosteriorSampler(burn_in=10)])
    results[name] = {"one": train(sampler, ONE), "two": two}
LARGE = {"rows": 256, "batch_size": 128}  # of which some are measured
for name, options in (("large", LARGE), ("model", {"fisher": "model"})):
    one, two = (train(kl.QDOPLangevin, strategy, **options) for strategy in (ONE, TWO))
    results[name] = {"one": one, "two": two}
for sampler in (kl.QDOPLangevin, kl.BNPLangevin):
    alone = train(sampler, TWO, rows=9)  # the last batch has one example
    results[f"{sampler.__name__}, alone"] = alone
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
        timeout=500,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("sampler", [*NAMES, "large", "model"])
def test_two_replicas_follow_the_path_of_one(results, sampler):
    one, two = results[sampler]["one"], results[sampler]["two"]
    for single, mirrored in zip(one["replicas"], two["replicas"], strict=True):
        assert len(single) == 1
        assert len(mirrored) == 2
        np.testing.assert_array_equal(mirrored[0], mirrored[1])
        np.testing.assert_allclose(mirrored[0], single[0], rtol=1e-5, atol=1e-5)
    for single, mirrored in zip(one["states"], two["states"], strict=True):
        np.testing.assert_allclose(mirrored, single, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sampler", ["QDOPLangevin", "BNPLangevin"])
def test_a_replica_without_an_example(results, sampler):
    found = results[f"{sampler}, alone"]
    assert found["bad_steps"] == 0
    assert all(np.isfinite(values).all() for values in found["states"])


def test_the_copies_of_a_chain_cannot_drift_apart(results):
    assert results["SGLD"]["by_replica"] == results["SGLD"]["two"]


@pytest.mark.slow
def test_the_example_of_two_workers():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "examples" / "several_workers.py"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    check_ended([ran.returncode], [ran.stderr])
    number = r"(\d+\.\d+)"
    found = re.findall(rf"worker (\d): means off by {number}, widths {number}", ran.stdout)
    (first, *numbers), (second, *others) = sorted(found)
    assert (first, second) == ("0", "1")
    assert numbers == others
    assert float(numbers[0]) < 1.0  # standard deviations: 23 independent samples, 0.2 each
    assert 0.8 < float(numbers[1]) < 1.3


def test_the_comparison_can_fail(results):
    first, second = results["SGLD"]["two"]["replicas"], results["SGLD"]["other"]["replicas"]
    assert np.abs(np.subtract(first[0], second[0])).max() > 1e-3
