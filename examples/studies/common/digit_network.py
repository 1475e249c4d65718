"""The network that learns digits, and the probabilities it gives."""

import keras
import numpy as np


def network(pixels, dropout):
    """Pixels-100-100-10 with ReLU, returning logits."""
    layers = [keras.Input((pixels,))]
    for _ in range(2):
        layers.append(keras.layers.Dense(100, activation="relu"))
        if dropout:
            layers.append(keras.layers.Dropout(dropout))
    return keras.Sequential([*layers, keras.layers.Dense(10)])


def probabilities(model, x, dropout_passes=None):
    """Class probabilities of a model that returns logits; with `dropout_passes` their mean over
    that many passes with dropout left on (Gal and Ghahramani 2016)."""
    if dropout_passes is None:
        return softmax(model(x))
    passes = [softmax(model(x, training=True)) for _ in range(dropout_passes)]
    return np.mean(passes, axis=0)


def softmax(logits):
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits))
