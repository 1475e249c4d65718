"""Does microcanonical Langevin with all defaults match samplers whose steps were tuned?

    python -m examples.studies.momentum.regression  synthetic, no data needed
    python -m examples.studies.momentum.regression --data-dir DIR --data airfoil,energy,yacht,bike
    python -m examples.studies.momentum.regression --quick  under a minute
    python -m examples.studies.momentum.regression --results R.jsonl --report  the page of the rows

Regression with a network of 16-16-16-1 ReLU and one free log scale of the noise, prior N(0, 1) on
every weight, T = 1. Inputs and target are standardised with the mean and standard deviation of the
training rows; log predictive density (LPPD) and RMSE are in units of the standardised target.

All methods begin with the same four warm starts of a split: AdamW, stopped early by the likelihood
of the validation rows. The deep ensemble is those four. Samplers run one chain from each:

- pSMILE and SMILE with all defaults, which tune their step size during burn-in;
- MILE: SMILE with the whole data in each step;
- SGHMC and cSGLD: step sizes of a grid of half decades, the one of the best validation LPPD on
  split 0.

Every sampler takes as many gradients, MILE fewer where the data are more than `FULL_BATCH_ROWS`.

Fastest on JAX; torch does not run several steps in one execution, which this asks for.

Each run appends a line to the results file; what is in it is not run again.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops

import keras_langevin as kl
from examples.studies.common import pages
from examples.studies.common.batches import shuffled_batches
from examples.studies.common.r_hat import NOTE, OLD, r_hat_of
from examples.studies.common.results import Results
from examples.studies.common.tables import table

WIDTHS = (16, 16, 16)
PRIOR = kl.priors.Normal(1.0)
BATCH_SIZE = 128
FULL_BATCH_ROWS = 2048  # beyond, a full batch takes proportionally fewer steps
CYCLES = 4
TUNING_CHAINS = 2


@dataclasses.dataclass(frozen=True)
class Budget:
    """Of a split: chains, epochs of a warm start, steps of burn-in and again of sampling, and
    samples a chain."""

    chains: int = 4
    epochs: int = 200
    steps: int = 6000
    samples: int = 100


@dataclasses.dataclass(frozen=True)
class Method:
    """A sampler; `rates` are those to choose from, none for a sampler that finds its own."""

    optimizer: callable
    rates: tuple = ()
    is_full_batch: bool = False
    is_cyclical: bool = False


METHODS = {
    "deep ensemble": None,
    "pSMILE": Method(kl.SMILE),
    "SGHMC": Method(kl.SGHMC, rates=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)),
    "SMILE": Method(functools.partial(kl.SMILE, preconditioned=False)),
    "cSGLD": Method(kl.SGLD, rates=(3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2), is_cyclical=True),
    "MILE": Method(functools.partial(kl.SMILE, preconditioned=False), is_full_batch=True),
}


def main():
    options = arguments()
    results = Results(options.results)
    if not options.report:
        problems = [load(name, options.data_dir) for name in options.data]
        for method in options.methods:  # those that come first are there first
            for problem in problems:
                study(problem, method, options, results)
    pages.write(page, options.results)
    figure(results.rows, options.results.with_suffix(".png"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="folder with uci_regression/, see README.md")
    parser.add_argument("--data", default="synthetic", help="of: synthetic," + ",".join(FILES))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one split, two short chains")
    parser.add_argument("--results", type=Path, default=Path("demo_output/momentum.jsonl"))
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.data, options.methods = options.data.split(","), options.methods.split(",")
    unknown = set(options.methods) - set(METHODS) | set(options.data) - {"synthetic", *FILES}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if options.data_dir is None and not options.report and options.data != ["synthetic"]:
        parser.error("--data-dir is needed, except for synthetic data and with --report")
    if options.quick:
        options.splits = 1
    options.budget = Budget(2, 20, 1000, 20) if options.quick else Budget()
    return options


def study(problem, method, options, results):
    rate = None
    if METHODS[method] and METHODS[method].rates:
        rate = tuned_rate(problem, method, options, results)
    for split in range(options.splits):
        run("final", problem, method, split, rate, options.budget, results)


def tuned_rate(problem, method, options, results):
    """The rate of the best validation LPPD on split 0."""
    rates = METHODS[method].rates
    if options.quick:
        return rates[len(rates) // 2]
    budget = dataclasses.replace(options.budget, chains=TUNING_CHAINS)
    rows = {r: run("tuning", problem, method, 0, r, budget, results) for r in rates}
    return max(rows, key=lambda r: -np.inf if rows[r]["diverged"] else rows[r]["lppd"])


def run(stage, problem, method, split, rate, budget, results):
    key = {"stage": stage, "data": problem.name, "method": method, "split": split}
    key |= {"learning_rate": rate} | dataclasses.asdict(budget)
    return results.run(measured, stage, problem, method, split, rate, budget, **key)


# --------------------------------------------------------------------------------------- the data


class Problem:
    """Rows, and the numbers of those that train, validate and test in each split."""

    def __init__(self, name, x, y, split_rows):
        self.name, self.x, self.y = name, x, y.reshape(-1, 1)
        self.split_rows = split_rows
        self.split = functools.cache(self._split)

    def _split(self, number):
        """`(x, y)` of the parts by name, standardised with the training rows."""
        rows = self.split_rows(number)
        x, y = (standardised(a, rows["train"]).astype("float32") for a in (self.x, self.y))
        return {part: (x[r], y[r]) for part, r in rows.items()}


def standardised(array, rows):
    mean, stddev = array[rows].mean(axis=0), array[rows].std(axis=0)
    return (array - mean) / np.where(stddev > 0, stddev, 1.0)


def load(name, folder):
    if name == "synthetic":
        return synthetic()
    folder = folder / "uci_regression"
    table = np.loadtxt(folder / FILES[name])
    split_rows = functools.partial(random_rows, len(table))
    if (folder / name / "index_train_0.txt").exists():
        split_rows = functools.partial(published_rows, folder / name)
    return Problem(name, table[:, :-1], table[:, -1], split_rows)


FILES = {
    "airfoil": "airfoil/airfoil_self_noise.dat",
    "energy": "energy/data.txt",
    "yacht": "yacht/data.txt",
    "bike": "mile/bikesharing_smile.data",
}


def synthetic():
    """A sine and a product under noise of standard deviation 0.1."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-2, 2, size=(400, 3))
    y = np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.1 * generator.normal(size=len(x))
    return Problem("synthetic", x, y, functools.partial(random_rows, len(x)))


