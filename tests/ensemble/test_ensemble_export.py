"""Exported ensembles, loaded by TensorFlow where keras_langevin cannot be imported."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from targets.tiers import imports_tensorflow

from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.losses import GaussianNLL
from keras_langevin.weights import named_weights

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
MEMBERS = 5
X = RNG.normal(size=(7, 4)).astype("float32")

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]


def writes_saved_models(test):
    reason = "Keras writes SavedModels on TensorFlow and JAX"
    return pytest.mark.skipif(BACKEND == "torch", reason=reason)(imports_tensorflow(test))


# Loads a SavedModel and prints, for each batch size, what both endpoints return.
LOADER = """
import importlib.abc, json, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_langevin":
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import numpy as np
import tensorflow as tf

path, inputs, sizes = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
inputs = {k: np.array(v, "float32") for k, v in inputs.items()}
served = tf.saved_model.load(path)
results = []
for size in sizes:
    x = {k: v[:size] for k, v in inputs.items()}
    x = x["only"] if list(x) == ["only"] else x
    for endpoint in (served.serve, served.predict_uncertainty):
        result = tf.nest.map_structure(lambda t: t.numpy().tolist(), endpoint(x))
        results.append(result)
print("RESULT" + json.dumps(results))
"""


def draw(model):
    return [
        {n: RNG.uniform(0.1, 1, v.shape).astype("float32") for n, v in named_weights(model).items()}
        for _ in range(MEMBERS)
    ]


def load_elsewhere(path, inputs, sizes):
    """Pairs of what `serve` and `predict_uncertainty` return for the first `size` examples."""
    inputs = {k: v.tolist() for k, v in inputs.items()}
    process = subprocess.run(
        [sys.executable, "-c", LOADER, str(path), json.dumps(inputs), json.dumps(sizes)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads(process.stdout.split("RESULT")[1])
    return list(zip(results[::2], results[1::2], strict=True))


@writes_saved_models
def test_the_saved_model_serves_any_batch_size_without_this_package(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ensemble = BayesianEnsembleModel(model, draw(model), member_batch_size=2)
    ensemble.export(tmp_path / "served", verbose=False, quantiles=(0.2, 0.9))
    for size, (mean, uncertainty) in zip(
        (2, 7), load_elsewhere(tmp_path / "served", {"only": X}, [2, 7]), strict=True
    ):
        np.testing.assert_allclose(mean, ensemble.predict(X[:size], verbose=0), atol=1e-6)
        expected = ensemble.predict_uncertainty(X[:size], (0.2, 0.9), verbose=0)
        assert set(uncertainty) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(uncertainty[name], value, atol=1e-5, err_msg=name)


@pytest.mark.slow
@writes_saved_models
def test_a_model_of_several_inputs_and_outputs_without_config(tmp_path):
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((2,), name="right")}

    class NoConfig(layers.Layer):
        def __init__(self, thing):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x["left"]) * x["right"]

        def get_config(self):
            raise NotImplementedError

    outputs = {"kind": layers.Dense(3)(inputs["left"]), "size": NoConfig(object())(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile(
        loss={
            "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "size": GaussianNLL(),
        }
    )
    ensemble = BayesianEnsembleModel(model, draw(model))
    ensemble.export(tmp_path / "served", verbose=False)
    x = {"left": X, "right": X[:, :2]}
    expected = ensemble.predict_uncertainty(x, verbose=0)
    ((mean, uncertainty),) = load_elsewhere(tmp_path / "served", x, [7])
    assert set(mean) == {"kind", "size"}
    flat = {f"{k}_{name}": v for k, one in expected.items() for name, v in one.items()}
    assert set(uncertainty) == set(flat)
    for name, value in flat.items():
        np.testing.assert_allclose(uncertainty[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


@writes_saved_models
def test_a_subclassed_model_that_does_not_know_its_inputs(tmp_path):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)
            self.dense.build((None, 4))
            self.built = True

        def call(self, inputs):
            return self.dense(inputs)

    model = Subclassed()
    ensemble = BayesianEnsembleModel(model, draw(model), output="logits")
    with pytest.raises(ValueError, match="Pass `input_signature="):
        ensemble.export(tmp_path / "served", verbose=False)
    ensemble.export(
        tmp_path / "served",
        verbose=False,
        input_signature=[keras.InputSpec(shape=(None, 4), dtype="float32")],
    )
    import tensorflow as tf

    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(X), ensemble.predict(X, verbose=0), atol=1e-6)


@pytest.mark.skipif(BACKEND != "torch", reason="about torch")
def test_torch_says_where_to_export(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    ensemble = BayesianEnsembleModel(model, draw(model), output="logits")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        ensemble.export(tmp_path / "served")


def test_a_format_that_keras_does_not_know_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    ensemble = BayesianEnsembleModel(model, draw(model), output="logits")
    with pytest.raises(ValueError, match="Unrecognized format"):
        ensemble.export(tmp_path / "served", format="paper")
