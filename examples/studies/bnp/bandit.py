"""Does the batch-normalization metric help Thompson sampling by Langevin dynamics?

    python -m examples.studies.bnp.bandit --data-dir DIR --seeds 10  fifteen minutes on one core
    python -m examples.studies.bnp.bandit --data-dir DIR --quick  one minute, to see that it runs
    python -m examples.studies.bnp.bandit --report  table and figure of what was run

Contextual bandits, 2000 rounds each:

- mushroom: one-hot inputs. Eating an edible one pays 5, a poisonous one 5 or -35 with equal
  chances, skipping 0.
- statlog_shuttle_raw: nine raw integers, whose scales differ by 20; naming the right one of seven
  classes pays 1.
- statlog_shuttle: the same integers, all divided by 100, so that the prior over the weights is one
  over functions of about the size of the rewards.

A network predicts the reward of every arm. Every `EVERY` rounds the chain goes on for `STEPS`
minibatches drawn with replacement from all rounds so far, and the weights it ends at act greedily
until the next update: with noise they are a draw of the posterior, which is Thompson sampling. The
first `EVERY` rounds are played at random.

`num_data` is a constant of the compiled step. It stands at R = `ROUNDS`, the n rounds so far have
the sample weight n/R each, and the learning rate is η R/n: drift and noise of the step then are
those of `num_data=n` and learning rate η, the prior counts once, the noise is that of T = 1, and no
shape ever changes; only the prior inside BNP's metric stays that of R. The RMSProp metric scales
with the weights by itself, as Adam does, and takes η as it is.

Learning rates are chosen by the regret after `TUNING_ROUNDS` rounds, on seeds of their own. Each
run appends a line to the results file; what is in it is not run again.
"""

import argparse
import functools
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops

import keras_langevin as kl
from examples.studies.common import pages
from examples.studies.common.restartable import Restartable, mlp
from examples.studies.common.results import Results
from examples.studies.common.tables import table

EVERY, STEPS, BATCH_SIZE = 20, 32, 512
ROUNDS, TUNING_ROUNDS = 2000, 800
TUNING_SEEDS = (100, 101, 102)
WIDTH = 50
CLIP = 3.0  # of the drift, for every sampler: rare inputs of the shuttle are 100 deviations wide
STDDEV = {"mushroom": 1.0, "statlog": 0.1}  # of the noise of rewards, taken as known
MARKS = (500, 1000, 2000)
RECORDED = 100  # rounds between the regrets of a row


def sampler(optimizer_class, **arguments):
    arguments |= {"prior": kl.priors.FanInNormal(2.0), "drift_clip": CLIP, "seed": 0}
    return lambda: optimizer_class(1.0, num_data=ROUNDS, **arguments)


PAPER = "BNP, prior not in metric"
METHODS = {
    "SGLD": sampler(kl.SGLD),
    "RMSProp": sampler(kl.RMSPropLangevin),
    "BNP": sampler(kl.BNPLangevin),  # the default
    PAPER: sampler(kl.BNPLangevin, prior_in_metric=False),
    f"{PAPER}, ε₁ = 1e-2": sampler(kl.BNPLangevin, prior_in_metric=False, relative_epsilon=1e-2),
    f"{PAPER}, T = 0": sampler(kl.BNPLangevin, prior_in_metric=False, temperature=0.0),
    "greedy (Adam)": keras.optimizers.Adam,
    "uniform": None,
}
SCALE_THEMSELVES = ("RMSProp", "greedy (Adam)")  # with the weight of the loss
HALF_DECADES = np.array([0.1, 0.316, 1.0, 3.16, 10.0])
MIDDLE_RATES = {
    "mushroom": {"SGLD": 0.03, "RMSProp": 1e-3, "BNP": 3e-3, "greedy (Adam)": 1e-3},
    "statlog_shuttle": {"SGLD": 0.01, "RMSProp": 1e-3, "BNP": 3e-3, "greedy (Adam)": 0.01},
    "statlog_shuttle_raw": {"SGLD": 3e-4, "RMSProp": 3e-3, "BNP": 0.1, "greedy (Adam)": 0.01},
}


