"""Does batch-normalization preconditioning start faster? SGLD, RMSProp and BNP in a small ResNet.

    python -m examples.studies.bnp.resnet --quick  scikit-learn's digits, a minute or two
    python -m examples.studies.bnp.resnet  the digits with all seeds and rates
    python -m examples.studies.bnp.resnet --data-dir DIR --control  images of CIFAR-10, the page

Lange, Deng, Ye and Lin (2023) claim that SGLD with this metric converges faster at first than SGLD
and than RMSProp-preconditioned SGLD. Here each sampler trains a residual network (three blocks of
8, 16, 32 channels, GroupNormalization, no BatchNormalization) at T = 1 with `FanInNormal(10)`;
plain SGD and `BNPLangevin(temperature=0)` do so without noise.

Learning rates, the same number for each: four of ratio √10, seed 100, the lowest training loss
after three epochs; where the best is the largest or smallest tried, up to two more beyond it. Then
three seeds of six epochs, whose initial weights and order of images are the same for all methods.
The processor time of an epoch is measured with all methods in turn. `--control` repeats SGD and
the samplers in the network without normalization.

Each run appends a line to the results file; what is in it is not run again, so the same command
goes on where it stopped.
"""

import argparse
import functools
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_langevin as kl
from examples.studies.common import pages
from examples.studies.common.results import Results
from examples.studies.common.tables import table

matplotlib.use("Agg")  # files, no window

import matplotlib.pyplot as plt

BATCH = 128
TUNING_SEED, TUNING_EPOCHS = 100, 3
GROUPED, PLAIN = "GroupNormalization", "no normalization"
SHOWN = (1, 2, 3, 6)  # epochs in the tables
SGD, BNP, PAPER = "SGD", "BNP", "BNP, prior not in metric"  # BNP is the default
PAPER_EPSILON, PAPER_COLD = f"{PAPER}, ε₁ = 0.01", f"{PAPER}, T = 0"

PRIOR = kl.priors.FanInNormal(10.0)


def bnp(**arguments):
    return lambda rate, n: kl.BNPLangevin(rate, num_data=n, prior=PRIOR, seed=1, **arguments)


# The optimizer of a rate and N, and the four rates as half decades: 10^(k/2).
METHODS = {
    SGD: (lambda rate, n: keras.optimizers.SGD(rate), (-3, -2, -1, 0)),
    "SGLD": (lambda rate, n: kl.SGLD(rate, num_data=n, prior=PRIOR, seed=1), (-3, -2, -1, 0)),
    "RMSProp": (
        lambda rate, n: kl.RMSPropLangevin(rate, num_data=n, prior=PRIOR, seed=1),
        (-7, -6, -5, -4),
    ),
    BNP: (bnp(), (-3, -2, -1, 0)),
    PAPER: (bnp(prior_in_metric=False), (-3, -2, -1, 0)),
    PAPER_EPSILON: (bnp(prior_in_metric=False, relative_epsilon=1e-2), (-3, -2, -1, 0)),
    PAPER_COLD: (bnp(prior_in_metric=False, temperature=0), (-3, -2, -1, 0)),
}
IN_CONTROL = (SGD, "SGLD", "RMSProp", BNP, PAPER)


