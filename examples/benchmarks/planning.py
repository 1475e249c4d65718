"""What to plan for: a step, a chain and an ensemble of a network of any size, on any machines?

    python -m examples.benchmarks.planning

Two numbers of each sampler are measured on a network of 120,500 weights: what it holds beside
the weights and their gradient, and what devices that share one chain's batches
(`keras.distribution.DataParallel`) add up in each step, read from the program that XLA compiled for
four devices. Both are in copies of the weights. The tables reckon with them for other sizes; the
time of a step is that of [scaling](scaling.md), per weight, on the two cores that it names, and no
GPU was measured.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from examples.studies.common import pages
from examples.studies.common.results import Results
from examples.studies.common.tables import table

RESULTS = Path(__file__).parent
WIDTHS, BATCH, DEVICES = (200, 400, 100), 64, 4
METHODS = ("Keras SGD", "Keras Adam", "SGLD", "RMSPropLangevin", "DOPLangevin", "QDOPLangevin")
METHODS += ("BNPLangevin", "SGHMC", "SMILE")
NUM_WEIGHTS = sum(n * m + m for n, m in itertools.pairwise(WIDTHS))
SIZES = (10**4, 10**7, 10**9)
COLLECTIVE = re.compile(r"= (.*?) all-reduce(?:-start)?\(")
ARRAY = re.compile(r"f32\[([\d,]*)\]")


def train(method):
    """Two steps on all devices; prints what the optimizer and the layers hold."""
    import keras

    import keras_langevin as kl

    devices = keras.distribution.list_devices()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    dense = [keras.layers.Dense(n, activation="relu") for n in WIDTHS[1:]]
    model = keras.Sequential([keras.Input(WIDTHS[:1]), *dense])
    name = method.removeprefix("Keras ")
    if name != method:
        optimizer = getattr(keras.optimizers, name)()
    elif name == "SMILE":
        optimizer = kl.SMILE(num_data=2 * BATCH)
    else:
        optimizer = getattr(kl, name)(1e-6, num_data=2 * BATCH)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2 * BATCH, WIDTHS[0])).astype("float32")
    y = draw.integers(0, WIDTHS[-1], len(x))
    callbacks = [] if name != method else [kl.PosteriorSampler(burn_in=0)]
    model.fit(x, y, batch_size=BATCH, callbacks=callbacks, verbose=0)
    held = sum(int(np.prod(v.shape)) for v in [*optimizer.variables, *model.variables])
    print(json.dumps(held))


def added_up(program):
    """Numbers that an XLA program sums over devices."""
    found = [ARRAY.findall(types) for types in COLLECTIVE.findall(program)]
    shapes = [[int(n) for n in shape.split(",") if n] for types in found for shape in types]
    return int(sum(np.prod(shape) for shape in shapes))


def measured(method):
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_dump_to={folder}"
        done = subprocess.run(
            [sys.executable, "-m", "examples.benchmarks.planning", "--train", method],
            env={
                **os.environ,
                "KERAS_BACKEND": "jax",
                "XLA_FLAGS": f"{flags} --xla_dump_hlo_as_text",
                "JAX_ENABLE_COMPILATION_CACHE": "false",  # what is not compiled is not dumped
            },
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        programs = Path(folder).glob("*train_step*after_optimizations.txt")
        sums = [added_up(path.read_text()) for path in programs]
    return {
        "method": method,
        "state": json.loads(done.stdout.splitlines()[-1]) / NUM_WEIGHTS - 1,
        "added up": max(sums) / NUM_WEIGHTS,
    }


def nanoseconds(path):
    """Of a step, per weight, of the largest network of the rows: by backend and method."""
    rows = [r for r in Results(path.with_name("scaling.jsonl")).rows if "weights" in r]
    largest = max(r["weights"] for r in rows)
    return {
        (r["backend"], r["what"]): 1e6 * r["ms"] / r["weights"]
        for r in rows
        if r["weights"] == largest
    }


def size(number):
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.3g} {unit}"
        number /= 1000


def constants(rows):
    lines = [
        [r["method"], f"{r['state']:.2f}", f"{r['added up']:.2f}", *_of_sizes(r)] for r in rows
    ]
    head = ["method", "state, copies", "added up a step, copies"]
    return table([*head, *(f"a chain of {_power(d)} weights" for d in SIZES)], lines)


def _of_sizes(row):
    """Weights, gradient and state of one chain."""
    return [size(4 * d * (2 + row["state"])) for d in SIZES]


def _power(number):
    return f"10{str(len(str(number)) - 1).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def traffic(rows):
    """Bytes that each device sends in a step of a chain that all share."""
    lines = []
    for row in rows:
        cells = [
            size(4 * d * row["added up"] * 2 * (n - 1) / n) for d in SIZES[1:] for n in (8, 64)
        ]
        lines.append([row["method"], *cells])
    heads = [f"{_power(d)} weights, {n} devices" for d in SIZES[1:] for n in (8, 64)]
    return table(["method", *heads], lines)


def times(path):
    found = nanoseconds(path)
    lines = []
    for (backend, method), nanosecond in found.items():
        cells = [f"{1e-9 * nanosecond * d:.3g} s" for d in SIZES[1:]]
        lines.append([f"{method}, {backend}", f"{nanosecond:.2g}", *cells])
    head = ["a step of 100 examples", "ns a weight", *(f"{_power(d)} weights" for d in SIZES[1:])]
    return table(head, lines)


def stored():
    lines = [
        [f"{count} samples", *(size(4 * d * count) for d in SIZES)] for count in (20, 100, 1000)
    ]
    return table(["on disk, and in memory as an ensemble", *(_power(d) for d in SIZES)], lines)


def page(path):
    rows = {r["method"]: r for r in Results(path).rows}
    rows = [rows[method] for method in METHODS]
    tables = {
        "constants": constants(rows),
        "traffic": traffic(rows),
        "times": times(path),
        "stored": stored(),
    }
    return pages.with_tables(path, tables)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train(options.train)
    results = Results(options.results / "planning.jsonl")
    for method in METHODS:
        results.add(measured(method))
        print(results.rows[-1])
    pages.write(page, results.path)


if __name__ == "__main__":
    main()
