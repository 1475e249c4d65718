"""What one Keras program trains, and on what."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

ACCURACY, RMSE = "accuracy", "root_mean_squared_error"


@dataclasses.dataclass(frozen=True)
class Program:
    """A model, its data and what it is compiled with.

    Attributes:
        source: The public example it follows, and on what data.
        make: Makes the model.
        train, test: `(x, y)`, or a dataset in a tuple of its own.
        num_data: Number of independent examples in `train`.
        loss: What `compile` takes.
        metric: Name, in what `evaluate` returns, of the metric of the table.
        metrics: Makes the `metrics` of `compile`.
        epochs: Of Adam, of the sampler and of the warm start alike.
        rate: Adam's learning rate.
        fit, compile: Further arguments.
        sampler: Arguments of `QDOPLangevin` beside `num_data`.
        output: What `ensemble` must be told, None where the loss says it.
        extra_line: Called with the model before the sampler is compiled.
        tolerance: How far two computations of one number may be apart, relatively.
    """

    source: str
    make: Callable
    train: tuple
    test: tuple
    num_data: int
    loss: object
    metric: str = ACCURACY
    metrics: Callable = lambda: ["accuracy"]
    epochs: int = 6
    rate: float = 1e-3
    fit: dict = dataclasses.field(default_factory=dict)
    compile: dict = dataclasses.field(default_factory=dict)
    sampler: dict = dataclasses.field(default_factory=dict)
    output: object = None
    extra_line: Callable | None = None
    tolerance: float = 1e-4


def rmse():
    return [keras.metrics.RootMeanSquaredError()]


def shortened(program, examples=64):
    """The program with two epochs of few examples, for a test."""
    parts = {part: _first(getattr(program, part), examples) for part in ("train", "test")}
    count = program.num_data
    if len(program.train) == 2:
        count = len(keras.tree.flatten(parts["train"][1])[0])
    return dataclasses.replace(program, epochs=2, num_data=count, **parts)


def _first(data, examples):
    if len(data) == 1:
        return data
    return keras.tree.map_structure(lambda a: a[:examples], data)


def split(arrays, cut):
    """The first `cut` rows of nested arrays, and the others."""
    parts = slice(cut), slice(cut, None)
    return tuple(keras.tree.map_structure(lambda a, p=p: a[p], arrays) for p in parts)


def shuffled(arrays, seed=0):
    """Rows of nested arrays in another order."""
    order = np.random.default_rng(seed).permutation(len(keras.tree.flatten(arrays)[0]))
    return keras.tree.map_structure(lambda a: a[order], arrays)


def standardised(x, cut):
    """By the mean and the standard deviation of the first `cut` rows."""
    return ((x - x[:cut].mean(axis=0)) / x[:cut].std(axis=0)).astype("float32")


def mnist(folder, train, test):
    """`(x, y), (x, y)`: as many images with pixels from 0 to 1, shape (28, 28, 1)."""
    counts = {"train": train, "test": test}
    with np.load(Path(folder) / "mnist" / "mnist.npz") as arrays:
        parts = [(arrays[f"x_{p}"][:n], arrays[f"y_{p}"][:n]) for p, n in counts.items()]
    return [((x[..., None] / 255).astype("float32"), y.astype("int32")) for x, y in parts]