def main():
    options = arguments()
    results = Results(options.results)
    if not options.report:
        images = load(options.data_dir, options.examples)
        trainer = functools.cache(functools.partial(Trainer, train=images[0]))
        for method in METHODS:
            study(GROUPED, method, trainer, images, options, results)
        measure_time(trainer, options, results)
        for method in IN_CONTROL if options.control else ():
            study(PLAIN, method, trainer, images, options, results)
    print(report(results.rows))
    pages.write(page, results.path)
    figure(results.rows, options.results.with_suffix(".png"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="folder with cifar10_subset/")
    parser.add_argument("--examples", type=int, default=5000, help="training images at most")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--control", action="store_true", help="also without normalization")
    parser.add_argument("--quick", action="store_true", help="two rates, one seed, three epochs")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.epochs = 1, 3
    if options.results is None:
        data = "cifar10" if options.data_dir else "digits"
        speed = "_quick" if options.quick else ""
        options.results = Path(f"demo_output/bnp_resnet_{data}{speed}.jsonl")
    return options


# --------------------------------------------------------------------------------- data, network


def load(folder, examples):
    """Training and test images, channels last, standardized by the training images, and labels.
    A whole number of batches, so that all steps are alike."""
    if folder is None:
        digits = load_digits()
        x_train, x_test, y_train, y_test = train_test_split(
            digits.images[..., None], digits.target, test_size=0.4, random_state=0
        )
    else:
        with np.load(folder / "cifar10_subset" / "cifar10_subset.npz") as arrays:
            names = ("x_train", "x_test", "y_train", "y_test")
            x_train, x_test, y_train, y_test = (arrays[name] for name in names)
    count = min(examples, len(x_train)) // BATCH * BATCH
    x_train, y_train = x_train[:count].astype("float32"), y_train[:count].ravel()
    mean, spread = x_train.mean(axis=(0, 1, 2)), x_train.std(axis=(0, 1, 2))
    train = (x_train - mean) / spread, y_train
    return train, ((x_test.astype("float32") - mean) / spread, y_test.ravel())


def residual_network(shape, kind, widths=(8, 16, 32)):
    """A convolution, three residual blocks, a mean over the image and a Dense layer: ResNet-8. The
    first convolution halves larger images, which makes a step three times cheaper."""

    def convolution(x, width, size=3, strides=1):
        return keras.layers.Conv2D(width, size, strides, padding="same")(x)

    def normalized(x):
        if kind == PLAIN:
            return x
        return keras.layers.GroupNormalization(groups=x.shape[-1] // 4)(x)

    inputs = keras.Input(shape)
    strides = 2 if shape[0] > 16 else 1
    x = keras.layers.ReLU()(normalized(convolution(inputs, widths[0], strides=strides)))
    for index, width in enumerate(widths):
        strides = 2 if index else 1
        y = keras.layers.ReLU()(normalized(convolution(x, width, strides=strides)))
        y = normalized(convolution(y, width))
        if index:
            x = convolution(x, width, size=1, strides=strides)
        x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def compiled(shape, kind, optimizer, metrics=()):
    model = residual_network(shape, kind)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=list(metrics),
        jit_compile=keras.backend.backend() != "torch",
    )
    return model


# -------------------------------------------------------------------------------------- training


class Trainer:
    """One compiled step for all runs of a method: weights, statistics, the optimizer's state and
    the rate are put back before each."""

    def __init__(self, kind, method, train):
        self.kind, self.train = kind, train
        optimizer = METHODS[method][0](0.1, len(train[0]))
        self.model = compiled(train[0].shape[1:], kind, optimizer)
        kl.track_statistics(self.model, optimizer)
        optimizer.build(self.model.trainable_variables)
        # The statistics of inputs are variables of the tracked model, and no weights of it.
        self.state = [*self.model.trainable_variables, *optimizer.variables]
        self.fresh = [keras.ops.convert_to_numpy(v) for v in self.state]

    def start(self, rate, seed):
        """Noise is a function of the optimizer's seed and the count of steps, which begins at
        another million for each seed."""
        keras.utils.set_random_seed(seed)
        for variable, value in zip(self.state, self.fresh, strict=True):
            variable.assign(value)
        network = residual_network(self.train[0].shape[1:], self.kind)
        self.model.set_weights(network.get_weights())
        optimizer = self.model.optimizer
        optimizer.learning_rate = rate
        optimizer.iterations.assign(1_000_000 * seed)

    def epoch(self, batches=None):
        count = None if batches is None else BATCH * batches
        x, y = (a[:count] for a in self.train)
        self.model.fit(x, y, BATCH, 1, verbose=0)


@functools.cache
def scorer(shape, kind):
    """A network that evaluates the weights of others, compiled once."""
    return compiled(shape, kind, keras.optimizers.SGD(0.0), ["accuracy"])


def scores(trainer, images):
    """Training loss, test loss and test accuracy of the present weights."""
    judge = scorer(images[0][0].shape[1:], trainer.kind)
    judge.set_weights(trainer.model.get_weights())
    (train_loss, _), (test_loss, accuracy) = (
        judge.evaluate(*part, batch_size=BATCH * 8, verbose=0) for part in images
    )
    return train_loss, test_loss, accuracy


def train(trainer, rate, seed, epochs, images):
    """The scores before and after every epoch, None where they are not finite; of a run for
    tuning those at the end alone."""
    trainer.start(rate, seed)
    path = [] if seed == TUNING_SEED else [scores(trainer, images)]
    for epoch in range(epochs):
        trainer.epoch()
        if seed != TUNING_SEED or epoch == epochs - 1:
            path.append(scores(trainer, images))
    names = ("train_loss", "test_loss", "test_accuracy")
    return {
        name: [float(f"{v:.6g}") if np.isfinite(v) else None for v in values]
        for name, values in zip(names, zip(*path, strict=True), strict=True)
    }


def rate_of(half_decades):
    return float(f"{10 ** (half_decades / 2):.2g}")


def study(network, method, trainer, images, options, results):
    """Tunes the rate, then runs the reported seeds."""

    def run(rate, seed, epochs):
        key = {"network": network, "method": method, "rate": rate, "seed": seed, "epochs": epochs}
        key["examples"] = len(images[0][0])
        return results.run(
            lambda: train(trainer(network, method), rate, seed, epochs, images), **key
        )

    def loss(k):
        final = run(rate_of(k), TUNING_SEED, TUNING_EPOCHS)["train_loss"][-1]
        return np.inf if final is None else final

    grid = METHODS[method][1]
    rate = rate_of(best(loss, grid[1:3] if options.quick else grid, not options.quick))
    for seed in range(options.seeds):
        run(rate, seed, options.epochs)


def best(loss, grid, extend):
    """The best half decade; up to two more where it is at the edge."""
    tried = {k: loss(k) for k in grid}
    for _ in range(2 if extend else 0):
        k = min(tried, key=tried.get)
        if min(tried) < k < max(tried):
            break
        beyond = k - 1 if k == min(tried) else k + 1
        tried[beyond] = loss(beyond)
    return min(tried, key=tried.get)


def measure_time(trainer, options, results):
    """Processor seconds of an epoch, all methods in turn, five rounds (two if `--quick`)."""
    missing = [m for m in METHODS if not results.find(network=GROUPED, method=m, kind="time")]
    if not missing:
        return
    trainers = {method: trainer(GROUPED, method) for method in METHODS}
    for each in trainers.values():
        each.start(1e-6, seed=0)
        each.epoch(batches=2)  # compiles
    seconds = {method: [] for method in METHODS}
    for _ in range(2 if options.quick else 5):
        for method, each in trainers.items():
            start = time.process_time()
            each.epoch()
            seconds[method].append(round(time.process_time() - start, 3))
    for method, values in seconds.items():
        results.add({"kind": "time", "network": GROUPED, "method": method, "seconds": values})


# ---------------------------------------------------------------------------------------- report


def final_runs(rows, network, method, name):
    """(seeds, epochs + 1), infinite where a run was lost."""
    mine = [
        r
        for r in rows
        if r["network"] == network and r["method"] == method and r.get("seed", 100) != TUNING_SEED
    ]
    values = [row[name] for row in sorted(mine, key=lambda row: row["seed"])]
    return np.array([[np.nan if v is None else v for v in row] for row in values], float)


def mean_and_error(values, digits=3):
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}"


