"""How fast does an ensemble predict, beside NumPy and beside a loop over its members?

    KERAS_BACKEND=tensorflow python -m examples.benchmarks.predict
    KERAS_BACKEND=jax python -m examples.benchmarks.predict
    KERAS_BACKEND=torch python -m examples.benchmarks.predict
    python -m examples.benchmarks.predict --quick         fewer members, examples and turns

Networks with relu and softmax. The loop sets the weights of a Keras model and calls its `predict`,
member after member, once with Keras' batch size of 32 and once with that of the ensemble. NumPy
makes the products of all layers alone, and the whole prediction. Everything runs in turns in one
process, medians are compared. Rows go to `predict.jsonl` beside the page, which shows
the last row of every case.
"""

import argparse
import os
from pathlib import Path

import keras
import numpy as np

import keras_langevin as kl
from examples.benchmarks.timing import interleaved, last_rows, page_of, versions
from examples.studies.common import pages
from examples.studies.common.results import Results

RESULTS = Path(__file__).parent
LARGE, SMALL = (784, 400, 400, 10), (8, 16, 2)
CASES = [(LARGE, 50, 10_000), (SMALL, 64, 100), (SMALL, 64, 1_000), (SMALL, 64, 10_000)]
QUICK = [(LARGE, 4, 1_000), (SMALL, 8, 100)]


def network(sizes):
    hidden = [keras.layers.Dense(n, activation="relu") for n in sizes[1:-1]]
    model = keras.Sequential([keras.Input((sizes[0],)), *hidden, keras.layers.Dense(sizes[-1])])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def random_members(model, count):
    """Lists of arrays in the order of `model.get_weights()`."""
    draw = np.random.default_rng(0).standard_normal
    shapes = [w.shape for w in model.get_weights()]
    return [[draw(s, "float32") / np.float32(s[0] ** 0.5) for s in shapes] for _ in range(count)]


def loop(model, members, x, batch_size):
    total = 0
    for weights in members:
        model.set_weights(weights)
        total = total + softmax(model.predict(x, batch_size=batch_size, verbose=0))
    return total / len(members)


def numpy_products(members, x):
    for weights in members:
        h = x
        for kernel in weights[::2]:
            h = h @ kernel


def numpy_prediction(members, x):
    total = 0
    for *hidden, kernel, bias in members:
        h = x
        for i in range(0, len(hidden), 2):
            h = np.maximum(h @ hidden[i] + hidden[i + 1], 0)
        total = total + softmax(h @ kernel + bias)
    return total / len(members)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def measured(sizes, num_members, num_examples, repeats):
    model = network(sizes)
    members = random_members(model, num_members)
    x = np.random.default_rng(1).standard_normal((num_examples, sizes[0]), "float32")
    ensemble = kl.BayesianEnsembleModel(model, members)
    batch_size = ensemble.default_batch_size()
    ways = {
        "ensemble": lambda: ensemble.predict(x, verbose=0),
        "products": lambda: numpy_products(members, x),
        "prediction": lambda: numpy_prediction(members, x),
        "loop": lambda: loop(model, members, x, None),
        "loop, large batches": lambda: loop(model, members, x, batch_size),
    }
    error = np.abs(ways["ensemble"]() - ways["prediction"]()).max()
    seconds = {way: float(np.median(s)) for way, s in interleaved(ways, repeats).items()}
    own = seconds["ensemble"]
    return {
        "batch": batch_size,
        "ensemble.predict, s": own,
        "/ NumPy products": own / seconds["products"],
        "/ NumPy prediction": own / seconds["prediction"],
        "times faster than the loop": seconds["loop"] / own,
        "than the loop with large batches": seconds["loop, large batches"] / own,
        "largest difference": float(error),
    }


def page(path):
    keys = ("backend", "network", "members", "examples")
    return page_of(__doc__, last_rows(Results(path).rows, keys))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, help="turns; 5, or 2 with --quick")
    parser.add_argument("--results", type=Path, help="folder; demo_output with --quick")
    options = parser.parse_args()
    folder = options.results or (Path("demo_output") if options.quick else RESULTS)
    results = Results(folder / "predict.jsonl")
    repeats = options.repeats or (2 if options.quick else 5)
    for sizes, num_members, num_examples in QUICK if options.quick else CASES:
        key = {
            "backend": keras.backend.backend(),
            "network": "-".join(map(str, sizes)),
            "members": num_members,
            "examples": num_examples,
        }
        row = measured(sizes, num_members, num_examples, repeats)
        results.add(key | row | {"load": os.getloadavg()[0], "machine": versions()})
    pages.write(page, results.path)


if __name__ == "__main__":
    main()
