"""One `Dense` layer whose weights are recorded after every step, and matrices of linear maps."""

import keras
import numpy as np
from cases import JIT_IF_NEEDED
from keras import ops
from targets.regression import Constant

import keras_langevin as kl

JIT = keras.backend.backend() != "torch"
SIGNS = np.repeat([[1.0], [-1.0], [1.0], [-1.0]], 3, axis=1)  # inputs of mean 0 and variance 1


class NoLoss(keras.losses.Loss):
    """Zero, with zero gradients."""

    def call(self, y_true, y_pred):
        return ops.sum(0.0 * y_pred, axis=-1)


class Record(keras.callbacks.Callback):
    """All weights of the model's first weighted layer after every step."""

    def __init__(self):
        super().__init__()
        self.kernels, self.biases = [], []

    def on_train_batch_end(self, batch, logs=None):
        layer = next(layer for layer in self.model.layers if layer.weights)
        self.kernels.append(np.array(ops.convert_to_numpy(layer.kernel)))
        self.biases.append(np.array(ops.convert_to_numpy(layer.bias)))


def one_layer(optimizer, loss, inputs=3, units=2000, jit_compile=JIT_IF_NEEDED):
    model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(units)])
    model.compile(optimizer, loss=loss, jit_compile=jit_compile)
    kl.track_statistics(model, optimizer)
    return model


def run(model, x, y, steps):
    record = Record()
    model.fit(Constant(x, y, steps), verbose=0, shuffle=False, callbacks=[record])
    return np.stack(record.kernels), np.stack(record.biases)


def dense(function, shapes, dtype="float32"):
    """The matrix of a linear map of parameter lists."""
    sizes = [int(np.prod(s)) for s in shapes]
    columns = []
    for unit in np.eye(sum(sizes)):
        parts = np.split(unit, np.cumsum(sizes)[:-1])
        arrays = [
            ops.reshape(ops.convert_to_tensor(p, dtype), s)
            for p, s in zip(parts, shapes, strict=True)
        ]
        columns.append(np.concatenate([ops.convert_to_numpy(a).ravel() for a in function(arrays)]))
    return np.stack(columns, axis=1)
