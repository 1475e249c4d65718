"""Networks, samples far apart, and what a loop over the members returns."""

import keras
import numpy as np
from keras import layers

from keras_langevin.weights import named_weights

RNG = np.random.default_rng(0)
MEMBERS, BATCH = 5, 11
X = RNG.normal(size=(BATCH, 4)).astype("float32")
SPARSE = keras.losses.SparseCategoricalCrossentropy


def draw(model, members=MEMBERS, scale=1.0):
    """Members far apart, as mappings of all weights (moving averages of variances > 0)."""
    return [
        {
            name: np.abs(scale * RNG.normal(size=v.shape)).astype("float32") + 0.1
            if "variance" in name
            else (scale * RNG.normal(size=v.shape)).astype("float32")
            for name, v in named_weights(model).items()
        }
        for _ in range(members)
    ]


def loop(model, samples, x=X):
    """What each member returns, float64, shape (members, batch, ...)."""
    outputs = []
    for sample in samples:
        for name, variable in named_weights(model).items():
            if name in sample:
                variable.assign(sample[name])
        outputs.append(model(x, training=False))
    outputs = [keras.tree.map_structure(keras.ops.convert_to_numpy, o) for o in outputs]
    return keras.tree.map_structure(lambda *o: np.stack(o).astype("float64"), *outputs)


def classifier(loss="from_logits", metrics=None):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )
    if loss is not None:
        loss = SPARSE(from_logits=True) if loss == "from_logits" else loss
        model.compile(loss=loss, metrics=metrics)
    return model


def predictor(units, loss=None, metrics=None):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units)])
    if loss is not None:
        model.compile(loss=loss, metrics=metrics)
    return model
