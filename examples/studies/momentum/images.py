"""Image classifiers around four warm starts: microcanonical Langevin, SGHMC, cyclical SGLD.

    python -m examples.studies.momentum.images  digits, a minute
    python -m examples.studies.momentum.images --problem lenet --data-dir DIR  Fashion-MNIST
    python -m examples.studies.momentum.images --problem resnet7 --data-dir DIR  a part of CIFAR-10
    python -m examples.studies.momentum.images --results R.jsonl --report  the page of the rows

All methods begin with the same four warm starts: AdamW on one order of the images and one set of
initial weights each, stopped early by the validation images. The deep ensemble is those four.
Samplers run one chain from each, at T = 1, with the package's default prior:

- pSMILE and SMILE, which tune their step size during burn-in, otherwise with all defaults;
- SGHMC and cSGLD: step sizes of a small grid, the one of the lowest validation NLL on chain 0,
  which for this runs half as long.

Every sampler takes as many gradients. Scores are those of the mean probabilities, of each chain
by itself and of all four together; ECE has 15 bins of the most probable class.

Warm starts are kept in files. Each run appends a line to the results file; what is in it is not
run again.
"""

import argparse
import dataclasses
import functools
import gzip
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers, ops

import keras_langevin as kl
from examples.studies.common import pages
from examples.studies.common.r_hat import NOTE, OLD, r_hat_of
from examples.studies.common.results import Results
from examples.studies.common.tables import table
from examples.studies.momentum.warm_starts import (
    JIT,
    LOSS,
    fit_until_it_stops,
    load_weights,
)

PROBES = 200  # test images whose log-likelihood R-hat looks at


@dataclasses.dataclass(frozen=True)
class Budget:
    """Chains; epochs of a warm start at most; of a chain steps of burn-in, of sampling, and from
    one sample to the next; cycles of cSGLD, which samples in half of the steps; ε of the first
    step of SMILE."""

    chains: int
    epochs: int
    patience: int
    batch_size: int
    burn_in: int
    steps: int
    thinning: int
    cycles: int
    first_step: float = 1e-3  # the default

    @property
    def all_steps(self):
        return self.burn_in + self.steps

    def for_tuning(self):
        """One chain of half the steps."""
        halves = {name: getattr(self, name) // 2 for name in ("burn_in", "steps", "cycles")}
        return dataclasses.replace(self, chains=1, **halves)


@dataclasses.dataclass(frozen=True)
class Method:
    """A sampler; `rates` are those to choose from, none for a sampler that finds its own."""

    optimizer: callable
    rates: tuple = ()
    is_cyclical: bool = False
    has_first_step: bool = False


METHODS = {
    "deep ensemble": None,
    "pSMILE": Method(kl.SMILE, has_first_step=True),
    "SMILE": Method(functools.partial(kl.SMILE, preconditioned=False), has_first_step=True),
    "SGHMC": Method(kl.SGHMC, rates=(1e-4, 1e-3, 1e-2)),
    "cSGLD": Method(kl.SGLD, rates=(1e-3, 1e-2, 1e-1), is_cyclical=True),
}


def main():
    options = arguments()
    results = Results(options.results)
    if not options.report:
        problem = PROBLEMS[options.problem](options)
        study(problem, options, results)
    pages.write(page, options.results)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problem", choices=PROBLEMS, default="digits")
    parser.add_argument("--data-dir", type=Path, help="with fashion_mnist/ and cifar10_subset/")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--warm-start-only", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("demo_output/momentum_images.jsonl"))
    parser.add_argument("--weights-dir", type=Path, default=Path("demo_output"), help="warm starts")
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.methods = options.methods.split(",")
    if set(options.methods) - set(METHODS):
        parser.error(f"unknown: {', '.join(sorted(set(options.methods) - set(METHODS)))}")
    if options.data_dir is None and not options.report and options.problem != "digits":
        parser.error("--data-dir is needed, except for the digits and with --report")
    return options


def study(problem, options, results):
    starts = [warm_start(problem, chain, results) for chain in range(problem.budget.chains)]
    for method in [] if options.warm_start_only else options.methods:
        rate = None
        if METHODS[method] and METHODS[method].rates:
            rate = tuned_rate(problem, method, starts, results)
        run("final", problem, method, rate, problem.budget, starts, results)


def tuned_rate(problem, method, starts, results):
    """The rate of the lowest validation NLL of chain 0."""
    budget = problem.budget.for_tuning()
    rows = {
        rate: run("tuning", problem, method, rate, budget, starts, results)
        for rate in METHODS[method].rates
    }
    return min(rows, key=lambda rate: np.inf if rows[rate]["diverged"] else rows[rate]["nll"])


def run(stage, problem, method, rate, budget, starts, results):
    key = {"stage": stage, "problem": problem.name, "method": method, "learning_rate": rate}
    key |= dataclasses.asdict(budget)
    return results.run(measured, stage, problem, method, rate, budget, starts, **key)


# ------------------------------------------------------------------------------ data and networks


class Problem:
    """Images `(examples, height, width, channels)`, standardised by the training images, with
    their labels, as `train`, `validation` and `test`; the network and the budget."""

    def __init__(self, name, network, budget, folder, train, validation, test):
        self.name, self.network, self.budget, self.folder = name, network, budget, folder
        mean, stddev = train[0].mean(axis=(0, 1, 2)), train[0].std(axis=(0, 1, 2))
        self.train, self.validation, self.test = (
            (((x - mean) / stddev).astype("float32"), y.astype("int32"))
            for x, y in (train, validation, test)
        )
        self.model = network(train[0].shape[1:])


def digits(options):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1)
    parts = (x[:900], y[:900]), (x[900:1200], y[900:1200]), (x[1200:], y[1200:])
    network = functools.partial(lenet, kernel_size=3)
    return Problem(
        "digits", network, Budget(2, 40, 3, 64, 200, 80, 10, 2), options.weights_dir, *parts
    )


