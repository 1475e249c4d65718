"""By how many decades may the step size be off? Samplers of a small GPT around one warm start.

    python -m examples.studies.momentum.language  generated sentences, no data needed
    python -m examples.studies.momentum.language --data-dir DIR  tiny Shakespeare
    python -m examples.studies.momentum.language --quick  a minute
    python -m examples.studies.momentum.language --results R.jsonl --report  the page of the rows

A decoder-only transformer over characters, prior N(0, 0.3²) on every weight, T = 1. It is trained
once by AdamW, stopped early by the validation text. From there every method runs short chains with
nine step sizes, half a decade apart, and predicts the test text with the average of its samples'
probabilities. The perplexity, exp of the mean negative log likelihood of a character, is compared
with that of the warm start.

The loss is a mean over characters, and each counts as one independent observation: N is the number
of characters of the training text. The text is cut into windows of the context's length, so every
window begins without context, in training and in tests alike.

Each run appends a line to the results file; what is in it is not run again.
"""

import argparse
import dataclasses
import functools
import os
import random
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers, ops

import keras_langevin as kl
from examples.studies.common import pages
from examples.studies.common.results import Results
from examples.studies.common.tables import table
from examples.studies.momentum.warm_starts import (
    JIT,
    LOSS,
    fit_until_it_stops,
    load_weights,
)

PRIOR = kl.priors.Normal(0.3)
LOST = 100.0  # nats: of a chain that diverged without a NaN


@dataclasses.dataclass(frozen=True)
class Size:
    """Of the network, of the training and of the chains (in steps)."""

    blocks: int = 2
    width: int = 64
    heads: int = 4
    context: int = 64
    batch_size: int = 32
    epochs: int = 15
    burn_in: int = 200
    steps: int = 300
    thinning: int = 15
    test_windows: int = 400


QUICK = Size(1, 16, 2, 16, 32, 3, 20, 40, 10, 50)
CHAIN = ("burn_in", "steps", "thinning")  # what the warm start does not depend on


@dataclasses.dataclass(frozen=True)
class Method:
    """A sampler and the smallest of its nine step sizes, 10^(`decade`)."""

    optimizer: callable
    decade: float
    panel: str


DISTANCE, RATE = "step size ε: distance moved per step", "learning rate"
SMILE = functools.partial(kl.SMILE, preconditioned=False)
METHODS = {
    "pSMILE": Method(kl.SMILE, -3, DISTANCE),
    "SMILE": Method(SMILE, -3, DISTANCE),
    "pSMILE, no tuner": Method(functools.partial(kl.SMILE, tuner=None), -3, DISTANCE),
    "SMILE, no tuner": Method(functools.partial(SMILE, tuner=None), -3, DISTANCE),
    "SGHMC": Method(kl.SGHMC, -4.5, RATE),
    "SGLD": Method(kl.SGLD, -3.5, RATE),
}


