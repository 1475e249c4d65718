"""Do all default settings together, and the default prior, predict well on twenty small problems?

    python -m examples.studies.default_settings.default_settings --data-dir DIR
    python -m examples.studies.default_settings.default_settings --data-dir DIR --prior NAME
    python -m examples.studies.default_settings.default_settings --data-dir DIR --choose-temperature
    python -m examples.studies.default_settings.default_settings --report  the table alone

As in `ten_problems`, whose functions run here: Adam with early stopping, `QDOPLangevin(num_data=N)`
from random weights with nothing else said, and a deep ensemble that takes as long as QDOP. At most
2,000 examples are trained on. Each run appends a line to the results file; what is in it is not run
again.
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

PRIORS = {
    "FanInNormal(10)": kl.priors.FanInNormal(10.0, embedding_stddev=10.0**0.5),
    "FanInNormal(20)": kl.priors.FanInNormal(20.0),
    "FanInNormal(50)": kl.priors.FanInNormal(50.0),
    "outputs 10, hidden 2": kl.priors.LayerwiseNormal(10.0, hidden_scale=2.0),
    "outputs 20": kl.priors.LayerwiseNormal(20.0),
}
CHOSEN = "QDOP, chosen T"
NAMES = [
    *("digits", "breast_cancer", "diabetes", "wine_cultivars", "iris", "energy", "yacht", "wine"),
    *("airfoil", "bike", "power_plant", "kin8nm", "german_credit", "australian_credit", "shuttle"),
    *("adult", "mnist", "fashion_mnist", "shakespeare", "bike_hours"),
]


def main():
    options = arguments()
    study.run_all(options, options.problems, run, report, page)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="folder with the data sets, see README.md")
    parser.add_argument("--problems", default=",".join(NAMES), help="comma-separated names")
    parser.add_argument("--prior", choices=PRIORS, help="by default the package's own")
    parser.add_argument("--sampler-only", action="store_true", help="neither Adam nor ensemble")
    parser.add_argument(
        "--choose-temperature", action="store_true", help="by a tenth of the data; nothing else"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("demo_output/default_settings.jsonl"))
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.problems = options.problems.split(",")
    return options


def run(name, seed, options, results):
    problem = data.load(name, options.data_dir, seed)
    key = {"problem": name, "seed": seed, "num_data": len(problem.train[0])}
    if options.choose_temperature:
        results.run(at_chosen_temperature, problem, seed, method=CHOSEN, **key)
        return
    method = f"QDOP, {options.prior}" if options.prior else "QDOP"
    prior = {"prior": PRIORS[options.prior]} if options.prior else {}
    if options.sampler_only:
        results.run(posterior, problem, prior, seed, method=method, **key)
        return
    adam = results.run(ten_problems.adam_point, problem, seed, method="Adam", **key)
    sampled = results.run(posterior, problem, prior, seed, method=method, **key)
    budget = adam["epochs"], sampled["seconds"]
    results.run(ten_problems.deep_ensemble, problem, seed, *budget, method="deep ensemble", **key)


def posterior(problem, prior, seed):
    """The row of `ten_problems`, the NLL of the training data and the coverage of intervals too."""
    kept = {}
    row = ten_problems.posterior(problem, kl.QDOPLangevin, prior, seed, kept)
    if row["diverged"]:
        return row
    ensemble, (x, y) = kept["ensemble"], problem.test
    loss = ensemble.evaluate(*problem.train, batch_size=1000, verbose=0)
    row["train_nll"] = float(np.ravel(loss)[0])
    if y.dtype == "float32":
        found = ensemble.predict_uncertainty(x, quantiles=(0.05, 0.95))
        low, high = found["quantiles"]
        row["coverage"] = float(np.mean((low <= y) & (y <= high)))
    return row


def at_chosen_temperature(problem, seed):
    """The row at the temperature that `kl.choose_temperature` finds on a tenth of the training
    data, sampled anew on all of them."""
    cut = len(problem.train[0]) // 10
    held_out, rest = (
        tuple(a[part] for a in problem.train) for part in (slice(cut), slice(cut, None))
    )

    def train_fn(temperature):
        optimizer = kl.QDOPLangevin("auto", num_data=len(rest[0]), temperature=temperature)
        model = ten_problems.compiled(problem, optimizer, seed)
        sampler = kl.PosteriorSampler(burn_in=problem.epochs // 2)
        ten_problems.fit(model, problem, rest, problem.epochs, [sampler])
        return sampler

    chosen = kl.choose_temperature(train_fn, held_out, verbose=0).temperature
    row = ten_problems.posterior(problem, kl.QDOPLangevin, {"temperature": chosen}, seed)
    return row | {"temperature": chosen}


def report(rows):
    """Markdown: a line a problem with means over seeds, then how often each is ahead."""
    samplers = [m for m in dict.fromkeys(r["method"] for r in rows) if m.startswith("QDOP")]
    methods = ["Adam", *samplers, "deep ensemble"]
    head = ["problem", "N", "seeds", *methods, "train NLL", "coverage of 90 %"]
    lines = []
    for mine in ten_problems.by_problem(rows):
        cells = [cell(mine, "nll", method) for method in methods]
        cells += [cell(mine, key, samplers[0]) for key in ("train_nll", "coverage")]
        seeds = len({row["seed"] for row in mine})
        lines.append([mine[0]["problem"], f"{mine[0]['num_data']:,}", str(seeds), *cells])
    summaries = "\n".join(ten_problems.summary(rows, sampler) for sampler in samplers)
    return f"{table(head, lines)}\n\n{summaries}\n"


def cell(rows, key, method):
    runs = [row for row in rows if row["method"] == method]
    if any(row.get("diverged") for row in runs):
        return "diverged"
    values = ten_problems.column(rows, key, method)
    return f"{np.mean(values):.3f}" if values else ""


def page(path):
    return pages.with_tables(path, {"twenty problems": report(Results(path).rows)})


if __name__ == "__main__":
    main()
