"""NaN in the share of one replica: both leave the step out, and stay on the path of one."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import SAMPLERS

pytestmark = [
    pytest.mark.law,
    pytest.mark.backend,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow only"),
]
# By its row, in batches of 8: the second replica has rows 12 to 15 of the batch of step 2.
ONE_BAD, FOUR_IN_A_ROW = [13], [25, 38, 41, 55]

SCRIPT = """
import json, sys

import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import keras_langevin as kl
from keras_langevin.keras_internals import inner_optimizer

# One strategy for all: a second one on the same devices would count its collectives anew.
ONE, TWO = (tf.distribute.MirroredStrategy(d) for d in (["cpu:0"], ["cpu:0", "cpu:1"]))


def train(strategy, sampler, action, bad, part, policy="float32", callbacks=()):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((12,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]
        )
        optimizer = getattr(kl, sampler)(0.02, num_data=32, seed=1, on_nonfinite=action)
        model.compile(optimizer, loss="mse", jit_compile=False)
        kl.track_statistics(model, model.optimizer)
    keras.config.set_dtype_policy("float32")
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(1.0, 1.0, (80, 12)), "y": rng.normal(size=(80, 2))}
    data[part][bad] = np.nan
    model.fit(**data, batch_size=8, shuffle=False, verbose=0, callbacks=list(callbacks))

    def on_each_replica(variable):
        local = strategy.experimental_local_results(variable.value)
        return [value.numpy().tolist() for value in local]

    return {
        "weights": [on_each_replica(v) for v in model.trainable_variables],
        "states": [on_each_replica(v) for v in optimizer.variables],
        "count": [optimizer.nonfinite_steps, optimizer.last_nonfinite_step],
    }


def raised(*args):
    try:
        train(*args, callbacks=[kl.PosteriorSampler(0)])
    except FloatingPointError as error:
        return str(error)


cases, raising, half = json.loads(sys.argv[1])
results = {
    "cases": [[train(strategy, *case) for strategy in (ONE, TWO)] for case in cases],
    "raised": [raised(TWO, *case) for case in raising],
    "half": [train(TWO, *case, "mixed_float16") for case in half],
}
json.dump(results, sys.stdout)
"""
CASES = [
    (case.name, action, bad, case.faults_on_replicas)
    for case in SAMPLERS
    if case.faults_on_replicas
    for action, bad in (("skip", ONE_BAD), ("rollback", FOUR_IN_A_ROW))
]
RAISING = [(sampler, "raise", ONE_BAD, "y") for sampler in ("SGLD", "QDOPLangevin")]
HALF = [(sampler, "skip", ONE_BAD, "y") for sampler in ("SGLD", "QDOPLangevin")]


def run(script, *cases):
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", script, json.dumps(cases)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def results():
    return run(SCRIPT, CASES, RAISING, HALF)


def assert_alike_and_finite(variables):
    for replicas in variables:
        for values in replicas:
            assert np.isfinite(values).all()
            np.testing.assert_array_equal(values, replicas[0])


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda i: "-".join(CASES[i][:2]))
def test_both_replicas_leave_the_same_steps_out(results, number):
    one, two = results["cases"][number]
    assert_alike_and_finite(two["weights"])
    assert_alike_and_finite(two["states"])
    bad = CASES[number][2]
    assert two["count"] == one["count"] == [len(bad), 1 + bad[-1] // 8]
    assert all(len(replicas) == 2 for replicas in two["weights"])
    for single, mirrored in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(mirrored[0], single[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", range(len(RAISING)))
def test_raise(results, number):
    assert "in 1 steps, none of them taken, the last was step 2, at" in results["raised"][number]


@pytest.mark.parametrize("number", range(len(HALF)))
def test_float16(results, number):
    """Keras looks for overflow in the first replica alone; what it lets through stops here."""
    found = results["half"][number]
    assert_alike_and_finite(found["weights"])
    assert_alike_and_finite(found["states"])
    assert found["count"] == [1, 2]


EACH_BY_ITSELF = """
from keras_langevin import keras_internals
keras_internals.optimizer._sum_over_replicas = lambda optimizer, gradients, variables: gradients

"""


def test_replicas_that_decide_alone_would_differ():
    results = run(
        SCRIPT.replace("# One strategy", EACH_BY_ITSELF + "# One strategy"), CASES[:1], [], []
    )
    with pytest.raises(AssertionError):
        test_both_replicas_leave_the_same_steps_out(results, 0)
