"""`keras.distribution` on JAX: four devices sample what one does, and hold their part of it."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import SAMPLERS, each

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX only")

QUICK = [case.name for case in SAMPLERS if case.stands_for_others]
OTHERS = [case.name for case in SAMPLERS if not case.stands_for_others]
# Weights of the network below, and the mesh's axis that each of theirs is split along.
SPLIT = {
    "hidden_kernel": [None, "model"],
    "hidden_bias": ["model"],
    "outputs_kernel": ["model", None],
    "outputs_bias": [None],
}
# Statistics with a number for each input feature have the kernel's first axis.
OF_FEATURES = ("input_mean", "input_second_moment", "input_variance")

SCRIPT = """
import json, sys

import cases
import keras
import numpy as np
import keras_langevin as kl

devices = keras.distribution.list_devices()
assert len(devices) == 4


def distribution(kind):
    if kind == "DataParallel":
        return keras.distribution.DataParallel(devices=devices)
    if kind == "ModelParallel":
        mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
        layout = keras.distribution.LayoutMap(mesh)
        layout[".*hidden.*kernel.*"] = (None, "model")
        layout[".*hidden/bias"] = ("model",)
        layout[".*outputs/kernel"] = ("model", None)
        return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


def spec(variable):
    found = getattr(variable.value.sharding, "spec", ())
    return [*found, *[None] * (len(variable.shape) - len(found))]


def train(case, kind):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    keras.distribution.set_distribution(distribution(kind))
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, "tanh", name="hidden"),
            keras.layers.Dense(2, name="outputs"),
        ],
        name="net",
    )
    own = {"batch_size": 8} if "batch_size" in case.arguments else {}
    optimizer = case.make(min(case.learning_rate, 0.02), num_data=32, seed=1, **own)
    model.compile(optimizer, kl.losses.GaussianNLL(1.0))
    generator = np.random.default_rng(0)
    x = generator.normal(1.0, 1.0, size=(32, 6)).astype("float32")
    y = generator.normal(size=(32, 2)).astype("float32")
    sampler = kl.PosteriorSampler(burn_in=1)
    model.fit(x, y, batch_size=8, epochs=4, shuffle=False, verbose=0, callbacks=[sampler])
    found = {
        "samples": [[w.tolist() for w in sample.values()] for sample in sampler.samples],
        "specs": [(v.path, v.shape, spec(v)) for v in model.trainable_variables],
        "states": [(v.name, v.shape, spec(v)) for v in optimizer.variables],
    }
    if case.stands_for_others:  # three members, which two devices cannot share
        ensemble = sampler.ensemble()
        found["predictions"] = ensemble.predict(x, verbose=0).tolist()
        found["members"] = [(v.name, v.shape, spec(v)) for v in ensemble.weights]
    return found


kinds = [None, "DataParallel", "ModelParallel"]
rows = {case.name: case for case in cases.SAMPLERS}
results = {name: {str(k): train(rows[name], k) for k in kinds} for name in sys.argv[1:]}
json.dump(results, sys.stdout)
"""


def _run(names):
    tests = os.path.dirname(os.path.dirname(__file__))
    path = os.pathsep.join([os.path.dirname(tests), tests, os.environ.get("PYTHONPATH", "")])
    flags = "--xla_force_host_platform_device_count=4"
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags, "PYTHONPATH": path},
        timeout=500,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def quick():
    return _run(QUICK)


@pytest.fixture(scope="module")
def others():
    return _run(OTHERS)


@pytest.fixture
def results(case, request):
    return request.getfixturevalue("quick" if case.stands_for_others else "others")[case.name]


def _expected(name, shape):
    """How a weight, or what is said of one, is split."""
    name = name.replace("/", "_").replace("kernel_bias", "bias")  # measured with the kernel
    weight = next((w for w in SPLIT if w in name), None)
    axes = SPLIT.get(weight, [])
    if name.endswith(OF_FEATURES):
        return axes[:1]
    if name.endswith("_shift"):
        return [None, axes[0]]
    return axes if len(shape) == len(axes) else [None] * len(shape)


@each()
@pytest.mark.parametrize("kind", ("DataParallel", "ModelParallel"))
def test_four_devices_sample_what_one_does(results, case, kind):
    one, four = results["None"]["samples"], results[kind]["samples"]
    assert len(one) == len(four) == 3
    for expected, found in zip(one, four, strict=True):
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
    assert np.ptp([s[0] for s in one], axis=0).min() > 0


@each()
def test_state_and_statistics_are_split_as_their_weights(results, case):
    found = results["ModelParallel"]
    weights = {path[4:].replace("/", "_"): spec for path, _, spec in found["specs"]}
    assert weights.items() >= SPLIT.items()
    for name, shape, spec in [*found["specs"], *found["states"]]:
        assert spec == _expected(name, shape), name


@pytest.mark.parametrize("kind", ("DataParallel", "ModelParallel"))
@pytest.mark.parametrize("name", QUICK)
def test_devices_have_their_part_of_every_member(quick, name, kind):
    one, four = quick[name]["None"], quick[name][kind]
    np.testing.assert_allclose(four["predictions"], one["predictions"], rtol=1e-4, atol=1e-5)
    splits = SPLIT.values() if kind == "ModelParallel" else [[None, None], [None]] * 2
    assert [shape[0] for _, shape, _ in four["members"]] == [3] * 4
    assert [spec for *_, spec in four["members"]] == [[None, *split] for split in splits]
