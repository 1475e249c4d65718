"""Does a sampler with default settings work at the first attempt, on ten small problems?

    python -m examples.studies.ten_problems.ten_problems  three sets of scikit-learn
    python -m examples.studies.ten_problems.ten_problems --data-dir DIR  the ten, minutes a seed
    python -m examples.studies.ten_problems.ten_problems --data-dir DIR --report  the table alone

On each data set one network is trained in three ways:

- Adam, learning rate 1e-3: the number of epochs by early stopping on a tenth of the training data,
  then trained anew on all of them;
- `QDOPLangevin(learning_rate="auto", num_data=N)`, nothing else said, from random weights;
- a deep ensemble: such Adam networks, one after another, until they have taken as long as QDOP
  (compilation counts for QDOP alone).

Each run appends a line to the results file; what is in it is not run again.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_langevin as kl
from examples.studies.common import pages
from examples.studies.common.results import Results
from examples.studies.common.tables import table
from examples.studies.ten_problems import data

SAMPLERS = {
    "QDOP": kl.QDOPLangevin,
    "DOP": kl.DOPLangevin,
    "RMSProp": kl.RMSPropLangevin,
    "SGLD": kl.SGLD,
}
VARIANTS = {
    "default": {},
    "Normal(1)": {"prior": kl.priors.Normal(1.0)},
    "FanInNormal(10)": {"prior": kl.priors.FanInNormal(10.0)},
    "FanInNormal(2)": {"prior": kl.priors.FanInNormal(2.0)},
    "FanInNormal(20)": {"prior": kl.priors.FanInNormal(20.0)},
    "no clip": {"drift_clip": float("inf")},
}


def main():
    options = arguments()
    results = Results(options.results)
    for name in [] if options.report else options.problems:
        for seed in range(options.seeds):
            run(name, seed, options, results)
    print(report(results.rows))
    pages.write(page, results.path)
    if any(row.get("diverged") for row in results.rows if row["method"] == "QDOP"):
        raise SystemExit("A chain with default settings diverged.")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="folder with the ten data sets, see README.md")
    parser.add_argument("--problems", help="comma-separated names; by default all there are")
    parser.add_argument("--sampler", choices=SAMPLERS, default="QDOP")
    parser.add_argument("--variant", choices=VARIANTS, default="default", help="of the arguments")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("demo_output/ten_problems.jsonl"))
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    there = data.FROM_FOLDER if options.data_dir else data.BUNDLED
    options.problems = options.problems.split(",") if options.problems else list(there)
    return options


def run(name, seed, options, results):
    problem = data.load(name, options.data_dir, seed)
    key = {"problem": name, "seed": seed, "num_data": len(problem.train[0])}
    adam = results.run(adam_point, problem, seed, method="Adam", **key)
    method = options.sampler
    if options.variant != "default":
        method += f", {options.variant}"
    sampler, arguments = SAMPLERS[options.sampler], VARIANTS[options.variant]
    sampled = results.run(posterior, problem, sampler, arguments, seed, method=method, **key)
    budget = adam["epochs"], sampled["seconds"]
    results.run(deep_ensemble, problem, seed, *budget, method="deep ensemble", **key)


def compiled(problem, optimizer, seed):
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = problem.network()
    compiles = keras.backend.backend() != "torch"
    model.compile(optimizer=optimizer, loss=problem.loss(), jit_compile=compiles)
    return model


def fit(model, problem, data, epochs, callbacks=(), **kwargs):
    """Seconds of training."""
    start = time.perf_counter()
    model.fit(*data, problem.batch_size, epochs, verbose=0, callbacks=list(callbacks), **kwargs)
    return time.perf_counter() - start


def test_loss(model, problem):
    """Mean negative log likelihood of the test set, nats."""
    loss = model.evaluate(*problem.test, batch_size=1000, verbose=0)
    return float(np.ravel(loss)[0])


def adam_point(problem, seed):
    model = compiled(problem, keras.optimizers.Adam(1e-3), seed)
    count = len(problem.train[0]) // 10
    held_out = tuple(a[:count] for a in problem.train)
    rest = tuple(a[count:] for a in problem.train)
    stop = keras.callbacks.EarlyStopping(patience=10)
    fit(model, problem, rest, 10 * problem.epochs, [stop], validation_data=held_out)
    epochs = stop.best_epoch + 1
    model = compiled(problem, keras.optimizers.Adam(1e-3), seed)
    seconds = fit(model, problem, problem.train, epochs)
    return {"nll": test_loss(model, problem), "epochs": epochs, "seconds": seconds}


def posterior(problem, sampler_class, arguments, seed, kept=None):
    """The row of a run; a dictionary `kept` is given its `ensemble`."""
    optimizer = sampler_class("auto", num_data=len(problem.train[0]), **arguments)
    model = compiled(problem, optimizer, seed)
    sampler = kl.PosteriorSampler(burn_in=problem.epochs // 2)
    start = time.perf_counter()
    try:
        fit(model, problem, problem.train, problem.epochs, [sampler])
    except FloatingPointError:
        seconds = time.perf_counter() - start
        return {"diverged": True, "nll": None, "epochs": sampler.epochs_seen, "seconds": seconds}
    seconds = time.perf_counter() - start
    logs = model.history.history
    ensemble = sampler.ensemble()
    if kept is not None:
        kept["ensemble"] = ensemble
    return {
        "diverged": False,
        "nll": test_loss(ensemble, problem),
        "last_point_nll": test_loss(model, problem),
        "epochs": problem.epochs,
        "members": len(sampler.samples),
        "learning_rate": logs["learning_rate"][-1],
        "drift_clipped": logs.get("drift_clipped", [0.0])[-1],
        "seconds": seconds,
    }


def deep_ensemble(problem, seed, epochs, budget):
    """Adam networks until the time is used up, at least one; one compiled step for all."""
    model = compiled(problem, keras.optimizers.Adam(1e-3), seed)
    model.optimizer.build(model.trainable_variables)
    fresh = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]
    fit(model, problem, problem.train, 1)  # compiles
    members, spent = [], 0.0
    while spent < budget:
        model.set_weights(problem.network().get_weights())
        for variable, value in zip(model.optimizer.variables, fresh, strict=True):
            variable.assign(value)
        spent += fit(model, problem, problem.train, epochs)
        members.append(model.get_weights())
    ensemble = kl.BayesianEnsembleModel(model, members)
    return {"nll": test_loss(ensemble, problem), "members": len(members), "seconds": spent}


def report(rows):
    """Markdown: a table with means over seeds, and for each sampler what it comes to."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    samplers = [m for m in methods if m not in ("Adam", "deep ensemble")]
    methods = ["Adam", *samplers, "deep ensemble"]
    head = ["problem", "N", "seeds", *methods, "learning rate", "clipped %"]
    lines = []
    for mine in by_problem(rows):
        cells = [mean_and_error(column(mine, "nll", m)) for m in methods]
        rates, clips = (column(mine, k, samplers[0]) for k in ("learning_rate", "drift_clipped"))
        cells += [f"{np.median(rates):.2g}", f"{100 * np.mean(clips):.1f}"] if rates else ["", ""]
        seeds = len({row["seed"] for row in mine})
        lines.append([mine[0]["problem"], f"{mine[0]['num_data']:,}", str(seeds), *cells])
    summaries = "\n".join(summary(rows, sampler) for sampler in samplers)
    title = "Test negative log likelihood, nats, mean ± standard error:"
    return f"{title}\n\n{table(head, lines)}\n\n{summaries}\n"


