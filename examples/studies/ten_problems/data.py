"""The small problems of `ten_problems.py`: their data, and the network for each."""

import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from sklearn import datasets

import keras_langevin as kl

MOST_EXAMPLES = 10_000  # of larger training sets the first so many


@dataclasses.dataclass(frozen=True)
class Problem:
    """A data set as arrays, a network for it, and how long it is trained."""

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    network: Callable[[], keras.Model]
    loss: Callable[[], keras.losses.Loss]
    batch_size: int
    epochs: int  # of the sampler, half of them burn-in


def load(name, data_dir, seed):
    """The problem; where no test set was published, the seed decides on a fifth of the data."""
    problem = (BUNDLED | FROM_FOLDER)[name]
    return problem(seed) if name in BUNDLED else problem(Path(data_dir), seed)


def classification(name, train, test, num_classes, batch_size, epochs, network=None):
    x, y = (a[:MOST_EXAMPLES] for a in train)
    train, test = (
        (x.astype("float32"), y.astype("int32")),
        (
            test[0].astype("float32"),
            test[1].astype("int32"),
        ),
    )
    return Problem(
        name,
        train,
        test,
        network or (lambda: dense_network(x.shape[1], num_classes)),
        lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size,
        epochs,
    )


def regression(name, train, test, epochs):
    """Standardised inputs and target, noise that the network predicts."""
    train, test = standardised(train, test)
    y, y_test = standardised((train[1][:, None],), (test[1][:, None],))
    features = train[0].shape[1]
    return Problem(
        name,
        (train[0], y[0]),
        (test[0], y_test[0]),
        lambda: dense_network(features, 2),
        kl.losses.GaussianNLL,
        batch_size=32,
        epochs=epochs,
    )


def dense_network(features, outputs, widths=None):
    widths = widths or [100 if features > 500 else 50] * 2
    hidden = [keras.layers.Dense(width, activation="relu") for width in widths]
    return keras.Sequential([keras.Input((features,)), *hidden, keras.layers.Dense(outputs)])


def convolutional_network():
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


def standardised(train, test):
    """The inputs, first of each pair, by mean and deviation of the training rows."""
    mean, deviation = train[0].mean(axis=0), train[0].std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    return tuple((((x - mean) / deviation).astype("float32"), *rest) for x, *rest in (train, test))


def parted(x, y, seed, test_share=0.2):
    order = np.random.default_rng(seed).permutation(len(x))
    cut = int(test_share * len(x))
    return (x[order[cut:]], y[order[cut:]]), (x[order[:cut]], y[order[:cut]])


# ------------------------------------------------------------- bundled with scikit-learn


def digits(seed):
    x, y = datasets.load_digits(return_X_y=True)
    return classification("digits", *parted(x / 16, y, seed), 10, batch_size=50, epochs=60)


def breast_cancer(seed):
    train, test = standardised(*parted(*datasets.load_breast_cancer(return_X_y=True), seed))
    return classification("breast_cancer", train, test, 2, batch_size=32, epochs=100)


def diabetes(seed):
    return regression(
        "diabetes", *parted(*datasets.load_diabetes(return_X_y=True), seed), epochs=100
    )


# ----------------------------------------------------------------------- from a folder


def images(name):
    def problem(folder, seed):
        def read(part, kind, offset):
            with gzip.open(folder / name / f"{part}-{kind}-ubyte.gz") as file:
                return np.frombuffer(file.read(), "uint8", offset=offset)

        parts = [
            (read(p, "images-idx3", 16).reshape(-1, 784) / 255, read(p, "labels-idx1", 8))
            for p in ("train", "t10k")
        ]
        return classification(name, *parts, 10, batch_size=100, epochs=40)

    return problem


def uci(name, folder_name, epochs):
    """The seed's one of the published splits."""

    def problem(folder, seed):
        folder = folder / "uci_regression" / folder_name
        rows = np.loadtxt(folder / "data.txt")
        x = rows[:, np.loadtxt(folder / "index_features.txt").astype(int)]
        y = rows[:, int(np.loadtxt(folder / "index_target.txt"))]
        indices = [
            np.loadtxt(folder / f"index_{part}_{seed}.txt").astype(int)
            for part in ("train", "test")
        ]
        return regression(name, *((x[i], y[i]) for i in indices), epochs)

    return problem


def shuttle(folder, seed):
    parts = [
        np.loadtxt(folder / "bandits" / "statlog_shuttle" / f"shuttle.{kind}")
        for kind in ("trn", "tst")
    ]
    train, test = standardised(*((part[:, :-1], part[:, -1] - 1) for part in parts))
    return classification("shuttle", train, test, 7, batch_size=100, epochs=40)


def adult(folder, seed):
    rows = [
        np.genfromtxt(
            folder / "bandits" / "adult" / f"adult.{kind}",
            delimiter=", ",
            dtype=str,
            skip_header=skip,
        )
        for kind, skip in (("data", 0), ("test", 1))
    ]
    count, rows = len(rows[0]), np.concatenate(rows)
    columns = [numbers_or_indicators(column) for column in rows[:, :-1].T]
    x, y = np.concatenate(columns, axis=1), np.char.startswith(rows[:, -1], ">50K")
    train, test = standardised((x[:count], y[:count]), (x[count:], y[count:]))
    return classification("adult", train, test, 2, batch_size=100, epochs=40)


def numbers_or_indicators(column):
    try:
        return column.astype(float)[:, None]
    except ValueError:
        return (column[:, None] == np.unique(column)).astype(float)


def credit(name, file_name):
    def problem(folder, seed):
        rows = np.loadtxt(folder / "logistic_regression" / file_name)
        labels = rows[:, -1] == rows[:, -1].max()
        train, test = standardised(*parted(rows[:, :-1], labels, seed))
        return classification(name, train, test, 2, batch_size=32, epochs=100)

    return problem


def cifar10_subset(folder, seed):
    with np.load(folder / "cifar10_subset" / "cifar10_subset.npz") as arrays:
        parts = [
            (arrays[f"x_{part}"] / 255, arrays[f"y_{part}"].ravel()) for part in ("train", "test")
        ]
    name = "cifar10_subset"
    return classification(name, *parts, 10, 100, epochs=40, network=convolutional_network)


BUNDLED = {"digits": digits, "breast_cancer": breast_cancer, "diabetes": diabetes}
FROM_FOLDER = {
    "mnist": images("mnist"),
    "fashion_mnist": images("fashion_mnist"),
    "energy": uci("energy", "energy", epochs=300),
    "yacht": uci("yacht", "yacht", epochs=300),
    "wine": uci("wine", "wine-quality-red", epochs=100),
    "shuttle": shuttle,
    "adult": adult,
    "german_credit": credit("german_credit", "german_credit/german.data-numeric"),
    "australian_credit": credit("australian_credit", "australian_credit/australian.dat"),
    "cifar10_subset": cifar10_subset,
}
