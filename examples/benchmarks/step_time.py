"""Time of a training step inside `fit`, as a ratio to the plain optimizer and to peers.

    KERAS_BACKEND=jax python -m examples.benchmarks.step_time
    KERAS_BACKEND=jax python -m examples.benchmarks.step_time --one-thread

The 784-400-400-10 network on random images, float32. All methods of one table run in one process,
an epoch each in turns, and the ratio is that of the medians; absolute times depend on the machine
and on what else it does. Peers (`peers.py`) make one step a batch, over batches that are cut
beforehand, which `fit` has to do itself. The rows go to
`examples/benchmarks/step_time.jsonl`, and the tables of all backends to the page beside it.
"""

import argparse
import os
import sys
from pathlib import Path

if "--one-thread" in sys.argv:  # read when the backend is imported
    os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")}
    os.environ |= {"TF_NUM_INTEROP_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}

import keras
import numpy as np

import keras_langevin as kl
from examples.benchmarks import peers, timing
from examples.benchmarks.predict import LARGE, network
from examples.studies.common import pages
from examples.studies.common.results import Results

BACKEND = keras.backend.backend()
RESULTS = Path(__file__).parent
RATE = 1e-4

# Name, how it is made from N, what it is compared with, the target for batches of 500 and of 100.
METHODS = [
    ("Keras SGD", lambda n: keras.optimizers.SGD(RATE), None, {}),
    ("Keras Adam", lambda n: keras.optimizers.Adam(RATE), None, {}),
    ("SGLD", lambda n: kl.SGLD(RATE, num_data=n), "Keras SGD", {500: 1.10, 100: 1.25}),
    (
        "SGLD, exact_noise=True",
        lambda n: kl.SGLD(RATE, num_data=n, exact_noise=True),
        "Keras SGD",
        {},
    ),
    (
        "RMSPropLangevin",
        lambda n: kl.RMSPropLangevin(RATE, num_data=n),
        "Keras Adam",
        {500: 1.10},
    ),
    (
        "DOPLangevin, statistics_stride=1",
        lambda n: kl.DOPLangevin(RATE, num_data=n, statistics_stride=1),
        "Keras SGD",
        {500: 1.6},
    ),
    (
        "QDOPLangevin, statistics_stride=1",
        lambda n: kl.QDOPLangevin(RATE, num_data=n, statistics_stride=1),
        "Keras SGD",
        {500: 2.0},
    ),
    ("QDOPLangevin", lambda n: kl.QDOPLangevin(RATE, num_data=n), "Keras SGD", {500: 1.25}),
]


# What SGLD may take of their time.
PEER_TARGETS = {"blackjax SGLD": 0.75, "posteriors SGLD": 0.9}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[500, 100])
    parser.add_argument("--steps", type=int, default=60, help="steps an epoch")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--one-thread", action="store_true")
    parser.add_argument("--quick", action="store_true", help="under a minute, nothing is written")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.batch_sizes, arguments.steps, arguments.turns = [100], 10, 2
    name = f"{BACKEND}, one thread" if arguments.one_thread else BACKEND
    rows = []
    for batch_size in arguments.batch_sizes:
        rows += measured(name, batch_size, arguments.steps, arguments.turns)
    print(timing.table(rows))
    if not arguments.quick:
        results = Results(RESULTS / "step_time.jsonl")
        for row in rows:
            results.add({**row, "machine": timing.versions()})
        pages.write(page, results.path)


def measured(backend, batch_size, steps, turns):
    rng = np.random.default_rng(0)
    x = rng.random((batch_size * steps, 784), dtype="float32")
    y = rng.integers(0, 10, len(x))
    epochs = {
        name: epoch_of(network(LARGE), make(len(x)), x, y, batch_size) for name, make, *_ in METHODS
    }
    against = {name: (rival, targets.get(batch_size)) for name, _, rival, targets in METHODS}
    for name, make in peers.installed().items():
        epochs[name] = peer_epoch(make, x, y, batch_size)
        against[name] = None, None
        against[f"SGLD / {name}"] = name, PEER_TARGETS[name]
    seconds = timing.interleaved(epochs, turns)
    milliseconds = {name: 1e3 * float(np.median(s)) / steps for name, s in seconds.items()}
    for name in [n for n in against if " / " in n]:
        milliseconds[name] = milliseconds["SGLD"]
    return [
        {
            "backend": backend,
            "batch": batch_size,
            "method": name.split(" / ")[0],
            "ms a step": milliseconds[name],
            "against": rival,
            "ratio": milliseconds[name] / milliseconds[rival] if rival else None,
            "target": target,
        }
        for name, (rival, target) in against.items()
    ]


def epoch_of(model, optimizer, x, y, batch_size, **arguments):
    """A function that trains for an epoch."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=BACKEND != "torch")
    if getattr(optimizer, "statistics", None):
        kl.track_statistics(model, optimizer)
    return lambda: model.fit(x, y, batch_size=batch_size, verbose=0, **arguments)


def peer_epoch(make, x, y, batch_size):
    peer = make(network(LARGE), peers.categorical, RATE, len(x))
    batches = peers.batches(x, y, batch_size)
    return lambda: peer.run(batches)


def page(path):
    rows = Results(path).rows
    runs = {}
    for row in rows:
        runs.setdefault((row["backend"], row["batch"], row["method"], row["against"]), []).append(
            row
        )
    shown = []
    for (backend, batch, method, against), own in runs.items():
        line = {"backend": backend, "batch": batch, "method": method}
        line["ms a step"] = float(np.median([row["ms a step"] for row in own]))
        line["against"] = against
        if against:
            ratios = [row["ratio"] for row in own]
            line["ratio"] = float(np.median(ratios))
            line["of runs"] = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
        shown.append(line | {"target": own[-1]["target"]})
    machines = {row["backend"]: row["machine"] for row in rows}
    versions = "\n".join(f"- {backend}: {machine}" for backend, machine in machines.items())
    return f"{HEAD}\n{timing.table(shown)}\n\n{versions}\n"


HEAD = """# Time of a training step

`KERAS_BACKEND=... python -m examples.benchmarks.step_time [--one-thread]`: the 784-400-400-10
network inside `fit`. In each run medians of turns in one process; here medians of runs. Where the
ratio is above the target, it is missed.

On TensorFlow with two threads a compiled function is slow or fast for the life of its process: of
three that were made alike one took 22 ms a step and two 12, with the same processor time. One
thread has no such luck.
"""


if __name__ == "__main__":
    main()
