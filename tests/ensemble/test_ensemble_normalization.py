"""Layers that were adapted to the data before training keep what they have learnt."""

import keras
import numpy as np
import pytest

import keras_langevin as kl
from keras_langevin.weights import named_weights

X = np.random.default_rng(0).normal(50.0, [1.0, 10.0, 100.0], size=(200, 3)).astype("float32")


@pytest.fixture
def model():
    scale = keras.layers.Normalization()
    scale.adapt(X)
    return keras.Sequential(
        [keras.Input((3,)), scale, keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]
    )


def of_members(model):
    """Samples, and the mean of what the model itself predicts with each."""
    samples, predictions = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sample = [rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
        for variable, value in zip(model.trainable_variables, sample, strict=True):
            variable.assign(value)
        logits = model.predict(X, verbose=0)
        samples.append(sample)
        predictions.append(keras.ops.convert_to_numpy(keras.ops.softmax(logits)))
    return samples, np.mean(predictions, axis=0)


def test_an_adapted_normalization_is_that_of_the_model(model, tmp_path):
    samples, expected = of_members(model)
    ensemble = kl.BayesianEnsembleModel(model, samples, output="logits")
    np.testing.assert_allclose(ensemble.predict(X, verbose=0), expected, atol=1e-5)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), expected, atol=1e-5)


def test_a_sampler_keeps_the_normalization(model):
    y = (X[:, 2] > 50).astype("int64")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kl.SGLD(1e-4, num_data=len(X), temperature=0.0), loss)
    sampler = kl.PosteriorSampler(burn_in=2)
    model.fit(X, y, epochs=3, callbacks=[sampler], verbose=0)
    point = keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(X, verbose=0)))
    found = sampler.ensemble().predict(X, verbose=0)  # of one member: the last point
    np.testing.assert_allclose(found, point, atol=1e-5)


def test_weights_keep_the_names_of_the_model_that_was_sampled(model):
    samples, _ = of_members(model)
    ensemble = kl.BayesianEnsembleModel(model, samples, output="logits")
    assert list(ensemble.weights_by_name()) == list(named_weights(model))