def page(path):
    return pages.with_tables(path, {"all": report(Results(path).rows)})


def report(rows):
    """Markdown: for each network the path of the scores, what BNP leads by, the tuning; the time
    of an epoch."""
    parts = []
    for network in dict.fromkeys(row["network"] for row in rows):
        parts.append(f"## {network}")
        for title, name, factor, digits in (
            ("Training loss, nats", "train_loss", 1, 3),
            ("Test accuracy, %", "test_accuracy", 100, 1),
            ("Test NLL, nats", "test_loss", 1, 3),
        ):
            parts += [f"{title}:", score_table(rows, network, name, factor, digits)]
        parts += ["Training loss of BNP less that of", lead_table(rows, network)]
        parts += ["Tuning, training loss after three epochs, seed 100:", tuning(rows, network)]
    return "\n\n".join([*parts, "## Processor time of an epoch", time_table(rows), ""])


def methods_in(rows, network):
    there = {r["method"] for r in rows if r["network"] == network and r.get("seed", 100) < 100}
    return [method for method in METHODS if method in there]


def score_table(rows, network, name, factor, digits):
    methods = methods_in(rows, network)
    runs = {method: factor * final_runs(rows, network, method, name) for method in methods}
    epochs = [e for e in SHOWN if e < min((r.shape[1] for r in runs.values()), default=0)]
    lines = [["after epoch", *epochs]]
    for method, values in runs.items():
        lines.append([method, *(mean_and_error(values[:, e], digits) for e in epochs)])
    return table(lines[0], lines[1:])


