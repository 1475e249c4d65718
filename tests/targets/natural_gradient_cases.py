"""What the tests of natural gradients have in common."""

import keras
import numpy as np
from keras import layers, ops

import keras_langevin as kl
from keras_langevin.weights import parameters

LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)
CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def prepared(optimizer, model, x, y=None, loss=LOGITS):
    """The metric of a compiled model, with its data."""
    model.compile(optimizer, loss=loss)
    kl.track_statistics(model, optimizer)
    optimizer.build(model.trainable_variables)
    optimizer.preconditioner.set_data(x, y)
    return optimizer.preconditioner


def values_of(model):
    return [ops.convert_to_tensor(ops.convert_to_numpy(v)) for v in parameters(model)]


def flat(arrays):
    return np.concatenate([np.asarray(ops.convert_to_numpy(a)).ravel() for a in arrays])


def small_network(outputs, *more, activation=None, inputs=3):
    keras.utils.set_random_seed(1)
    hidden = layers.Dense(4, "tanh", bias_initializer="normal")
    return keras.Sequential(
        [keras.Input((inputs,)), hidden, layers.Dense(outputs, activation), *more]
    )
