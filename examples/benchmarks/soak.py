"""Does a run of a million steps stay as it began? Memory, time of a step, compilations.

    python -m examples.benchmarks.soak                        10^6 steps, samples on disk
    python -m examples.benchmarks.soak --max-samples 64       as many at most: what else grows?
    python -m examples.benchmarks.soak --report               the page and the figure alone

One call of `fit` with `kl.PosteriorSampler`, which stores a sample every 250 steps and a
checkpoint after every epoch of 1000. Every 5000 steps a row goes to the results file. A run that
was stopped goes on, from its checkpoint, when it is started again with the same folder.
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import keras_langevin as kl
from examples.benchmarks.timing import table, versions
from examples.studies.common import pages
from examples.studies.common.results import Results

STEPS_PER_EPOCH, STEPS_PER_SAMPLE, BATCH_SIZE, INPUTS = 1000, 250, 8, 4
WARM_UP = 0.1  # of the steps, left out of the slope of the memory
BLOCKS, T_95 = 10, 2.306  # and the 97.5 % quantile of Student's t with BLOCKS - 2 degrees
PAGE = """# A million steps of `fit`

    KERAS_BACKEND=tensorflow python -m examples.benchmarks.soak
    KERAS_BACKEND=jax python -m examples.benchmarks.soak
    KERAS_BACKEND=jax python -m examples.benchmarks.soak --max-samples 64 --steps 775000

A network of {weights} weights, `kl.{sampler}`, `jit_compile=True`, {execution} steps an execution,
batches of {batch}; `kl.PosteriorSampler` stores a sample every {sample} steps in a folder and a
checkpoint after every {epoch}. Memory is what the process has allocated, without the pages of
files; its slope is that after the first tenth of the steps, from the means of {blocks} blocks, with
its 95 % band. The ratio is that of the time of a step in the last tenth of the rows to that in the
first, in seconds of the processor and of the clock; the machine, two shared cores, did other work.
The first epoch of a process, which compiles, is in no row. Compilations are how often Python ran
the training step, which it does twice where the optimizer makes its state in it.

What grows is the table of contents of the stored samples: 0.56 kB each in memory, and a text of
0.24 kB each that is written anew with every sample, in 20 ms of the processor for the 4000th.
`max_samples` bounds it; what is then left are the logs that `fit` keeps of every epoch.

{table}

{machines}
"""


class CountedModel(keras.Sequential):
    """Counts how often Python runs the training step: once for each compilation."""

    traces = 0

    def compute_loss(self, *args, **kwargs):
        self.traces += 1
        return super().compute_loss(*args, **kwargs)


def compiled_model(num_data):
    model = CountedModel(
        [keras.Input((INPUTS,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)]
    )
    model.compile(
        kl.QDOPLangevin(1e-3, num_data=num_data, seed=1),
        kl.losses.GaussianNLL(0.3),
        jit_compile=True,
        steps_per_execution=STEPS_PER_SAMPLE,
    )
    return model


def data():
    """An epoch of batches, always in this order: a run that goes on meets the same ones."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BATCH_SIZE * STEPS_PER_EPOCH, INPUTS)).astype("float32")
    noise = 0.3 * generator.normal(size=(len(x), 1))
    return x, (np.sin(2 * x[:, :1]) + noise).astype("float32")


class Recorder(keras.callbacks.Callback):
    """Adds a row to the results after every so many epochs.

    Attributes:
        process: The number of the process, from 0, among those that one run has had.
    """

    def __init__(self, results, every, process=0, **key):
        super().__init__()
        self.results, self.every, self.process, self.key = results, every, process, key
        self.last = None

    def on_epoch_end(self, epoch, logs=None):
        now = epoch + 1, time.perf_counter(), time.process_time()
        if self.last is None:  # the first epoch of a process compiles
            self.last = now
        if now[0] % self.every or now[0] == self.last[0]:
            return
        epochs, seconds, cpu_seconds = (a - b for a, b in zip(now, self.last, strict=True))
        thousands = epochs * STEPS_PER_EPOCH / 1000
        row = {
            "process": self.process,
            "steps": now[0] * STEPS_PER_EPOCH,
            "private_bytes": private_bytes(),
            "seconds_per_1000": seconds / thousands,
            "cpu_seconds_per_1000": cpu_seconds / thousands,
            "traces": self.model.traces,
            "samples": logs["num_samples"],
        }
        self.results.add(self.key | row)
        self.last = epoch + 1, time.perf_counter(), time.process_time()