def fashion_mnist(options):
    (x, y), test = (idx_files(options.data_dir / "fashion_mnist", n) for n in ("train", "t10k"))
    parts = (x[:55_000], y[:55_000]), (x[55_000:], y[55_000:]), test
    budget = Budget(4, 6, 2, 128, 600, 600, 40, 2)
    return Problem("LeNet, Fashion-MNIST", lenet, budget, options.weights_dir, *parts)


def idx_files(folder, name):
    images, labels = (
        gzip.decompress((folder / f"{name}-{kind}-ubyte.gz").read_bytes())
        for kind in ("images-idx3", "labels-idx1")
    )
    x = np.frombuffer(images, "uint8", offset=16).reshape(-1, 28, 28, 1)
    return x.astype("float32"), np.frombuffer(labels, "uint8", offset=8)


def cifar10_part(options):
    with np.load(options.data_dir / "cifar10_subset" / "cifar10_subset.npz") as arrays:
        parts = [
            (arrays[f"x_{name}"].astype("float32"), arrays[f"y_{name}"].ravel())
            for name in ("train", "val", "test")
        ]
    budget = Budget(4, 4, 2, 100, 60, 60, 15, 2, first_step=0.01)
    return Problem("ResNet-7, part of CIFAR-10", resnet7, budget, options.weights_dir, *parts)


PROBLEMS = {"digits": digits, "lenet": fashion_mnist, "resnet7": cifar10_part}


def lenet(shape, kernel_size=5):
    """LeCun et al.'s with gelu; 61,706 weights for 28 by 28 pixels."""
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(6, kernel_size, padding="same", activation="gelu"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, kernel_size, activation="gelu"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="gelu"),
            layers.Dense(84, activation="gelu"),
            layers.Dense(10),
        ]
    )


class FilterResponse(layers.Layer):
    """Filter response normalization and the thresholded linear unit (Singh and Krishnan 2020):
    max(γ x / √(ν² + |ε|) + β, τ), ν² the mean of x² over an image's pixels, channel by channel.
    """

    def build(self, input_shape):
        channels = input_shape[-1:]
        epsilon = keras.initializers.Constant(1e-6)
        self.epsilon = self.add_weight(shape=(1,), initializer=epsilon, name="epsilon")
        self.gamma = self.add_weight(shape=channels, initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=channels, initializer="zeros", name="beta")
        self.tau = self.add_weight(shape=channels, initializer="zeros", name="tau")

    def call(self, inputs):
        square = ops.mean(ops.square(inputs), axis=(1, 2), keepdims=True)
        scale = self.gamma * ops.rsqrt(square + ops.abs(self.epsilon))
        return ops.maximum(inputs * scale + self.beta, self.tau)


def resnet7(shape):
    """Sommer et al.'s: six convolutions, the last one residual, and a Dense layer; 428,272
    weights."""

    def convolved(x, channels):
        return FilterResponse()(layers.Conv2D(channels, 3, padding="same")(x))

    inputs = keras.Input(shape)
    x = layers.MaxPooling2D(2)(convolved(convolved(inputs, 32), 64))
    x = layers.MaxPooling2D(2)(convolved(convolved(x, 64), 128))
    x = layers.MaxPooling2D(2)(convolved(x, 128))
    x = layers.Add()([x, convolved(x, 128)])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


