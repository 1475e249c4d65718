"""Two classes that no linear model separates, and a small network with a sampler for them."""

import keras
import numpy as np
from targets.restartable import restartable

import keras_langevin as kl


def network(outputs=2):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(outputs)]
    )


def data(size=200, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(size, 4)).astype("float32")
    return x, (x[:, 0] * x[:, 1] + 0.3 * generator.normal(size=size) > 0).astype("int32")


def compiled(learning_rate="auto", sampler=kl.QDOPLangevin, **arguments):
    model = network()
    arguments = {"num_data": 200, "prior": kl.priors.Normal(1.0), "seed": 1, **arguments}
    model.compile(
        optimizer=sampler(learning_rate, **arguments),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


@restartable
def _automatic():
    model = compiled()
    return kl.track_statistics(model, model.optimizer)


def automatic():
    """QDOP with "auto", compiled once for all tests of a process; no rate has been found yet."""
    model = _automatic()
    model.optimizer.has_learning_rate = False
    return model
