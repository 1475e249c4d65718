"""How fast does a served ensemble answer, beside a list of its members?

    KERAS_BACKEND=tensorflow python -m examples.benchmarks.serving
    KERAS_BACKEND=tensorflow python -m examples.benchmarks.serving --quick

The SavedModel of an ensemble of 50 members, loaded by TensorFlow alone, answers requests of 1 and
of 256 examples. Its rivals are written as a user would: a Python list of the members' networks,
whose softmax is averaged, each network a `tf.function` of its own, or called as it is, `model(x)`.
With networks of 478,410 weights a request of 256 is bound by arithmetic that all three share, and
a request of 1 by reading 96 MB of weights: the time of NumPy's matrix products alone stands
beside. Medians of turns, in milliseconds.
"""

import argparse
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_langevin as kl
from examples.benchmarks.predict import (
    LARGE,
    RESULTS,
    SMALL,
    network,
    numpy_products,
    random_members,
)
from examples.benchmarks.timing import interleaved, last_rows, page_of, versions
from examples.studies.common import pages
from examples.studies.common.results import Results


def served(model, members):
    with tempfile.TemporaryDirectory() as folder:
        kl.BayesianEnsembleModel(model, members).export(folder, verbose=False)
        return tf.saved_model.load(folder)


def networks(sizes, members):
    models = [network(sizes) for _ in members]
    for model, weights in zip(models, members, strict=True):
        model.set_weights(weights)
    return models


def compiled(model):
    signature = [tf.TensorSpec(model.input_shape)]
    return tf.function(lambda x: tf.nn.softmax(model(x, training=False)), signature)


def average(functions, x):
    return (sum(f(x) for f in functions) / len(functions)).numpy()


def measured(sizes, num_members, num_examples, repeats):
    model = network(sizes)
    members = random_members(model, num_members)
    models = networks(sizes, members)
    eager = [lambda x, m=m: tf.nn.softmax(m(x, training=False)) for m in models]
    functions = [compiled(m) for m in models]
    saved = served(model, members)
    array = np.random.default_rng(1).standard_normal((num_examples, sizes[0]), "float32")
    x = tf.constant(array)
    ways = {
        "serve": lambda: saved.serve(x).numpy(),
        "tf.function": lambda: average(functions, x),
        "model(x)": lambda: average(eager, x),
        "products": lambda: numpy_products(members, array),
    }
    error = np.abs(ways["serve"]() - ways["tf.function"]()).max()
    found = {way: 1e3 * float(np.median(s)) for way, s in interleaved(ways, repeats).items()}
    return {
        "served, ms": found["serve"],
        "list of tf.function, ms": found["tf.function"],
        "list of model(x), ms": found["model(x)"],
        "NumPy products, ms": found["products"],
        "times faster than tf.function": found["tf.function"] / found["serve"],
        "than model(x)": found["model(x)"] / found["serve"],
        "largest difference": float(error),
    }


def page(path):
    """Of each case the last row."""
    return page_of(__doc__, last_rows(Results(path).rows, ("network", "members", "examples")))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, help="turns; 50, or 5 with --quick")
    parser.add_argument("--results", type=Path, help="folder; demo_output with --quick")
    options = parser.parse_args()
    if keras.backend.backend() != "tensorflow":
        parser.error("the rivals are TensorFlow's: set KERAS_BACKEND=tensorflow")
    folder = options.results or (Path("demo_output") if options.quick else RESULTS)
    results = Results(folder / "serving.jsonl")
    num_members, repeats = (4, 5) if options.quick else (50, 50)
    for sizes in (LARGE, SMALL):
        for num_examples in (1, 256):
            key = {
                "network": "-".join(map(str, sizes)),
                "members": num_members,
                "examples": num_examples,
            }
            row = measured(sizes, num_members, num_examples, options.repeats or repeats)
            results.add(key | row | {"load": os.getloadavg()[0], "machine": versions()})
    pages.write(page, results.path)


if __name__ == "__main__":
    main()
