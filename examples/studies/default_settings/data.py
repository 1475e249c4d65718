"""Twenty small problems: those of `ten_problems` and ten more, every kind of layer among them."""

import dataclasses
import functools
import re
from collections import Counter
from pathlib import Path

import keras
import numpy as np
from sklearn import datasets

from examples.studies.ten_problems import data as ten

MOST_EXAMPLES = 2_000  # of larger sets


def load(name, data_dir, seed):
    """The problem with at most `MOST_EXAMPLES` examples to train on, the seed's choice."""
    problem = MORE[name](seed, data_dir) if name in MORE else ten.load(name, data_dir, seed)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(problem.train[0]))[:MOST_EXAMPLES]
    tested = rng.permutation(len(problem.test[0]))[:MOST_EXAMPLES]
    return dataclasses.replace(
        problem,
        train=tuple(a[chosen] for a in problem.train),
        test=tuple(a[tested] for a in problem.test),
        batch_size=min(problem.batch_size, 50),
    )


def digits_of_others(seed, data_dir):
    """The last 719 digits come from other writers; one hidden layer, as in the README."""
    x, y = datasets.load_digits(return_X_y=True)
    network = functools.partial(ten.dense_network, 64, 10, [100])
    parts = (x[:1078] / 16, y[:1078]), (x[1078:] / 16, y[1078:])
    return ten.classification("digits", *parts, 10, 50, epochs=100, network=network)


def bundled(name, load_set, num_classes):
    def problem(seed, data_dir):
        rows = load_set(return_X_y=True)
        train, test = ten.standardised(*ten.parted(*rows, seed, test_share=0.3))
        return ten.classification(name, train, test, num_classes, batch_size=16, epochs=200)

    return problem


def numbers(name, path, epochs, target=-1, skipped=0):
    """A table of numbers, a column of it the target; a fifth, the seed's, to test."""

    def problem(seed, data_dir):
        rows = np.loadtxt(Path(data_dir) / "uci_regression" / path)
        x, y = np.delete(rows, target, axis=1), rows[:, target]
        return ten.regression(name, *ten.parted(x, y, seed), epochs)

    return problem


# ------------------------------------------------------------------------- text, sequences


def shakespeare(seed, data_dir):
    """From which third of the file a speech of at least eight words comes; 1,000 words known."""
    text = (Path(data_dir) / "tiny_shakespeare" / "input.txt").read_text()
    speeches = [s.partition("\n")[2].lower() for s in text.split("\n\n")]
    words = [re.findall(r"[a-z']+", speech) for speech in speeches]
    thirds = [3 * i // len(words) for i in range(len(words))]
    long = [i for i, w in enumerate(words) if len(w) >= 8]
    np.random.default_rng(seed).shuffle(long)
    train, test = long[:MOST_EXAMPLES], long[MOST_EXAMPLES : 2 * MOST_EXAMPLES]
    counts = Counter(word for i in train for word in words[i])
    places = {word: 2 + place for place, (word, _) in enumerate(counts.most_common(998))}

    def arrays(chosen):
        x = np.zeros((len(chosen), 32), "int32")  # 0: no word, 1: an unknown one
        for row, i in zip(x, chosen, strict=True):
            found = [places.get(word, 1) for word in words[i][:32]]
            row[: len(found)] = found
        return x, np.array([thirds[i] for i in chosen])

    name, network = "shakespeare", text_network
    return ten.classification(name, arrays(train), arrays(test), 3, 50, 40, network=network)


def text_network():
    return keras.Sequential(
        [
            keras.Input((32,)),
            keras.layers.Embedding(1000, 32),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(3),
        ]
    )


def bike_hours(seed, data_dir):
    """The hires of an hour from those of the 24 hours before, log scale, and a network with GRU."""
    path = Path(data_dir) / "uci_regression" / "mile" / "bikesharing_smile.data"
    hires = np.log1p(np.loadtxt(path)[:, -1])
    starts = np.random.default_rng(seed).permutation(len(hires) - 24)[: 2 * MOST_EXAMPLES]
    x = np.stack([hires[start : start + 24] for start in starts])
    y, cut = hires[starts + 24], MOST_EXAMPLES
    problem = ten.regression("bike_hours", (x[:cut], y[:cut]), (x[cut:], y[cut:]), epochs=40)
    parts = {p: (getattr(problem, p)[0][..., None], getattr(problem, p)[1]) for p in PARTS}
    return dataclasses.replace(problem, network=sequence_network, **parts)


PARTS = ("train", "test")


def sequence_network():
    return keras.Sequential(
        [
            keras.Input((24, 1)),
            keras.layers.GRU(16),
            keras.layers.Dense(2),
        ]
    )


MORE = {
    "digits": digits_of_others,
    "wine_cultivars": bundled("wine_cultivars", datasets.load_wine, 3),
    "iris": bundled("iris", datasets.load_iris, 3),
    "airfoil": numbers("airfoil", "airfoil/airfoil_self_noise.dat", epochs=100),
    "bike": numbers("bike", "mile/bikesharing_smile.data", epochs=60),
    "power_plant": numbers("power_plant", "power-plant/data.txt", epochs=60),
    "kin8nm": numbers("kin8nm", "kin8nm/data.txt", epochs=60),
    "shakespeare": shakespeare,
    "bike_hours": bike_hours,
}
