"""One ensemble in several threads."""

import threading

import keras
import numpy as np
import pytest

import keras_langevin as kl

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(200, 4)).astype("float32"), RNG.integers(2, size=200)


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="Keras on JAX takes the variables out of a model while it evaluates",
)
def test_predictions_are_averages_while_another_thread_evaluates():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    samples = [[RNG.normal(size=(4, 2)), RNG.normal(size=2)] for _ in range(6)]
    ensemble = kl.BayesianEnsembleModel(model, samples, output="logits")
    expected = kl.BayesianEnsembleModel(model, samples, output="logits").predict(X[:3], verbose=0)
    started, stop = threading.Event(), threading.Event()

    def evaluate():
        while not stop.is_set():
            started.set()
            ensemble.evaluate(X, Y, batch_size=1, verbose=0)

    thread = threading.Thread(target=evaluate)
    thread.start()
    try:
        started.wait()
        found = [ensemble.predict(X[:3], verbose=0) for _ in range(5)]
        found.append(keras.ops.convert_to_numpy(ensemble(X[:3])))
    finally:
        stop.set()
        thread.join()
    for one in [*found, ensemble.predict(X[:3], verbose=0)]:
        np.testing.assert_allclose(one, expected, rtol=1e-5)