def random_rows(num_data, split):
    """70, 10 and 20 per cent."""
    order = np.random.default_rng(split).permutation(num_data)
    first, second = round(0.7 * num_data), round(0.8 * num_data)
    return {"train": order[:first], "validation": order[first:second], "test": order[second:]}


def published_rows(folder, split):
    """The test rows are those of the file; of the others a tenth validates."""
    train, test = (
        np.loadtxt(folder / f"index_{part}_{split}.txt").astype(int) for part in ("train", "test")
    )
    train = np.random.default_rng(split).permutation(train)
    first = len(train) // 10
    return {"train": train[first:], "validation": train[:first], "test": test}


# ------------------------------------------------------------------------------------ the methods


class FreeLogScale(keras.layers.Layer):
    """Appends one free number, the same for all inputs: log σ beside the mean."""

    def build(self, input_shape):
        self.log_scale = self.add_weight(shape=(1,), initializer="zeros", name="log_scale")

    def call(self, mean):
        return ops.concatenate([mean, self.log_scale + ops.zeros_like(mean)], axis=-1)


def network(features):
    hidden = [keras.layers.Dense(width, activation="relu") for width in WIDTHS]
    return keras.Sequential(
        [keras.Input((features,)), *hidden, keras.layers.Dense(1), FreeLogScale()]
    )