# ------------------------------------------------------------------------------------ the methods


def warm_start(problem, chain, results):
    """The weights of a chain's warm start: from its file, or trained now."""
    name = "".join(c if c.isalnum() else "_" for c in problem.name)
    path = problem.folder / f"momentum_images_{name}_{chain}.weights.h5"
    key = {"stage": "warm start", "problem": problem.name, "chain": chain}
    key |= {k: v for k, v in dataclasses.asdict(problem.budget).items() if k in TRAINING}
    results.run(trained, problem, chain, path, **key)
    return load_weights(problem.model, path)


TRAINING = ("epochs", "patience", "batch_size")


def trained(problem, chain, path):
    """Saves the weights of the lowest validation loss."""
    start, model, budget = time.process_time(), problem.model, problem.budget
    keras.utils.set_random_seed(chain)
    model.set_weights(problem.network(problem.train[0].shape[1:]).get_weights())
    adamw = keras.optimizers.AdamW(1e-3, weight_decay=0.02)
    facts = fit_until_it_stops(
        model, problem.train, problem.validation, adamw, budget, budget.patience, path
    )
    seconds = time.process_time() - start
    return {"num_data": len(problem.train[0])} | facts | {"seconds": seconds}


def measured(stage, problem, method, rate, budget, starts):
    """What a row says of one method, on validation images when a rate is to be chosen."""
    start = time.process_time()
    if METHODS[method] is None:
        chains = range(len(starts))
        ensemble = kl.BayesianEnsembleModel(problem.model, starts, "logits", chains=chains)
        facts = {}
    else:
        try:
            ensemble, facts = sampled(problem, method, rate, budget, starts)
        except kl.ChainError as error:
            if not all(isinstance(e, FloatingPointError) for e in error.errors.values()):
                raise
            return {"diverged": True, "seconds": time.process_time() - start}
    seconds = time.process_time() - start
    part = problem.validation if stage == "tuning" else problem.test
    row = {"diverged": False} | scores(ensemble, *part)
    return row | facts | {"sampling_seconds": seconds, "seconds": time.process_time() - start}


def sampled(problem, method, rate, budget, starts):
    """The ensemble of all chains, and what the sampler logged last of each."""
    logs = []

    def train(chain):
        model = problem.model
        model.set_weights(starts[chain])
        model.compile(optimizer(problem, method, rate, budget, chain), LOSS, jit_compile=JIT)
        burn_in = 0 if METHODS[method].is_cyclical else budget.burn_in
        sampler = kl.PosteriorSampler(burn_in, budget.thinning, unit="step", chain=chain)
        batches = kl.RandomBatches(
            *problem.train, budget.batch_size, batches_per_epoch=budget.all_steps, seed=chain
        )
        history = model.fit(batches, callbacks=[sampler], verbose=0)
        logs.append({name: values[-1] for name, values in history.history.items()})
        return sampler

    ensemble = kl.sample_chains(train, budget.chains, verbose=0)
    return ensemble, {"logs": {name: [log[name] for log in logs] for name in logs[0]}}


