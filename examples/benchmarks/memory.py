"""How much memory does sampling to a disk take, beside training with SGD?

    KERAS_BACKEND=tensorflow python -m examples.benchmarks.memory
    KERAS_BACKEND=jax python -m examples.benchmarks.memory
    KERAS_BACKEND=torch python -m examples.benchmarks.memory
    python -m examples.benchmarks.memory --quick           fewer samples

Peak memory of a process that trains a network of 10,003,000 weights (40 MB): with Keras' SGD, with
`kl.SGLD` alone, and with `kl.SGLD` and a `kl.PosteriorSampler` that stores a sample of every step
in a folder, and at the end a checkpoint. Each is a process of its own; the peak is the largest
resident set (`ru_maxrss`), of the libraries and the compiler too. "copies" are what it has more
than SGD, in copies of the weights. The folder of 300 samples takes 12 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_langevin as kl
from examples.benchmarks.timing import last_rows, page_of, versions
from examples.studies.common import pages
from examples.studies.common.results import Results

RESULTS = Path(__file__).parent
SIZES = (1000, 2500, 2500, 500)
STEPS = 10


class Repeated(keras.utils.PyDataset):
    """One batch of random numbers, `steps` times."""

    def __init__(self, steps):
        super().__init__()
        draw = np.random.default_rng(0)
        self.steps = steps
        self.batch = draw.standard_normal((32, SIZES[0]), "float32"), draw.integers(0, 500, 32)

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        return self.batch


def train(optimizer, num_samples):
    """Prints the peak memory of this process in bytes and the number of weights."""
    hidden = [keras.layers.Dense(n, activation="relu") for n in SIZES[1:-1]]
    model = keras.Sequential([keras.Input((SIZES[0],)), *hidden, keras.layers.Dense(SIZES[-1])])
    model.compile(
        optimizer=kl.SGLD(1e-6, num_data=1000) if optimizer == "SGLD" else "sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True if keras.backend.backend() == "tensorflow" else "auto",
    )
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [kl.PosteriorSampler(0, unit="step", directory=folder)] if num_samples else []
        model.fit(Repeated(num_samples or STEPS), callbacks=callbacks, verbose=0)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak": peak, "weights": model.count_params()}))


def measured(optimizer, num_samples):
    command = [sys.executable, "-m", "examples.benchmarks.memory"]
    command += ["--train", optimizer, str(num_samples)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def page(path):
    keys = ("backend", "optimizer", "samples on disk")
    return page_of(__doc__, last_rows(Results(path).rows, keys))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--samples", type=int, nargs="*", help="10 100 300; 2 6 with --quick")
    parser.add_argument("--results", type=Path, help="folder; demo_output with --quick")
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train(options.train[0], int(options.train[1]))
    folder = options.results or (Path("demo_output") if options.quick else RESULTS)
    results = Results(folder / "memory.jsonl")
    counts = options.samples or ([2, 6] if options.quick else [10, 100, 300])
    sgd = measured("SGD", 0)
    for optimizer, num_samples in [("SGD", 0), ("SGLD", 0), *(("SGLD", n) for n in counts)]:
        found = sgd if optimizer == "SGD" else measured(optimizer, num_samples)
        results.add(
            {
                "backend": keras.backend.backend(),
                "optimizer": optimizer,
                "samples on disk": num_samples,
                "peak, MB": round(found["peak"] / 1e6),
                "copies": (found["peak"] - sgd["peak"]) / (4 * found["weights"]),
                "machine": versions(),
            }
        )
    pages.write(page, results.path)


if __name__ == "__main__":
    main()
