"""Copies of a tracked model are models of the user's own, and train on."""

import copy
import pickle

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers, ops

import keras_langevin as kl
from keras_langevin.weights import is_statistic, parameters

N = 16


def make_data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 3)).astype("float32"), rng.normal(size=(N, 1)).astype("float32")


def fit(model, sampler=None):
    sampler = sampler or kl.PosteriorSampler(burn_in=1)
    model.fit(*make_data(), batch_size=N, epochs=2, verbose=0, callbacks=[sampler])
    return sampler


def cloned(model):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def on_the_same_layers(model):
    return keras.Model(model.inputs, model.layers[-1](model.layers[0].output))


COPIES = {
    "clone": cloned,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "config": lambda model: cloned(keras.Sequential.from_config(model.get_config())),
    "same_layers": on_the_same_layers,
}


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(1)])
    optimizer = kl.QDOPLangevin(0.01, num_data=N, seed=1)
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    fit(model)
    return model


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_not_tracked_and_trains_apart(model, kind):
    x, _ = make_data()
    other = COPIES[kind](model)
    if kind != "config":
        np.testing.assert_allclose(
            other.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
        )
    assert not kl.statistics.is_tracked(other)
    assert not any(map(is_statistic, other.variables))
    optimizer = kl.QDOPLangevin(0.01, num_data=N, seed=1)
    other.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    before = [ops.convert_to_numpy(v) for v in parameters(model)]
    fit(other)
    moments = [v for v in other.trainable_variables if is_statistic(v)]
    assert moments and all(np.abs(ops.convert_to_numpy(v)).max() > 0 for v in moments)
    if kind != "same_layers":
        for was, now in zip(before, parameters(model), strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(now), was)
    fit(model)
    assert kl.statistics.is_tracked(model)


def test_a_copy_keeps_its_optimizer(model):
    """Compiled as it was: a file of the model is one too."""
    other = copy.deepcopy(model)
    assert isinstance(other.optimizer, kl.QDOPLangevin)
    fit(other)
    assert int(other.optimizer.iterations) == int(model.optimizer.iterations) + 2


def test_a_copied_layer_is_free_of_probes(model):
    layer = type(model.layers[0]).from_config(model.layers[0].get_config())
    assert "call" not in layer.__dict__
    assert "call" in model.layers[0].__dict__