def optimizer(problem, method, rate, budget, chain):
    """The noise is a function of the seed, and so of the chain."""
    settings = {"num_data": len(problem.train[0]), "seed": chain + 1}
    if METHODS[method].is_cyclical:
        rate = kl.schedules.CyclicalCosine(rate, budget.all_steps // budget.cycles)
    if METHODS[method].has_first_step:
        rate = budget.first_step
    return METHODS[method].optimizer(learning_rate=rate, **settings)


def scores(ensemble, x, y):
    """Of all members together, and of each chain; R-hat of the log-likelihood of some images."""
    members = ensemble.predict_members(x, batch_size=200, verbose=0)
    by_chain = ensemble.split_chains(members)
    row = metrics(members, y) | {"members": len(members)}
    alone = [metrics(chain, y) for chain in by_chain]
    row |= {f"chain_{name}": [chain[name] for chain in alone] for name in alone[0]}
    if len(by_chain) > 1 and len(by_chain[0]) > 3:
        row["r_hat"] = float(kl.diagnostics.r_hat([probe(c, y) for c in by_chain]))
    return row


def metrics(members, y):
    probabilities = members.astype("float64").mean(axis=0)
    return {
        "nll": kl.calibration.negative_log_likelihood(probabilities, y),
        "accuracy": kl.calibration.accuracy(probabilities, y),
        "ece": kl.calibration.expected_calibration_error(probabilities, y),
    }


def probe(members, y):
    """Log-likelihood of the first images by each member, `(members,)`."""
    y = y[:PROBES]
    return np.log(members[:, np.arange(len(y)), y] + 1e-30).sum(axis=1)


# ------------------------------------------------------------------------------------- the report


def page(path):
    """Tables of the rows so far, and what a person wrote about them."""
    rows = Results(path).rows
    sections = ["# Image classifiers: samplers around four warm starts", *pages.findings(path)]
    for name in dict.fromkeys(row["problem"] for row in rows):
        sections += problem_sections([row for row in rows if row["problem"] == name], name)
    return "\n\n".join(sections) + "\n"


def problem_sections(rows, name):
    warm, tuning, final = (
        [row for row in rows if row["stage"] == stage]
        for stage in ("warm start", "tuning", "final")
    )
    sections = [f"## {name}", setting(warm, final)]
    if final:
        sections += ["All chains together, test images:", ensemble_table(final)]
        sections += ["One chain, mean ± standard error over the chains:", chain_table(final)]
        sections += ["How the chains ran, median over chains:", running_table(final)]
        sections += [NOTE] if any(OLD in row for row in final) else []
    if tuning:
        sections += ["Validation NLL of the rates on chain 0:", tuning_table(tuning)]
    return sections


def setting(warm, final):
    epochs = [len(row["train_loss"]) for row in warm]
    best = [1 + int(np.argmin(row["validation_loss"])) for row in warm]
    text = f"""\
{warm[0]["software"]}
{warm[0]["num_weights"]:,} weights, N = {warm[0]["num_data"]:,} training images, batches of
{warm[0]["batch_size"]}. Warm starts: {len(warm)}, best epochs {listed(best)} of
{listed(epochs)}, {sum(row["seconds"] for row in warm) / 60:.1f} minutes of processor together."""
    if final:
        row = final[0]
        text += f""" Samplers
take {row["burn_in"]:,} steps of burn-in and {row["steps"]:,} of sampling,
{row["steps"] // row["thinning"]} samples a chain; cSGLD as many in {row["cycles"]} cycles, of which
it keeps samples of the second halves. First step of pSMILE and SMILE: ε = {row["first_step"]:g}."""
    return text


def listed(numbers):
    return ", ".join(map(str, numbers))


def ensemble_table(rows):
    head = ["method", "members", "NLL", "accuracy, %", "ECE, %"]
    lines = []
    for row in rows:
        if row["diverged"]:
            lines.append(lost(row, head))
            continue
        percents = (f"{100 * row[name]:.2f}" for name in ("accuracy", "ece"))
        lines.append([row["method"], row["members"], f"{row['nll']:.4f}", *percents])
    return table(head, lines)


def lost(row, head):
    return [row["method"], "diverged", *[""] * (len(head) - 2)]


def chain_table(rows):
    head = ["method", "NLL", "accuracy, %", "ECE, %"]
    lines = []
    for row in rows:
        if row["diverged"]:
            lines.append(lost(row, head))
            continue
        nll, accuracy, ece = (row[f"chain_{name}"] for name in ("nll", "accuracy", "ece"))
        percents = (mean_and_error(100 * np.array(values), 2) for values in (accuracy, ece))
        lines.append([row["method"], mean_and_error(nll, 4), *percents])
    return table(head, lines)


def mean_and_error(values, digits):
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}"


def running_table(rows):
    head = ["method", "rate", "step size", "energy error", "taken back, %"]
    head += ["kinetic temperature", "training loss", "R-hat", "minutes"]
    lines = []
    for row in rows:
        if row["diverged"] or "logs" not in row:
            continue
        logs = {name: np.median(values) for name, values in row["logs"].items()}
        lines.append(
            [
                row["method"],
                "" if row["learning_rate"] is None else f"{row['learning_rate']:g}",
                *(shown(logs.get(name), 3) for name in ("step_size", "energy_error")),
                shown(100 * logs["rejected"] if "rejected" in logs else None, 2),
                *(shown(logs.get(name), 3) for name in ("kinetic_temperature", "loss")),
                shown(r_hat_of(row, row["chains"], row["steps"] // row["thinning"]), 3),
                f"{row['seconds'] / 60:.1f}",
            ]
        )
    return table(head, lines)


def shown(value, digits):
    return "" if value is None else f"{value:.{digits}g}"


def tuning_table(rows):
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        found = {r["learning_rate"]: np.inf if r["diverged"] else r["nll"] for r in mine}
        tried = ", ".join(f"{k:g}: {v:.4f}" for k, v in sorted(found.items()))
        lines.append([method, tried, f"{min(found, key=found.get):g}"])
    return table(["method", "rate: NLL", "chosen"], lines)


if __name__ == "__main__":
    main()
