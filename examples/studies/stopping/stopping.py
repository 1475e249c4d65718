"""How much of a fixed budget does `kl.StopWhenEnough` save, and what does it lose?

    python -m examples.studies.stopping.stopping --data-dir DIR  fifteen minutes
    python -m examples.studies.stopping.stopping --report        the table alone

On each data set `QDOPLangevin(num_data=N)` with all defaults, one chain, a sample an epoch: with a
fixed budget, and with the callback, whose arguments are the defaults too and whose validation data
are a fifth of the training data, which neither run is trained on. Test data are seen by neither.
Each run appends a line to the results file; what is in it is not run again.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_langevin as kl
from examples.studies.common import pages
from examples.studies.common.results import Results
from examples.studies.common.tables import table
from examples.studies.default_settings import data
from examples.studies.ten_problems import ten_problems

NAMES = ["digits", "airfoil", "bike", "power_plant", "kin8nm", "adult", "mnist"]
BUDGET = 400  # samples of the fixed run


def main():
    options = arguments()
    results = Results(options.results)
    for seed in [] if options.report else range(options.seeds):
        for name in options.problems.split(","):
            run(name, seed, options, results)
    print(report(results.rows))
    pages.write(page, results.path)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="folder with the data sets, see README.md")
    parser.add_argument("--problems", default=",".join(NAMES), help="comma-separated names")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--budget", type=int, default=BUDGET, help="samples of the fixed run")
    parser.add_argument("--results", type=Path, default=Path("demo_output/stopping.jsonl"))
    parser.add_argument("--report", action="store_true", help="run nothing")
    return parser.parse_args()


def run(name, seed, options, results):
    problem = data.load(name, options.data_dir, seed)
    key = {"problem": name, "seed": seed, "budget": options.budget}
    results.run(both, problem, seed, options.budget, **key)


def both(problem, seed, budget):
    """The row of a fixed and a stopped run of the same seed."""
    cut = len(problem.train[0]) // 5
    held_out, rest = (
        tuple(a[part] for a in problem.train) for part in (slice(cut), slice(cut, None))
    )
    fixed, fixed_densities = one(problem, rest, seed, budget, held_out, stops=False)
    stopped, densities = one(problem, rest, seed, budget, held_out, stops=True)
    loss = fixed_densities - densities
    return {
        "num_data": len(rest[0]),
        "held_out": cut,
        "burn_in": problem.epochs // 2,
        "fixed": fixed,
        "stopped": stopped,
        "lost": float(np.mean(loss)),
        "lost_error": float(np.std(loss, ddof=1) / len(loss) ** 0.5),
    }


def one(problem, rest, seed, budget, held_out, stops):
    """What a run gave, and the log density of each test example."""
    optimizer = kl.QDOPLangevin(num_data=len(rest[0]), seed=seed)  # the same noise in both runs
    model = ten_problems.compiled(problem, optimizer, seed)
    burn_in = problem.epochs // 2
    sampler = kl.PosteriorSampler(burn_in=burn_in)
    callbacks = [sampler, kl.StopWhenEnough(sampler, held_out)] if stops else [sampler]
    start = time.perf_counter()
    ten_problems.fit(model, problem, rest, burn_in + budget, callbacks)
    row = {"samples": len(sampler.samples), "seconds": time.perf_counter() - start}
    for name in ("val_r_hat", "val_effective_samples", "val_gain_left"):
        values = model.history.history.get(name, [])
        row |= {name: [float(f"{v:.4g}") for v in values[burn_in + 15 :]]} if values else {}
    found = sampler.ensemble().log_likelihood(*problem.test, batch_size=1000, verbose=0)
    densities = np.logaddexp.reduce(found, axis=0) - np.log(len(found))
    return row | {"nll": float(-np.mean(densities))}, densities


def report(rows):
    """Markdown: a line a problem, means over seeds."""
    head = ["problem", "held out", "seeds", "samples", "of sampling saved", "of all epochs"]
    head += ["of the time", "NLL, fixed", "NLL, stopped", "lost"]
    lines = [line(mine) for mine in ten_problems.by_problem(rows)]
    lost = np.array([row["lost"] for row in rows])
    errors = np.array([row["lost_error"] for row in rows])
    text = (
        f"Over all {len(rows)} runs: {share(saved(rows))} of the samples saved, "
        f"{np.mean(lost):+.4f} nats lost on average, {np.max(lost):+.4f} in the worst run; "
        f"more than 0.01 by more than two standard errors in {np.sum(lost - 2 * errors > 0.01)}."
    )
    return f"{table(head, lines)}\n\n{text}\n"


def line(rows):
    fixed, stopped = ([row[key] for row in rows] for key in ("fixed", "stopped"))
    counts = ", ".join(str(one["samples"]) for one in stopped)
    epochs = [
        1 - (row["burn_in"] + row["stopped"]["samples"]) / (row["burn_in"] + row["budget"])
        for row in rows
    ]
    seconds = [1 - b["seconds"] / a["seconds"] for a, b in zip(fixed, stopped, strict=True)]
    nlls = [f"{np.mean([one['nll'] for one in some]):.4f}" for some in (fixed, stopped)]
    error = np.sqrt(np.mean([row["lost_error"] ** 2 for row in rows]) / len(rows))
    lost = f"{np.mean([row['lost'] for row in rows]):+.4f} ± {error:.4f}"
    shares = [share(values) for values in (saved(rows), epochs, seconds)]
    held_out = str(rows[0]["held_out"])
    return [rows[0]["problem"], held_out, str(len(rows)), counts, *shares, *nlls, lost]


def saved(rows):
    return [1 - row["stopped"]["samples"] / row["budget"] for row in rows]


def share(values):
    return f"{100 * np.mean(values):.0f} %"


def page(path):
    return pages.with_tables(path, {"stopping": report(Results(path).rows)})


if __name__ == "__main__":
    main()
