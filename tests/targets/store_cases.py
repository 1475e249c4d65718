"""Stores of small samples that follow from their step, the changes of a store, and its lock."""

import contextlib
import fcntl
import os

import ml_dtypes
import numpy as np

from keras_langevin.storage.sample import Sample
from keras_langevin.storage.sample_store import SampleStore

SIZE = 40


def draw(step, size=SIZE):
    values = np.random.default_rng(step).normal(size=size)
    return Sample({"w": values, "b": values[:1].astype("float32")}, step=step, learning_rate=0.1)


def check(store, steps, size=SIZE):
    """The store holds exactly these samples, and they are right."""
    assert [facts["step"] for facts in store.facts] == list(steps)
    for sample, step in zip(store, steps, strict=True):
        truth = draw(step, size)
        assert sample.facts == truth.facts
        for name in truth:
            np.testing.assert_array_equal(sample[name], truth[name], strict=True)


CHANGES = {
    "append": (lambda store: store.append(draw(3)), [0, 1, 2, 3]),
    "thin": (lambda store: store.thin(), [1]),
    "set_schedule": (lambda store: store.set_schedule({"burn_in": 3}), [0, 1, 2]),
}


@contextlib.contextmanager
def lock(path, operation=fcntl.LOCK_EX | fcntl.LOCK_NB):
    """As another process that writes there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def is_locked(path):
    try:
        with lock(path):
            return False
    except BlockingIOError:
        return True


def write_store(folder, num_samples=2, size=3, seed=0):
    generator = np.random.default_rng(seed)
    store = SampleStore(folder)
    store.set_optimizer("SGLD")
    for step in range(num_samples):
        weights = {
            "net/kernel": generator.normal(size=(2, size)).astype("float32"),
            "net/scale": np.array(generator.normal()).astype(ml_dtypes.bfloat16),
        }
        store.append(Sample(weights, step=step, learning_rate=0.5**step, temperature=1.0))
    store.set_schedule({"burn_in": 3})
    return read(store)


def read(store):
    """All that a user can see, as plain values."""
    samples = [
        {name: (a.dtype.name, a.shape, a.tobytes()) for name, a in sample.items()}
        for sample in store
    ]
    return list(zip(store.facts, samples, strict=True)), store.optimizer, store.schedule