class Compiled:
    """A network with its optimizer, compiled once, for all splits."""

    def __init__(self, features, optimizer, steps_per_execution=1):
        self.model = network(features)
        self.model.compile(
            optimizer,
            kl.losses.GaussianNLL(),
            steps_per_execution=steps_per_execution,
            jit_compile=True,
        )
        optimizer.build(self.model.trainable_variables)
        self.fresh = [ops.convert_to_numpy(v) for v in optimizer.variables]

    def from_weights(self, weights, iteration=0):
        """The compiled model with these weights and a new optimizer that counts steps from
        `iteration` on: the noise is a function of it."""
        self.model.set_weights(weights)
        for variable, value in zip(self.model.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        self.model.optimizer.iterations.assign(iteration)
        return self.model


@functools.cache
def adamw(features):
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.005)
    return Compiled(features, optimizer, steps_per_execution=16)


@functools.cache
def warm_start(problem, split, chain, epochs):
    """Weights of the lowest validation loss, and the processor's seconds that they took."""
    start = time.process_time()
    keras.utils.set_random_seed(1000 * split + chain)
    parts = problem.split(split)
    features = problem.x.shape[1]
    model = adamw(features).from_weights(network(features).get_weights())
    stop = keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)
    model.fit(
        *parts["train"],
        batch_size=64,
        epochs=epochs,
        validation_data=parts["validation"],
        validation_batch_size=len(parts["validation"][0]),
        callbacks=[stop],
        verbose=0,
    )
    return model.get_weights(), time.process_time() - start


@functools.cache
def compiled(method, features, num_data, rate, thinning, cycle_steps):
    settings = {"num_data": num_data, "prior": PRIOR, "seed": 0}
    if rate is not None:
        is_cyclical = METHODS[method].is_cyclical
        schedule = kl.schedules.CyclicalCosine(rate, cycle_steps) if is_cyclical else rate
        settings["learning_rate"] = schedule
    return Compiled(features, METHODS[method].optimizer(**settings), thinning)


def measured(stage, problem, method, split, rate, budget):
    """What a row says of one method on one split."""
    starts = [warm_start(problem, split, chain, budget.epochs) for chain in range(budget.chains)]
    weights = [w for w, _ in starts]
    if METHODS[method] is None:
        ensemble = kl.BayesianEnsembleModel(
            network(problem.x.shape[1]),
            weights,
            output="mean_and_log_scale",
            chains=range(budget.chains),
        )
        facts = {"seconds": sum(seconds for _, seconds in starts)}
    else:
        try:
            ensemble, facts = sampled(problem, method, split, rate, budget, weights)
        except kl.ChainError as error:
            if not all(isinstance(e, FloatingPointError) for e in error.errors.values()):
                raise
            return {"diverged": True}
    part = problem.split(split)["validation" if stage == "tuning" else "test"]
    return {"diverged": False} | scores(ensemble, *part) | facts | {"software": versions()}


def sampled(problem, method, split, rate, budget, weights):
    """The ensemble of all chains, and facts: the processor's seconds, gradients of a chain, what
    the sampler logged at the end of each chain, its arguments."""
    x, y = problem.split(split)["train"]
    batch_size = len(x) if METHODS[method].is_full_batch else BATCH_SIZE
    steps = steps_of(budget, batch_size)
    thinning, cycle_steps = steps // budget.samples, 2 * steps // CYCLES
    burn_in = 0 if METHODS[method].is_cyclical else steps
    trainer = compiled(method, x.shape[1], len(x), rate, thinning, cycle_steps)
    logs = []

    def train(chain):
        model = trainer.from_weights(weights[chain], iteration=chain * 2 * steps)  # whole cycles
        sampler = kl.PosteriorSampler(burn_in, thinning, unit="step", chain=chain)
        history = model.fit(
            shuffled_batches(x, y, batch_size, seed=(split, chain)),
            steps_per_epoch=2 * steps,
            callbacks=[sampler],
            shuffle=False,
            verbose=0,
        )
        logs.append({name: values[-1] for name, values in history.history.items()})
        return sampler

    start = time.process_time()
    ensemble = kl.sample_chains(train, budget.chains, verbose=0)
    seconds = time.process_time() - start
    facts = {"seconds": seconds, "gradients": 2 * steps}
    facts["logs"] = {name: [log[name] for log in logs] for name in logs[0]}
    return ensemble, facts | {"optimizer": trainer.model.optimizer.get_config()}


