"""A run that can be killed at any moment and started again, by the same command in `tests/`:
`python -m targets.resume_run FOLDER EPOCHS`.

`tests/contract/test_exact_resume.py` kills and compares. It prints one line after its first epoch.
"""

import functools
import sys
import time

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED, SAMPLERS

import keras_langevin as kl

N, BATCH = 60, 10
EPOCHS = 9  # of a run that is stopped and goes on
RESUMING = {
    case.name: functools.partial(case.sampler, **case.resumes)
    for case in SAMPLERS
    if case.resumes is not None
} | {"auto": functools.partial(kl.SGLD, "auto")}


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 3)).astype("float32")
    return x, np.sin(x[:, :1]) + 0.1 * rng.normal(size=(N, 1)).astype("float32")


def model(name):
    """With dropout, whose generator's state is part of the run."""
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(1),
        ]
    )
    network.compile(
        RESUMING[name](num_data=N), kl.losses.GaussianNLL(0.3), jit_compile=JIT_IF_NEEDED
    )
    return network


def run(folder, epochs, name="SGLD", shuffled_arrays=False, callbacks=(), **schedule):
    """Trains to that many epochs in all, from what the folder holds."""
    schedule = {"burn_in": 1, "thinning": 2, **schedule}
    network = model(name)
    sampler = kl.PosteriorSampler(directory=folder, resume=True, **schedule)
    x, y = data()
    batches = {"x": x, "y": y, "batch_size": BATCH}
    if not shuffled_arrays:
        batches = {"x": kl.RandomBatches(x, y, BATCH, seed=1)}
    callbacks = [sampler, *callbacks]
    first = sampler.epochs_seen
    network.fit(**batches, epochs=epochs, initial_epoch=first, callbacks=callbacks, verbose=0)
    return sampler.samples


class Ready(keras.callbacks.Callback):
    """Says once that an epoch is over, and with it all that takes long at the start. Epochs take
    so long that no run is over before it is killed."""

    said = False

    def on_epoch_end(self, epoch, logs=None):
        if not self.said:
            print("ready", flush=True)
        self.said = True
        time.sleep(0.04)


class Stop(keras.callbacks.Callback):
    """Interrupts `fit` after some batches in all."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def interrupted(folder, stops, **arguments):
    for number, after in enumerate(stops):
        fresh(seed=number)
        with pytest.raises(KeyboardInterrupt):
            run(folder, EPOCHS, callbacks=[Stop(after)], **arguments)
    fresh(seed=99)
    return run(folder, EPOCHS, **arguments)


def fresh(seed):
    """As in another process: other initial weights and another state of every generator."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)


def assert_same(samples, expected):
    assert [s.facts for s in samples] == [s.facts for s in expected]
    assert len(samples) > 2
    for one, other in zip(samples, expected, strict=True):
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


if __name__ == "__main__":
    keras.utils.set_random_seed(int(sys.argv[4]) if len(sys.argv) > 4 else 0)
    name = sys.argv[3] if len(sys.argv) > 3 else "SGLD"
    run(sys.argv[1], int(sys.argv[2]), name, callbacks=[Ready()])