def private_bytes():
    """What the process itself has allocated and touched. The system drops pages of files, and
    loads them again, as it likes: they are left out."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = dict(line.split(":", 1) for line in lines)
    return sum(1024 * int(kilobytes[name].split()[0]) for name in ("RssAnon", "VmSwap"))


def run(folder, steps, results, every=5, max_samples=None, callbacks=()):
    """Trains to that many steps in all and adds the rows; returns the model."""
    keras.utils.set_random_seed(0)
    key = keras.backend.backend(), max_samples
    x, y = data()
    model = compiled_model(len(x))
    sampler = kl.PosteriorSampler(
        burn_in=STEPS_PER_EPOCH,
        thinning=STEPS_PER_SAMPLE,
        unit="step",
        directory=folder,
        max_samples=max_samples,
        resume=True,
    )
    before = [row["process"] for row in by_run(results.rows).get(key, ())]
    process = max(before, default=-1) + 1
    facts = {"backend": key[0], "max_samples": max_samples, "machine": versions()}
    recorder = Recorder(results, every, process, **facts)
    model.fit(
        x,
        y,
        batch_size=BATCH_SIZE,
        epochs=steps // STEPS_PER_EPOCH,
        initial_epoch=sampler.epochs_seen,
        shuffle=False,
        verbose=0,
        callbacks=[sampler, recorder, *callbacks],
    )
    return model


# ------------------------------------------------------------------------- what was found


def slope(rows):
    """Of the memory, in bytes per 1000 steps, and half of its 95 % band.

    From a line through the means of blocks, whose errors are less alike than neighbouring rows'.
    """
    rows = [r for r in rows if r["steps"] > WARM_UP * rows[-1]["steps"]]
    blocks = np.array_split([(r["steps"] / 1000, r["private_bytes"]) for r in rows], BLOCKS)
    means = np.stack([block.mean(axis=0) for block in blocks])
    x, y = (means - means.mean(axis=0)).T
    rate = x @ y / (x @ x)
    variance = np.sum((y - rate * x) ** 2) / (BLOCKS - 2) / (x @ x)
    return float(rate), float(T_95 * variance**0.5)


def slowdown(rows, name):
    """Median time of the last tenth of the rows over that of the first."""
    times = [row[name] for row in rows]
    tenth = max(len(times) // 10, 1)
    return float(np.median(times[-tenth:]) / np.median(times[:tenth]))


def summary(rows):
    """Of the rows of one run; the slope is that of its longest process."""
    processes = [[r for r in rows if r["process"] == p] for p in {r["process"] for r in rows}]
    longest = max(processes, key=len)
    rate, band = slope(longest)
    return {
        "backend": rows[0]["backend"],
        "max_samples": rows[0].get("max_samples"),
        "steps": rows[-1]["steps"],
        "rows": len(rows),
        "processes": len(processes),
        "samples": int(rows[-1]["samples"]),
        "memory, MB": longest[-1]["private_bytes"] / 1e6,
        "slope, bytes per 1000 steps": f"{rate:.0f} ± {band:.0f}",
        "ms a step": float(np.median([r["seconds_per_1000"] for r in rows])),
        "ratio, processor": slowdown(rows, "cpu_seconds_per_1000"),
        "ratio, clock": slowdown(rows, "seconds_per_1000"),
        "compilations": max(r["traces"] for r in rows),
    }


def by_run(rows):
    """The rows by backend and `max_samples`."""
    runs = {}
    for row in rows:
        runs.setdefault((row["backend"], row.get("max_samples")), []).append(row)
    return runs


def page(path):
    rows = Results(path).rows
    return PAGE.format(
        weights=17 + 16 * (INPUTS + 1),
        sampler="QDOPLangevin",
        execution=STEPS_PER_SAMPLE,
        batch=BATCH_SIZE,
        sample=STEPS_PER_SAMPLE,
        epoch=STEPS_PER_EPOCH,
        blocks=BLOCKS,
        table=table([summary(own) for own in by_run(rows).values()]),
        machines=machines(rows),
    )


def machines(rows):
    """A list in Markdown: what each backend ran on."""
    found = {row["backend"]: row["machine"] for row in rows if "machine" in row}
    return "\n".join(f"- {backend}: {machine}" for backend, machine in found.items())


def draw(results):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(7, 5), layout="constrained")
    for (backend, most), rows in by_run(results.rows).items():
        name = f"{backend}, max_samples={most}" if most else backend
        steps = [row["steps"] / 1e6 for row in rows]
        grown = [(row["private_bytes"] - rows[0]["private_bytes"]) / 1e6 for row in rows]
        axes[0].plot(steps, grown, label=f"{name}, from {rows[0]['private_bytes'] / 1e6:.0f} MB")
        axes[1].plot(steps, [row["cpu_seconds_per_1000"] for row in rows])
    axes[0].set(ylabel="memory since first row, MB")
    axes[1].set(ylabel="processor, ms a step", xlabel="steps, millions", ylim=(0, None))
    axes[0].legend(frameon=False)
    figure.savefig(results.path.with_suffix(".png"), dpi=130)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10**6)
    parser.add_argument("--every", type=int, default=5, help="epochs from one row to the next")
    parser.add_argument("--max-samples", type=int, help="most to keep; all by default")
    parser.add_argument("--folder", type=Path, help="of the samples; a temporary one by default")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    if not arguments.report:
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.folder or temporary
            run(folder, arguments.steps, results, arguments.every, arguments.max_samples)
    pages.write(page, results.path)
    draw(results)


if __name__ == "__main__":
    main()