def steps_of(budget, batch_size):
    """Of burn-in and again of sampling, a whole number for each sample."""
    steps = min(budget.steps, budget.steps * FULL_BATCH_ROWS // batch_size)
    return steps - steps % budget.samples


def scores(ensemble, x, y):
    """Of the mixture of all members and of each chain; R-hat of the log likelihood of all rows."""
    members = ensemble.predict_members(x, batch_size=len(x), verbose=0)
    mean, stddev = (members[name][..., 0].astype("float64") for name in ("mean", "stddev"))
    target = y[:, 0]
    density = -0.5 * ((target - mean) / stddev) ** 2 - np.log(stddev) - 0.5 * np.log(2 * np.pi)
    by_chain = ensemble.split_chains(density)
    row = {
        "lppd": lppd(density),
        "rmse": float(np.sqrt(np.mean((target - mean.mean(axis=0)) ** 2))),
        "chain_lppd": [lppd(chain) for chain in by_chain],
    }
    if len(by_chain[0]) > 1:
        row["r_hat"] = float(kl.diagnostics.r_hat([chain.sum(axis=1) for chain in by_chain]))
    return row


def lppd(density):
    """Mean over the rows of log (1/M) Σ_m p_m, from log p of the shape `(members, rows)`."""
    return float(np.mean(np.logaddexp.reduce(density, axis=0) - np.log(len(density))))


# ------------------------------------------------------------------------------------- the report

REFERENCE = "pSMILE"
STEP_SIZE, REJECTED = "step_size", "rejected"  # in the logs of SMILE


def page(path):
    """Tables of the rows so far, and what a person wrote about them."""
    rows = Results(path).rows
    tuning = [row for row in rows if row["stage"] == "tuning"]
    final = [row for row in rows if row["stage"] == "final"]
    data = list(dict.fromkeys(row["data"] for row in final))
    sections = [
        "# Regression: microcanonical Langevin without tuning",
        setting(final),
        *pages.findings(path),
        "## Test LPPD, higher is better",
        score_table(final, data, "lppd"),
        "## Test RMSE, lower is better",
        score_table(final, data, "rmse"),
        f"## {REFERENCE} less each other method, split by split",
        f"LPPD (above 0: {REFERENCE} is better):",
        difference_table(final, data, "lppd"),
        f"RMSE (below 0: {REFERENCE} is better):",
        difference_table(final, data, "rmse"),
        f"![LPPD of {REFERENCE} less that of each other method]({path.stem}.png)",
        "## How the chains ran",
        chain_table(final, data),
        NOTE if any(OLD in row for row in final) else "",
        tuning_table(tuning, data),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def setting(rows):
    budget = rows[0]
    return f"""\
    KERAS_BACKEND=jax python -m examples.studies.momentum.regression --data-dir DIR \\
        --data airfoil,energy,yacht,bike --results examples/studies/momentum/regression.jsonl

{budget["software"]}; one core, float32. {budget["chains"]} chains; each sampler takes
{budget["steps"]:,} steps of burn-in and as many of sampling in a chain and keeps
{budget["samples"]} samples of each; cSGLD takes the same steps in {CYCLES} cycles and keeps those
of the second halves; MILE takes the same number of full-batch steps, fewer where there are more
than {FULL_BATCH_ROWS:,} rows. Batches of {BATCH_SIZE}. Units are those of the standardised target.
Mean ± standard error over splits."""


def versions():
    backend = keras.backend.backend()
    packages = ("keras", backend, "numpy")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def score_table(rows, data, score):
    body = [
        [method, *(mean_and_error(values(rows, name, method, score).values()) for name in data)]
        for method in METHODS
    ]
    return table(["method", *data], body)


def difference_table(rows, data, score):
    body = [
        [method, *(mean_and_error(differences(rows, name, method, score)) for name in data)]
        for method in METHODS
        if method != REFERENCE
    ]
    return table(["method", *data], body)


def values(rows, name, method, score):
    """By split; NaN where a chain diverged."""
    return {
        row["split"]: row.get(score, np.nan)
        for row in rows
        if (row["data"], row["method"]) == (name, method)
    }


def differences(rows, name, method, score):
    ours, theirs = (values(rows, name, m, score) for m in (REFERENCE, method))
    return [ours[split] - theirs[split] for split in sorted(ours.keys() & theirs.keys())]


def mean_and_error(numbers):
    """`0.123 ± 0.004`; runs that diverged are left out and counted."""
    numbers = np.array(list(numbers))
    there = numbers[np.isfinite(numbers)]
    if not len(there):
        return f"diverged ({len(numbers)})" if len(numbers) else ""
    text = f"{there.mean():.3f}"
    if len(there) > 1:
        text += f" ± {there.std(ddof=1) / len(there) ** 0.5:.3f}"
    return text + (f" ({len(there)} of {len(numbers)})" if len(there) < len(numbers) else "")


def chain_table(rows, data):
    head = ["data", "method", "step size", "LPPD of a chain", "R-hat", "rejected %"]
    head += ["gradients", "CPU seconds", "ms/gradient"]
    body = []
    for name in data:
        for method in METHODS:
            mine = [r for r in rows if (r["data"], r["method"]) == (name, method)]
            mine = [r for r in mine if not r["diverged"]]
            if mine:
                body.append([name, method, *chain_cells(mine)])
    return table(head, body)


def chain_cells(rows):
    """Of a data set and a method: medians over splits and chains, and the range of step sizes."""
    single = f"{np.mean([np.mean(row['chain_lppd']) for row in rows]):.3f}"
    seconds = np.median([row["seconds"] for row in rows])
    if "logs" not in rows[0]:
        return ["", single, "", "", "", f"{seconds:.0f}", ""]
    steps = np.array([row["logs"].get(STEP_SIZE, row["learning_rate"]) for row in rows], float)
    found = f"{np.median(steps):.2g}"
    if rows[0]["learning_rate"] is None:
        found += f" ({steps.min():.2g} to {steps.max():.2g})"
    gradients, chains = rows[0]["gradients"], rows[0]["chains"]
    rejected = [rate for row in rows for rate in row["logs"].get(REJECTED, [])]
    return [
        found,
        single,
        f"{np.median([r_hat_of(row, row['chains'], row['samples']) for row in rows]):.2f}",
        f"{100 * np.median(rejected):.2g}" if rejected else "",
        f"{gradients:,}",
        f"{seconds:.0f}",
        f"{1000 * seconds / gradients / chains:.2f}",
    ]


def tuning_table(rows, data):
    tuned = [method for method, settings in METHODS.items() if settings and settings.rates]
    parts = []
    for method in tuned:
        rates = METHODS[method].rates
        body = []
        for name in data:
            mine = [row for row in rows if (row["data"], row["method"]) == (name, method)]
            found = {row["learning_rate"]: [row.get("lppd", np.nan)] for row in mine}
            if found:
                body.append([name, *(mean_and_error(found.get(rate, [])) for rate in rates)])
        if body:
            parts.append(table([method, *(f"{rate:.0e}" for rate in rates)], body))
    return "\n\n".join(["## Validation LPPD of each rate, split 0", *parts] if parts else [])


def figure(rows, path):
    """Paired differences of LPPD, a dot for each split."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["stage"] == "final"]
    data = list(dict.fromkeys(row["data"] for row in rows))
    methods = [m for m in METHODS if m != REFERENCE]
    canvas, axes = plt.subplots(
        1, len(data), figsize=(3.2 * len(data), 3), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], data, strict=True):
        for place, method in enumerate(methods):
            found = differences(rows, name, method, "lppd")
            axis.plot(found, [place] * len(found), "o", alpha=0.5, color="tab:blue")
            if found:
                axis.plot(np.nanmean(found), place, "|", ms=18, mew=2, color="black")
        axis.axvline(0, color="gray", lw=0.8)
        axis.set(title=name, yticks=range(len(methods)), xlabel="LPPD difference")
        axis.set_yticklabels(methods if axis is axes[0, 0] else [])
        axis.invert_yaxis()
    canvas.savefig(path, dpi=120)
    plt.close(canvas)


if __name__ == "__main__":
    main()
