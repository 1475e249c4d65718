"""Runs of `PosteriorSampler` on a layer and a few data, and what they stored."""

import keras
import numpy as np
from cases import JIT_IF_NEEDED
from targets.restartable import restartable

import keras_langevin as kl
from keras_langevin.weights import named_weights

NUM_DATA, BATCH = 20, 4  # five batches an epoch


class FakeLangevin(kl.Sampler):
    """A sampler of somebody else's: plain descent that states a target."""

    def __init__(self, learning_rate=0.01, *, num_data=NUM_DATA, temperature=0.5, **kwargs):
        super().__init__(
            learning_rate, num_data=num_data, temperature=temperature, prior=None, **kwargs
        )

    def advance(self, values, gradients, statistics, metric, learning_rate):
        return [θ - learning_rate * g for θ, g in zip(values, gradients, strict=True)], []

    def sampler_logs(self):
        return {"step_norm": np.float32(3.0)}


def data(poison=False):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_DATA, 3)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    if poison:
        y[-1] = np.nan
    return x, y


def network(*layers, units=1, dtype=None):
    return keras.Sequential(
        [
            keras.Input((3,)),
            *layers,
            keras.layers.Dense(units, name="out", dtype=dtype),
        ],
        name="net",
    )


def compiled(*layers, optimizer=None, loss="mse", model=None, **kwargs):
    model = network(*layers) if model is None else model
    optimizer = keras.optimizers.SGD(0.01) if optimizer is None else optimizer
    model.compile(optimizer, loss, **{"jit_compile": JIT_IF_NEEDED, **kwargs})
    return model


@restartable
def plain():
    """Gradient descent, compiled once for all tests of a process."""
    return compiled()


@restartable
def with_adam():
    """The same with an optimizer that has a state."""
    return compiled(optimizer=keras.optimizers.Adam(0.05))


def fit(model, sampler, epochs=1, poison=False, **kwargs):
    x, y = data(poison)
    callbacks = [sampler, *kwargs.pop("callbacks", ())]
    arguments = {"batch_size": BATCH, "verbose": 0, "shuffle": False, **kwargs}
    return model.fit(x, y, epochs=epochs, callbacks=callbacks, **arguments)


def snapshot(model):
    return {
        name: np.array(keras.ops.convert_to_numpy(v)) for name, v in named_weights(model).items()
    }


def steps(sampler):
    return [sample.step for sample in sampler.samples]


def assert_same(one, other, **tolerance):
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], err_msg=name, **tolerance)


def fresh_model(*layers, **kwargs):
    """The same model as in a new process."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    return compiled(*layers, optimizer=keras.optimizers.Adam(0.05), **kwargs)