def main():
    options = arguments()
    results = Results(options.results)
    if not options.report:
        for name in options.problems:
            study(Bandit.load(name, Path(options.data_dir)), options, results)
    print(report(results.rows))
    pages.write(page, results.path)
    figure(results.rows, options.results.with_suffix(".png"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="folder with bandits/, see README.md")
    parser.add_argument("--problems", default=",".join(BANDITS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="400 rounds, one rate, one seed")
    parser.add_argument("--results", type=Path, default=Path("demo_output/bnp_bandit.jsonl"))
    parser.add_argument("--report", action="store_true", help="play nothing")
    options = parser.parse_args()
    if not options.report and options.data_dir is None:
        parser.error("--data-dir is needed, except with --report")
    options.problems = options.problems.split(",")
    options.rounds = 400 if options.quick else ROUNDS
    options.seeds = 1 if options.quick else options.seeds
    return options


def study(bandit, options, results):
    for method in METHODS:
        rate = 0.0 if method == "uniform" else tuned_rate(bandit, method, options, results)
        for seed in range(options.seeds):
            run("final", bandit, method, rate, seed, options.rounds, results)


def tuned_rate(bandit, method, options, results):
    """Of the five rates the one of lowest mean regret on the seeds for tuning."""
    if method == f"{PAPER}, T = 0":
        method = PAPER  # the same steps without their noise
    rates = MIDDLE_RATES[bandit.name][method.split(",")[0]] * HALF_DECADES
    if options.quick:
        return float(rates[2])
    rows = {
        float(rate): [
            run("tuning", bandit, method, float(rate), seed, TUNING_ROUNDS, results)
            for seed in TUNING_SEEDS
        ]
        for rate in rates
    }
    return min(rows, key=lambda rate: np.mean([row["regret"][-1] for row in rows[rate]]))


def run(stage, bandit, method, rate, seed, rounds, results):
    key = {"stage": stage, "problem": bandit.name, "method": method, "seed": seed}
    key |= {"learning_rate": rate, "rounds": rounds}
    return results.run(play, bandit, method, rate, seed, rounds, **key)


# ---------------------------------------------------------------------------------- the bandits


class Bandit:
    """Contexts, and for each the rewards of every arm: of `outcomes` one is drawn.

    Attributes:
        contexts: Shape (examples, features).
        outcomes: Shape (examples, arms, 2): two rewards of equal chances.
    """

    def __init__(self, name, contexts, outcomes):
        self.name, self.contexts = name, contexts.astype("float32")
        self.outcomes = outcomes.astype("float32")
        self.player = functools.cache(lambda method: Player(self, method))

    @staticmethod
    def load(name, folder):
        return Bandit(name, *BANDITS[name](folder / "bandits"))

    def draw(self, rounds, generator):
        """Contexts, rewards that would be paid, expected rewards, one row a round."""
        rows = generator.permutation(len(self.contexts))[:rounds]
        coin = generator.integers(0, 2, size=rounds)
        paid = self.outcomes[rows, :, coin]
        return self.contexts[rows], paid, self.outcomes[rows].mean(axis=-1)


def mushroom(folder):
    letters = np.genfromtxt(folder / "mushroom" / "agaricus-lepiota.data", "U1", delimiter=",")
    columns = letters[:, 1:].T
    contexts = np.concatenate([column[:, None] == np.unique(column) for column in columns], axis=1)
    outcomes = np.zeros((len(letters), 2, 2))  # skip, eat
    outcomes[:, 1] = np.where(letters[:, :1] == "e", (5, 5), (5, -35))
    return contexts, outcomes


def statlog_shuttle(folder):
    contexts, outcomes = statlog_shuttle_raw(folder)
    return contexts / 100, outcomes


def statlog_shuttle_raw(folder):
    numbers = np.loadtxt(folder / "statlog_shuttle" / "shuttle.trn")
    rewards = numbers[:, -1:] == np.arange(1, 8)
    return numbers[:, :-1], np.repeat(rewards[:, :, None], 2, axis=2)


BANDITS = {
    "mushroom": mushroom,
    "statlog_shuttle": statlog_shuttle,
    "statlog_shuttle_raw": statlog_shuttle_raw,
}


# ------------------------------------------------------------------------------------ the player


def play(bandit, method, rate, seed, rounds):
    """Cumulative expected regret at the end of every `RECORDED` rounds."""
    start = time.perf_counter()
    generator = np.random.default_rng(seed)
    contexts, paid, expected = bandit.draw(rounds, generator)
    losses = expected.max(axis=1, keepdims=True) - expected
    player = Uniform() if METHODS[method] is None else bandit.player(method)
    player.restart(rate, seed)
    targets = np.zeros((rounds, 1 + paid.shape[1]), "float32")  # the reward, the chosen arm
    regrets = np.zeros(rounds)
    for first in range(0, rounds, EVERY):
        now = slice(first, first + EVERY)
        arms = generator.integers(paid.shape[1], size=EVERY)
        if first > 0 and player.learn(contexts[:first], targets[:first], generator):
            arms = player.choose(contexts[now])
        taken = np.arange(first, first + EVERY), arms
        targets[now, 0] = paid[taken]
        targets[(taken[0], 1 + arms)] = 1.0
        regrets[now] = losses[taken]
    return {
        "regret": np.round(regrets.cumsum()[RECORDED - 1 :: RECORDED], 3).tolist(),
        "uniform": float(losses.mean(axis=1).sum()),
        "diverged": player.diverged,
        "seconds": time.perf_counter() - start,
    }


class Uniform:
    diverged = False

    def restart(self, rate, seed):
        pass

    def learn(self, contexts, targets, generator):
        return False


class Player:
    """A network and its chain. Once its weights are not finite it plays at random."""

    def __init__(self, bandit, method):
        features, arms = bandit.contexts.shape[1], bandit.outcomes.shape[1]
        loss = ChosenArm(STDDEV[bandit.name.split("_")[0]])
        self.scales_itself = method in SCALE_THEMSELVES
        self.chain = Restartable(lambda: mlp(features, WIDTH, arms), METHODS[method](), loss)
        self.model = self.chain.model

    def restart(self, rate, seed):
        self.rate, self.diverged = rate, False
        self.chain.restart(rate, seed)

    def learn(self, contexts, targets, generator):
        """Whether the weights are finite after another `STEPS` steps on the rounds so far."""
        if self.diverged:
            return False
        if not self.scales_itself:
            self.model.optimizer.learning_rate = self.rate * ROUNDS / len(contexts)
        self.model.fit(Minibatches(contexts, targets, generator), shuffle=False, verbose=0)
        self.diverged = not all(np.isfinite(w).all() for w in self.model.get_weights())
        return not self.diverged

    def choose(self, contexts):
        return self.model.predict_on_batch(contexts).argmax(axis=1)


class Minibatches(keras.utils.PyDataset):
    """`STEPS` of one size, drawn with replacement; n examples have the weight n / ROUNDS."""

    def __init__(self, contexts, targets, generator):
        super().__init__()
        self.contexts, self.targets, self.generator = contexts, targets, generator
        self.weights = np.full(BATCH_SIZE, len(contexts) / ROUNDS, "float32")

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        rows = self.generator.integers(len(self.contexts), size=BATCH_SIZE)
        return self.contexts[rows], self.targets[rows], self.weights


class ChosenArm(keras.losses.Loss):
    """-log N(reward; prediction for the chosen arm, stddev²); y_true is [reward, one-hot arm]."""

    def __init__(self, stddev):
        super().__init__(name="chosen_arm")
        self.nll = kl.losses.GaussianNLL(stddev)

    def call(self, y_true, y_pred):
        reward, chosen = y_true[:, :1], y_true[:, 1:]
        return self.nll.call(reward, ops.sum(chosen * y_pred, axis=-1, keepdims=True))


# ------------------------------------------------------------------------------------ the report


def page(path):
    return pages.with_tables(path, {"regret": report(Results(path).rows)})


def report(rows):
    """Markdown: cumulative regret in per cent of the uniform player's, by bandit and method."""
    parts = []
    for name, mine in finals(rows):
        marks = [m for m in MARKS if m <= mine[0]["rounds"]]
        head = [name, "learning rate", *(f"after {m}" for m in marks), "regret", "diverged"]
        runs = {m: [row for row in mine if row["method"] == m] for m in METHODS}
        parts.append(table(head, [[m, *cells(runs[m], marks)] for m in METHODS if runs[m]]))
    return "\n\n".join(parts) + "\n"


def finals(rows):
    for name in dict.fromkeys(row["problem"] for row in rows):
        yield name, [r for r in rows if r["problem"] == name and r["stage"] == "final"]


def cells(runs, marks):
    regret = np.array([run["regret"] for run in runs])
    uniform = np.array([run["uniform"] / run["rounds"] for run in runs])
    shares = [100 * regret[:, m // RECORDED - 1] / (uniform * m) for m in marks]
    rates = {run["learning_rate"] for run in runs}
    return [
        ", ".join(f"{rate:.2g}" for rate in rates) if rates != {0.0} else "",
        *(mean_and_error(share, 1) for share in shares),
        mean_and_error(regret[:, -1], 0),
        f"{sum(run['diverged'] for run in runs)} of {len(runs)}",
    ]


def mean_and_error(values, digits):
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"


def figure(rows, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    bandits = list(finals(rows))
    size = (5 * len(bandits), 4.4)
    canvas, axes = plt.subplots(1, len(bandits), figsize=size, squeeze=False, layout="constrained")
    for axis, (name, mine) in zip(axes[0], bandits, strict=True):
        for method in METHODS:
            curves = [row["regret"] for row in mine if row["method"] == method]
            if curves:
                rounds = RECORDED * np.arange(1, len(curves[0]) + 1)
                mean, error = np.mean(curves, axis=0), np.std(curves, axis=0) / len(curves) ** 0.5
                (line,) = axis.plot(rounds, mean, label=method)
                axis.fill_between(
                    rounds, mean - error, mean + error, alpha=0.2, color=line.get_color()
                )
        axis.set(title=name, xlabel="round", ylabel="cumulative expected regret", yscale="log")
    lines, labels = axes[0, 0].get_legend_handles_labels()
    canvas.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=9)
    canvas.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