def lead_table(rows, network):
    """Seed by seed; negative where BNP is lower."""
    runs = {m: final_runs(rows, network, m, "train_loss") for m in methods_in(rows, network)}
    if BNP not in runs:
        return ""
    lines = [["after epoch", *(e for e in SHOWN if e < runs[BNP].shape[1])]]
    for method, values in runs.items():
        if method != BNP and len(values) == len(runs[BNP]):
            gaps = runs[BNP] - values
            lines.append([method, *(mean_and_error(gaps[:, e]) for e in lines[0][1:])])
    return table(lines[0], lines[1:])


def tuning(rows, network):
    mine = [r for r in rows if r["network"] == network and r.get("seed") == TUNING_SEED]
    lines = [["method", "rate: loss", "chosen"]]
    for method in (m for m in METHODS if m in {row["method"] for row in mine}):
        tried = {r["rate"]: r["train_loss"][-1] for r in mine if r["method"] == method}
        losses = {k: np.inf if v is None else v for k, v in sorted(tried.items())}
        cells = [f"{k:g}: {v:.3g}" if np.isfinite(v) else f"{k:g}: lost" for k, v in losses.items()]
        lines.append([method, ", ".join(cells), f"{min(losses, key=losses.get):g}"])
    return table(lines[0], lines[1:])


def time_table(rows):
    seconds = {r["method"]: np.array(r["seconds"]) for r in rows if r.get("kind") == "time"}
    lines = [["method", "seconds, median", "ratio to SGD"]]
    for method, values in seconds.items():
        ratios = values / seconds[SGD]
        lines.append([method, f"{np.median(values):.2f}", f"{np.median(ratios):.2f}"])
    return table(lines[0], lines[1:])


def figure(rows, path):
    """Training loss and test accuracy against epochs, mean and band of one standard error."""
    networks = [n for n in (GROUPED, PLAIN) if methods_in(rows, n)]
    if not networks:
        return
    panels = [("train_loss", 1, "training loss, nats"), ("test_accuracy", 100, "test accuracy, %")]
    size = (9, 3.6 * len(networks))
    _, axes = plt.subplots(len(networks), 2, figsize=size, squeeze=False, layout="constrained")
    for row, network in zip(axes, networks, strict=True):
        for axis, (name, factor, label) in zip(row, panels, strict=True):
            for method in methods_in(rows, network):
                draw(axis, factor * final_runs(rows, network, method, name), method)
            axis.set(xlabel="epoch", ylabel=label, title=network)
            axis.grid(alpha=0.3)
        row[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(path, dpi=110)


def draw(axis, runs, method):
    mean, epochs = runs.mean(axis=0), np.arange(runs.shape[1])
    error = runs.std(axis=0, ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else 0 * mean
    style = "--" if method in (SGD, PAPER_COLD) else "-"
    color = f"C{list(METHODS).index(method)}"
    axis.plot(epochs, mean, style, color=color, label=method, marker="o", markersize=3)
    axis.fill_between(epochs, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)


if __name__ == "__main__":
    main()
