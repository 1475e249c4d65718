"""A small network for regression, its weights along a run, and what is the same of two runs."""

import keras
import numpy as np
from cases import JIT_IF_NEEDED
from targets.one_layer import NoLoss
from targets.regression import Constant

import keras_langevin as kl


class Weights(keras.callbacks.Callback):
    """The trainable weights before training and after every batch, as one vector each."""

    def on_train_begin(self, logs=None):
        self.path = [flat(self.model)]

    def on_train_batch_end(self, batch, logs=None):
        self.path.append(flat(self.model))


def weights(model):
    return [np.array(w, "float64") for w in model.get_weights()]


def flat(model):
    return np.concatenate([w.ravel() for w in weights(model)])


def data(rows=32, inputs=3, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(1.0, 1.0, size=(rows, inputs)).astype("float32")
    return x, np.tanh(x[:, :outputs]) + 0.1 * rng.normal(size=(rows, outputs)).astype("float32")


def network(*units, inputs=3, dtype=None):
    """Hidden layers and an output layer of these widths, the same weights each time."""
    keras.utils.set_random_seed(0)
    *hidden, outputs = units
    layers = [keras.layers.Dense(n, "tanh", dtype=dtype) for n in hidden]
    return keras.Sequential(
        [keras.Input((inputs,)), *layers, keras.layers.Dense(outputs, dtype=dtype)]
    )


def compiled(model, optimizer, loss="mse", **kwargs):
    model.compile(optimizer, loss=loss, **{"jit_compile": JIT_IF_NEEDED, **kwargs})
    return kl.track_statistics(model, model.optimizer)


def trained(optimizer, batch_size=32, epochs=3, model=None, xy=None, **kwargs):
    """The weights after training without shuffling."""
    model = network(4, 2) if model is None else model
    compiled(model, optimizer, jit_compile=JIT_IF_NEEDED)
    x, y = data() if xy is None else xy
    model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0, **kwargs)
    return weights(model)


def increments(optimizer, steps, loss=None, callbacks=(), epochs=1, units=3000, dtype=None):
    """What each step adds to the weights of one layer; by default without gradients."""
    model = compiled(network(units, inputs=1, dtype=dtype), optimizer, loss or NoLoss())
    record = Weights()
    batches = Constant(np.ones((4, 1)), np.zeros((4, units)), steps)
    paths = [record, *callbacks]
    model.fit(batches, epochs=epochs, verbose=0, shuffle=False, callbacks=paths)
    return np.diff(record.path, axis=0)


def assert_equal(first, second, tolerance=1e-5):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def assert_moved(before, after, least=1e-4):
    for a, b in zip(before, after, strict=True):
        assert np.isfinite(b).all()
        assert np.abs(a - b).max() > least