def main():
    options = arguments()
    results = Results(options.results)
    if not options.report:
        text = Text(options.data_dir, options.size)
        study(text, options, results)
    pages.write(page, options.results)
    warm, runs = parts(results.rows)
    if runs:
        figure(runs, warm, options.results.with_suffix(".png"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="folder with tiny_shakespeare/")
    parser.add_argument("--methods", help="of: " + "; ".join(METHODS), default=";".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tiny network, three step sizes")
    parser.add_argument("--warm-start-only", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("demo_output/momentum_language.jsonl"))
    parser.add_argument("--weights-dir", type=Path, default=Path("demo_output"), help="warm start")
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.methods = options.methods.split(";")
    if set(options.methods) - set(METHODS):
        parser.error(f"unknown: {', '.join(sorted(set(options.methods) - set(METHODS)))}")
    options.size = QUICK if options.quick else Size()
    if options.quick:
        options.seeds = 1
    return options


def study(text, options, results):
    """The seeds one after the other, so that the whole figure is there after the first."""
    model = network(len(text.characters), options.size)
    key = {"data": text.name} | dataclasses.asdict(options.size)
    training = {name: value for name, value in key.items() if name not in CHAIN}
    name = text.name.replace(" ", "_") + ("_quick" if options.quick else "")
    path = options.weights_dir / f"momentum_language_{name}.weights.h5"
    results.run(warm_start, model, text, options.size, path, **training, method="warm start")
    start = load_weights(model, path)
    if options.warm_start_only:
        return
    for seed in range(options.seeds):
        for method in options.methods:
            # Traced for the first run, started again for the others.
            chain = functools.cache(lambda m=method, s=seed: Chain(model, text, m, s, options.size))
            for rate in step_sizes(method, options.quick):
                results.run(
                    lambda r, chain=chain: chain().run(start, r),
                    rate,
                    **key | {"method": method, "seed": seed, "step_size": rate},
                )


def step_sizes(method, is_quick=False):
    halves = (0, 4, 8) if is_quick else range(9)
    return [float(f"{10 ** (METHODS[method].decade + half / 2):.2g}") for half in halves]


# --------------------------------------------------------------------------------------- the text


class Text:
    """Windows of characters, `(x, y)` with y the next character at each place of x.

    Of the text 85 per cent train, 5 validate and the last 10 are for tests.
    """

    def __init__(self, folder, size):
        self.name = "grammar" if folder is None else "tiny Shakespeare"
        text = grammar_text() if folder is None else shakespeare(folder)
        self.characters, numbers = np.unique(list(text), return_inverse=True)
        first, second = int(0.85 * len(numbers)), int(0.9 * len(numbers))
        self.train = windows(numbers[:first], size.context)
        self.validation = windows(numbers[first:second], size.context)
        test = windows(numbers[second:], size.context)
        self.test = tuple(part[: size.test_windows] for part in test)

    @property
    def num_data(self):
        return self.train[1].size


def windows(numbers, length):
    count = (len(numbers) - 1) // length
    x, y = numbers[: count * length], numbers[1 : count * length + 1]
    return x.reshape(count, length).astype("int32"), y.reshape(count, length).astype("int32")


def shakespeare(folder):
    return (folder / "tiny_shakespeare" / "input.txt").read_text(encoding="utf-8")


def grammar_text(sentences=2500):
    """Sentences of a small grammar in which number agrees; about 90,000 characters."""
    choose = random.Random(0).choice
    nouns = ("fox", "king", "river", "lantern", "stone", "sparrow")
    verbs = ("follow", "forget", "praise", "carry", "fear")
    adjectives = ("old ", "quiet ", "red ", "", "", "")

    def phrase(is_plural):
        return "the " + choose(adjectives) + choose(nouns) + ("s" if is_plural else "")

    def sentence():
        is_plural = choose((True, False))
        verb = choose(verbs) + ("" if is_plural else "s")
        return f"{phrase(is_plural)} {verb} {phrase(choose((True, False)))}.\n"

    return "".join(sentence() for _ in range(sentences))


# ------------------------------------------------------------------------------------ the network


class Positions(layers.Layer):
    """Adds a learned vector for each place."""

    def build(self, input_shape):
        self.vectors = self.add_weight(
            shape=input_shape[1:],
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="vectors",
        )

    def call(self, inputs):
        return inputs + self.vectors


def network(num_characters, size):
    """Logits `(batch, context, characters)` of the next character."""
    inputs = keras.Input((size.context,), dtype="int32")
    x = Positions()(layers.Embedding(num_characters, size.width)(inputs))
    for _ in range(size.blocks):
        normal = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(size.heads, size.width // size.heads)
        x = x + attention(normal, normal, use_causal_mask=True)
        hidden = layers.Dense(4 * size.width, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(size.width)(hidden)
    x = layers.LayerNormalization()(x)
    return keras.Model(inputs, layers.Dense(num_characters)(x))


def warm_start(model, text, size, path):
    """AdamW until the validation loss rises twice in a row; keeps the best weights in a file."""
    start = time.process_time()
    keras.utils.set_random_seed(0)
    steps = size.epochs * -(-len(text.train[0]) // size.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps, alpha=0.1)
    model.set_weights(network(len(text.characters), size).get_weights())
    adamw = keras.optimizers.AdamW(rate, weight_decay=0.01)
    facts = fit_until_it_stops(model, text.train, text.validation, adamw, size, 2, path)
    loss = model.evaluate(*text.test, verbose=0)
    return {
        "perplexity": float(np.exp(loss)),
        **facts,
        "num_data": text.num_data,
        "num_characters": len(text.characters),
        "seconds": time.process_time() - start,
    }


# ------------------------------------------------------------------------------------- the chains


class Chain:
    """A method with a seed, compiled once for all step sizes."""

    def __init__(self, model, text, method, seed, size):
        self.model, self.text, self.size, self.seed = model, text, size, seed
        optimizer = METHODS[method].optimizer(
            learning_rate=1e-3, num_data=text.num_data, prior=PRIOR, seed=seed + 1
        )
        model.compile(optimizer, LOSS, jit_compile=JIT)
        optimizer.build(model.trainable_variables)
        self.fresh = [ops.convert_to_numpy(v) for v in optimizer.variables]

    def run(self, weights, step_size):
        """What a row says of a chain from these weights."""
        start = time.process_time()
        optimizer = self.model.optimizer
        self.model.set_weights(weights)
        for variable, value in zip(optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        optimizer.learning_rate = step_size
        try:
            row = self._sampled()
        except FloatingPointError:
            row = {"diverged": True}
        return row | {"seconds": time.process_time() - start}

    def _sampled(self):
        size = self.size
        steps = size.burn_in + size.steps
        sampler = kl.PosteriorSampler(size.burn_in, size.thinning, unit="step")
        history = self.model.fit(
            kl.RandomBatches(
                *self.text.train, size.batch_size, batches_per_epoch=steps, seed=self.seed
            ),
            callbacks=[sampler],
            verbose=0,
        )
        loss = sampler.ensemble(member_batch_size=1).evaluate(*self.text.test, verbose=0)
        if not np.isfinite(loss) or loss > LOST:
            return {"diverged": True}
        names = ("loss", "step_size", "energy_error", "rejected", "kinetic_temperature")
        logs = {k: v[-1] for k, v in history.history.items() if k in names}
        logs["train_loss"] = logs.pop("loss")
        if "step_size" in logs:
            logs["last_step_size"] = logs.pop("step_size")
        return {"diverged": False, "perplexity": float(np.exp(loss))} | logs


# ------------------------------------------------------------------------------------- the report


def parts(rows):
    """The row of the warm start, and those of the chains."""
    warm = next(row for row in rows if row["method"] == "warm start")
    return warm, [row for row in rows if row["method"] != "warm start"]


def page(path):
    """What a person wrote about the rows, and their tables."""
    warm, runs = parts(Results(path).rows)
    sections = [
        "# A small GPT: how far may the step size be off?",
        *pages.findings(path),
        f"![Perplexity against step size]({path.stem}.png)",
        setting(warm, runs),
        "## Step sizes that help",
        "The gain is how much lower the perplexity of the ensemble is than the warm start's, as a "
        "mean over seeds. Decades are those between the smallest and the largest step size that "
        "have at least half of the method's largest gain; every method tried four.",
        summary(runs, warm["perplexity"]),
        "## Perplexity less that of the warm start",
        "Mean over seeds; lost: a chain ended in NaN, or they predict worse than guessing would.",
        perplexity_table(runs, warm),
        "## Step size that the tuner ended with",
        tuner_table(runs),
    ]
    return "\n\n".join(sections) + "\n"


def setting(warm, runs):
    chain = {name: runs[0][name] if runs else 0 for name in CHAIN}
    num_samples = chain["steps"] // max(chain["thinning"], 1)
    seeds = len({row["seed"] for row in runs})
    best = int(np.argmin(warm["validation_loss"]))
    return f"""\
    python -m examples.studies.momentum.language --data-dir DIR --results R.jsonl

{warm["software"]} {warm["data"]},
N = {warm["num_data"]:,} characters of training text; test perplexity on {warm["test_windows"]:,}
windows of {warm["context"]} characters. {warm["num_weights"]:,} weights: {warm["blocks"]} blocks,
width {warm["width"]}, {warm["heads"]} heads. Warm start: AdamW, epoch {best + 1} of
{len(warm["train_loss"])}, test perplexity {warm["perplexity"]:.4f}. Chains: {chain["burn_in"]}
steps of burn-in and {chain["steps"]} of sampling, {num_samples} samples, batches of
{warm["batch_size"]} windows, prior N(0, 0.3²), T = 1, seeds: {seeds}. Where there is a tuner, the
step size is where it starts; it is free until burn-in ends."""


def summary(runs, reference):
    head = ["method", "largest gain", "at", "better than the warm start", "half of the gain"]
    lines = []
    for method in methods_of(runs):
        gains = {k: reference - value for k, value in mean_perplexities(runs, method).items()}
        best = max(gains, key=gains.get)
        better = sum(gain > 0 for gain in gains.values())
        good = [size for size, gain in gains.items() if gain >= gains[best] / 2 > 0]
        span = f"{good[0]:g} to {good[-1]:g}" if good else ""
        decades = f"{np.log10(good[-1] / good[0]):.1f}" if good else ""
        cells = [f"{gains[best]:.3f}", f"{best:g}", f"{better} of {len(gains)}", span, decades]
        lines.append([method, *cells])
    return table([*head, "decades"], lines)


def perplexity_table(runs, warm):
    """A line for each method, from its smallest step size to the largest."""
    top = warm["num_characters"]
    width = max(len(mean_perplexities(runs, m)) for m in methods_of(runs)) if runs else 0
    lines = []
    for method in methods_of(runs):
        found = mean_perplexities(runs, method)
        cells = [
            f"{size:g}: " + ("lost" if value >= top else f"{value - warm['perplexity']:+.3f}")
            for size, value in found.items()
        ]
        lines.append([method, *cells, *[""] * (width - len(cells))])
    return table(["method", *[f"{i + 1}" for i in range(width)]], lines)


def tuner_table(runs):
    lines = []
    for method in methods_of(runs):
        mine = [r for r in runs if r["method"] == method and "last_step_size" in r]
        if mine and "no tuner" not in method:
            sizes = sorted({row["step_size"] for row in mine})
            ends = [
                np.median([r["last_step_size"] for r in mine if r["step_size"] == s]) for s in sizes
            ]
            lines.append([method, f"{sizes[0]:g} to {sizes[-1]:g}", f"{min(ends):.3g}"])
            lines[-1].append(f"{max(ends):.3g}")
    return table(["method", "start", "smallest median end", "largest"], lines)


def methods_of(runs):
    there = {row["method"] for row in runs}
    return [method for method in METHODS if method in there]


def mean_perplexities(runs, method):
    """By step size, over seeds; infinite where a chain was lost."""
    found = {}
    for row in runs:
        if row["method"] == method:
            found.setdefault(row["step_size"], []).append(row.get("perplexity", np.inf))
    return {size: float(np.mean(found[size])) for size in sorted(found)}


def figure(runs, warm, path):
    """Distances and learning rates in a panel each; chains that diverged at the top, where guessing
    one of the characters is."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    panels = [p for p in (DISTANCE, RATE) if any(METHODS[r["method"]].panel == p for r in runs)]
    canvas, axes = plt.subplots(
        1,
        len(panels),
        figsize=(5 * len(panels), 4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    top = warm["num_characters"] - warm["perplexity"]
    for axis, panel in zip(axes[0], panels, strict=True):
        for method in methods_of(runs):
            if METHODS[method].panel == panel:
                draw(axis, runs, method, warm["perplexity"], top)
        axis.axhline(0, color="gray", lw=0.8)
        axis.set(xscale="log", xlabel=panel)
        axis.set_yscale("symlog", linthresh=0.1)
        axis.legend(fontsize=8)
    axes[0, 0].set_ylabel("perplexity less the warm start's")
    canvas.savefig(path, dpi=120)
    plt.close(canvas)


def draw(axis, runs, method, reference, top):
    """Every seed a dot, their mean a line."""
    color = f"C{list(METHODS).index(method)}"
    style = "--" if "no tuner" in method else "-"
    means = mean_perplexities(runs, method)
    line = np.minimum(np.array(list(means.values())) - reference, top)
    axis.plot(list(means), line, style, color=color, label=method)
    for row in runs:
        if row["method"] == method:
            height = row.get("perplexity", np.inf) - reference
            marker = "x" if height >= top else "o"
            axis.plot(row["step_size"], min(height, top), marker, color=color, ms=4)


if __name__ == "__main__":
    main()
