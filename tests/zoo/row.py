"""One row a program: what a user of Keras would write, as small as it runs."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest

EXAMPLES, BATCH = 24, 8
ROWS = []
QUICK = ("one member", "three lines")
LONG = (pytest.mark.law, pytest.mark.further)


@dataclasses.dataclass(frozen=True)
class Row:
    """A model, its data and what it is compiled with.

    Attributes:
        make: Makes the model; its name is the row's.
        x, y: Make data of a generator; or structures of such functions.
        loss: What `compile` takes.
        compile: Further arguments of `compile`.
        fit: Arguments of `fit` beside the data.
        output: What `ensemble` must be told, None where the loss says it.
        backends: Where it runs.
        adam_fails: Those of them where Keras cannot train it with Adam either.
        refused: Words of the error that `fit` with a sampler begins with, None where it runs.
        warned: Words of a warning that `fit` begins with.
        everywhere: Which of `QUICK` are run with the quick tests of every backend, or True for
            both; the others are run on JAX, with the laws of `make test-all`.
    """

    make: Callable
    x: object
    y: object
    loss: object
    compile: dict = dataclasses.field(default_factory=dict)
    fit: dict = dataclasses.field(default_factory=dict)
    output: object = None
    backends: tuple = ("jax", "tensorflow", "torch")
    adam_fails: tuple = ()
    refused: str | None = None
    warned: str | None = None
    everywhere: str | bool = False

    @property
    def name(self):
        return self.make.__name__

    def backends_of(self, test):
        """Where this test of `QUICK` has something to say."""
        fails = self.adam_fails if test == "three lines" else ()
        return [backend for backend in self.backends if backend not in fails]

    def is_quick(self, test):
        return self.everywhere in (True, test) or "jax" not in self.backends

    def data(self):
        generator = np.random.default_rng(1)

        def draw(make):
            return None if make is None else make(generator)

        return tuple(keras.tree.map_structure(draw, part) for part in (self.x, self.y))

    def model(self):
        """Not compiled."""
        keras.utils.set_random_seed(3)
        return self.make()

    def compiled(self, optimizer):
        model = self.model()
        model.compile(optimizer, loss=self.loss, **self.compile)
        return model


def zoo(**fields):
    """Decorator: a row of the zoo."""

    def add(make):
        ROWS.append(Row(make, **fields))
        return make

    return add


def rows_here(test):
    """Those of the backend that runs, as parameters of a test of `QUICK`."""
    assert test in QUICK
    backend = keras.backend.backend()
    own = [row for row in ROWS if backend in row.backends_of(test)]
    return [pytest.param(row, id=row.name, marks=() if row.is_quick(test) else LONG) for row in own]


def floats(*shape):
    return lambda rng: rng.normal(size=(EXAMPLES, *shape)).astype("float32")


def shares(*shape):
    return lambda rng: rng.uniform(size=(EXAMPLES, *shape)).astype("float32")


def positive(*shape):
    return lambda rng: rng.gamma(2.0, size=(EXAMPLES, *shape)).astype("float32")


def whole(most, *shape, dtype="int32", least=0):
    return lambda rng: rng.integers(least, most, size=(EXAMPLES, *shape)).astype(dtype)


def one_hot(classes, *shape):
    return lambda rng: np.eye(classes, dtype="float32")[whole(classes, *shape)(rng)]


def padded(most, length):
    """Whole numbers with zeros at the end, of every length."""

    def make(rng):
        found = rng.integers(1, most, size=(EXAMPLES, length)).astype("int32")
        lengths = rng.integers(2, length + 1, size=EXAMPLES)
        return np.where(np.arange(length) < lengths[:, None], found, 0)

    return make
