"""How much of a fixed budget does `kl.StopWhenEnough` save, and what does it lose?

    python -m examples.studies.stopping.stopping --data-dir DIR  a quarter of an hour
    python -m examples.studies.stopping.stopping --data-dir DIR --warm-start  the same
    python -m examples.studies.stopping.stopping --report        the tables alone

On each data set `QDOPLangevin(num_data=N)` with all defaults, one chain, a sample an epoch, runs to
the end of a fixed budget; from random weights, or from where Adam has trained it for as many epochs
as are burn-in. Callbacks with several limits stand beside it and note when they would
have stopped it: up to there a run that stops is the same, since nothing random hangs on the
callback. Their validation data are a fifth of the training data, which is not trained on. Test data
are seen by none. Each run appends a line to the results file; what is in it is not run again.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_langevin as kl
from examples.studies.common import pages, study
from examples.studies.common.results import Results
from examples.studies.common.tables import table
from examples.studies.default_settings import data
from examples.studies.ten_problems import ten_problems

NAMES = ["digits", "airfoil", "bike", "power_plant", "kin8nm", "adult", "mnist"]
BUDGET = 400  # samples of the fixed run
LIMITS = {
    "R-hat 1.05, 20 effective samples (default)": {},
    "R-hat 1.1, 10 effective samples": {"max_r_hat": 1.1, "min_effective_samples": 10},
    "the test alone": {"max_r_hat": None, "min_effective_samples": 0},
}
DEFAULT = next(iter(LIMITS))
STARTS = ["random weights", "Adam"]


def main():
    options = arguments()
    study.run_all(options, options.problems.split(","), run, report, page)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="folder with the data sets, see README.md")
    parser.add_argument("--problems", default=",".join(NAMES), help="comma-separated names")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--budget", type=int, default=BUDGET, help="samples of the fixed run")
    parser.add_argument("--warm-start", action="store_true", help="trained by Adam before")
    parser.add_argument("--results", type=Path, default=Path("demo_output/stopping.jsonl"))
    parser.add_argument("--report", action="store_true", help="run nothing")
    return parser.parse_args()


def run(name, seed, options, results):
    problem = data.load(name, options.data_dir, seed)
    start = STARTS[options.warm_start]
    key = {"problem": name, "seed": seed, "budget": options.budget, "start": start}
    results.run(watched, problem, seed, options.budget, options.warm_start, **key)


class Watching(kl.StopWhenEnough):
    """Notes where it would stop."""

    epochs = None

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if self.model.stop_training and self.epochs is None:
            self.epochs = epoch + 1
        self.model.stop_training = False


def watched(problem, seed, budget, is_warm):
    """The row of a run of the whole budget."""
    cut, burn_in = len(problem.train[0]) // 5, problem.epochs // 2
    held_out, rest = (
        tuple(a[part] for a in problem.train) for part in (slice(cut), slice(cut, None))
    )
    optimizer = kl.QDOPLangevin(num_data=len(rest[0]), seed=seed)
    model = ten_problems.compiled(problem, "adam" if is_warm else optimizer, seed)
    if is_warm:
        ten_problems.fit(model, problem, rest, burn_in)
        model.compile(optimizer, problem.loss(), jit_compile=True)
    sampler = kl.PosteriorSampler(burn_in=burn_in)
    watching = {name: Watching(sampler, held_out, **limit) for name, limit in LIMITS.items()}
    ten_problems.fit(model, problem, rest, burn_in + budget, [sampler, *watching.values()])
    ensemble = sampler.ensemble()
    densities = ensemble.log_likelihood(*problem.test, batch_size=1000, verbose=0)
    row = {"num_data": len(rest[0]), "held_out": cut, "burn_in": burn_in, "stops": {}}
    for name, callback in watching.items():
        samples = (callback.epochs or burn_in + budget) - burn_in
        lost = first(densities, budget) - first(densities, samples)
        error = np.std(lost, ddof=1) / len(lost) ** 0.5
        row["stops"][name] = {
            "samples": samples,
            "nll": float(-np.mean(first(densities, samples))),
            "lost": float(np.mean(lost)),
            "lost_error": float(error),
        }
    counts = [c for c in (1, 16, 25, 50, 100, 200, 400) if c <= budget]
    row["nll"] = {str(c): round(float(-np.mean(first(densities, c))), 5) for c in counts}
    for name in ("val_r_hat", "val_effective_samples", "val_gain_left"):
        values = model.history.history[name][burn_in:]
        row[name] = [None if np.isnan(values[c - 1]) else round(values[c - 1], 4) for c in counts]
    return row


def first(densities, count):
    """The log predictive density of each test example under the first samples."""
    return np.logaddexp.reduce(densities[:count], axis=0) - np.log(count)


def report(rows):
    """Markdown: for each start a line a problem, means over seeds, with the default limits; then a
    line for all limits."""
    return "\n\n".join(report_of(start, rows) for start in STARTS)


def report_of(start, rows):
    rows = [row for row in rows if row["start"] == start]
    if not rows:
        return ""
    head = ["problem", "held out", "seeds", "samples", "of sampling saved", "of all epochs saved"]
    head += ["NLL, whole budget", "NLL, stopped", "lost"]
    lines = [line(mine) for mine in ten_problems.by_problem(rows)]
    limits = ["limits", "samples saved", "stopped before the end", "lost, mean", "lost, worst run"]
    limits.append("lost more than 0.01 by two errors")
    tables = table(head, lines), table(limits, [summary(rows, name) for name in LIMITS])
    return "\n\n".join([f"From {start}:", *tables])


def line(rows):
    stops = [row["stops"][DEFAULT] for row in rows]
    pairs = list(zip(rows, stops, strict=True))
    epochs = [
        1 - (row["burn_in"] + s["samples"]) / (row["burn_in"] + row["budget"]) for row, s in pairs
    ]
    whole = np.mean([s["nll"] - s["lost"] for s in stops])
    error = np.sqrt(np.sum([s["lost_error"] ** 2 for s in stops])) / len(rows)
    return [
        *(rows[0]["problem"], rows[0]["held_out"], len(rows)),
        ", ".join(str(s["samples"]) for s in stops),
        *(share(saved(rows, DEFAULT)), share(epochs)),
        *(f"{whole:.4f}", f"{np.mean([s['nll'] for s in stops]):.4f}"),
        f"{np.mean([s['lost'] for s in stops]):+.4f} ± {error:.4f}",
    ]


def summary(rows, name):
    stops = [row["stops"][name] for row in rows]
    lost, errors = (np.array([s[key] for s in stops]) for key in ("lost", "lost_error"))
    ended = sum(s["samples"] < row["budget"] for s, row in zip(stops, rows, strict=True))
    return [
        *(name, share(saved(rows, name)), f"{ended} of {len(rows)} runs"),
        *(f"{np.mean(lost):+.4f}", f"{np.max(lost):+.4f}"),
        f"{np.sum(lost - 2 * errors > 0.01)} runs",
    ]


def saved(rows, name):
    return [1 - row["stops"][name]["samples"] / row["budget"] for row in rows]


def share(values):
    return f"{100 * np.mean(values):.0f} %"


def page(path):
    return pages.with_tables(path, {"stopping": report(Results(path).rows)})


if __name__ == "__main__":
    main()