def page(path):
    """The page beside the rows; runs with other arguments are in a file of their own."""
    tables = {"ten problems": report(Results(path).rows)}
    variants = path.with_name(f"{path.stem}_variants.jsonl")
    if variants.exists():
        tables["variants"] = variants_table(Results(variants).rows)
    return pages.with_tables(path, tables)


def variants_table(rows):
    """Of seed 0."""
    head = {"QDOP": "default", "QDOP, no clip": "without the clip"}
    head |= {"QDOP, Normal(1)": "prior Normal(1)"}
    lines = []
    for mine in by_problem(rows):
        found = {row["method"]: row for row in mine if row["seed"] == 0}
        lines.append([mine[0]["problem"], *(variant_cell(found[method]) for method in head)])
    return table(["problem", *head.values()], lines)


def variant_cell(row):
    if row["diverged"]:
        return "diverged"
    return f"{row['nll']:.4f}" if row["nll"] < 1000 else f"{row['nll']:.1e}"


def summary(rows, sampler):
    runs = [row for row in rows if row["method"] == sampler]
    text = f"- {sampler}: {sum(row['diverged'] for row in runs)} of {len(runs)} runs diverged"
    for rival in ("Adam", "deep ensemble"):
        gaps = [paired_gaps(mine, sampler, rival) for mine in by_problem(rows)]
        gaps = [g for g in gaps if len(g)]
        errors = [
            g.std(ddof=1) / len(g) ** 0.5 if len(g) > 1 and np.isfinite(g).all() else 0.0
            for g in gaps
        ]
        lower = sum(g.mean() < 0 for g in gaps)
        equal = sum(0 <= g.mean() <= e for g, e in zip(gaps, errors, strict=True))
        text += f"; NLL below that of {rival} in {lower} of {len(gaps)}"
        text += f" (in {equal} more above by less than a standard error)" if equal else ""
    return text + "."


def by_problem(rows):
    for problem in dict.fromkeys(row["problem"] for row in rows):
        yield [row for row in rows if row["problem"] == problem]


def paired_gaps(rows, sampler, rival):
    """NLL of the sampler above that of the rival, seed by seed; infinite where it diverged."""
    theirs = {row["seed"]: row["nll"] for row in rows if row["method"] == rival}
    mine = [row for row in rows if row["method"] == sampler and row["seed"] in theirs]
    return np.array([np.inf if r["diverged"] else r["nll"] - theirs[r["seed"]] for r in mine])


def column(rows, key, method):
    """In the order of seeds, without those of runs that diverged."""
    rows = sorted((row for row in rows if row["method"] == method), key=lambda row: row["seed"])
    return [row[key] for row in rows if row.get(key) is not None]


def mean_and_error(values):
    if not values:
        return ""
    mean = f"{np.mean(values):.4f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.4f}"


if __name__ == "__main__":
    main()
