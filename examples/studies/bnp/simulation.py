"""Does the batch-normalization metric condition the posterior, and is sampling faster for it?

    python -m examples.studies.bnp.simulation            some ten minutes on one core
    python -m examples.studies.bnp.simulation --quick    two minutes, to see that it runs
    python -m examples.studies.bnp.simulation --report   the tables and the figure of what was run

Part 1, Bayesian linear regression, where all is known: 20 inputs with standard deviations from
1e-2 to 1e2 and means from 1 to 10, 500 examples, unit noise, prior N(0, 100²). Condition numbers in
the three metrics, and how many full-batch steps it takes until the covariance of chains that start
at one point is within 10 % of the posterior's in every eigendirection. With a fixed metric C both
are exact: along an eigenvector of C H with eigenvalue s the chain is a scalar recursion, whose
variance after t steps is (1 − (1 − ηs)^2t) / (1 − ηs/2) of the posterior's. Each sampler runs at
η = `SHARE` · 2/s_max, where that bias is at most 8.7 %. `fit` on `Dense(R)`, which is R chains,
confirms it where that takes no more than `MOST_STEPS`. The prior is not in the metric, as in the
paper: it would add 2e-7 to ε₂ = 1e-4.

Part 2, small networks of scikit-learn's data with unscaled inputs: which ε₁ and ε₂, with the prior
in the metric or not, and how fast training begins. One hidden layer of 50, T = 1, all defaults but
those named.

Each run appends a line to the results file; what is in it is not run again.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops
from sklearn import datasets

import keras_langevin as kl
from examples.studies.common import pages
from examples.studies.common.restartable import Restartable, mlp
from examples.studies.common.results import Results
from examples.studies.common.tables import table

SHARE = 0.08  # of the largest stable learning rate
MOST_STEPS = 4000
REPLICAS = 4000
RELATIVE_EPSILONS = (0.0, 1e-6, 1e-4, 1e-2)
EPSILON = 1e-4
EPOCHS, BURN_IN, BATCH_SIZE = 10, 5, 32
MARKS = (1, 3, 10)  # epochs
DEFAULT = (1e-6, EPSILON, True)  # relative_epsilon, epsilon, prior_in_metric
SETTINGS = [DEFAULT, *((ε, EPSILON, False) for ε in (0.0, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2))]
SETTINGS += [(1e-6, 1e-8, False), (1e-6, 1e-2, False)]
RATES = {
    "SGLD": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
    "RMSProp": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    "BNP": (0.03, 0.1, 0.3, 1.0, 3.0),
}


def main():
    options = arguments()
    results = Results(options.results)
    if not options.report:
        linear(results, 400 if options.quick else MOST_STEPS)
        networks(results, options)
    print(report(results.rows))
    pages.write(page, results.path)
    figure(results.rows, options.results.with_suffix(".png"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one data set, one seed, one setting")
    parser.add_argument("--results", type=Path, default=Path("demo_output/bnp_simulation.jsonl"))
    parser.add_argument("--report", action="store_true", help="run nothing")
    return parser.parse_args()


# ---------------------------------------------------------------------------- linear regression


class Regression:
    """y = x w + b + N(0, 1). Every input explains as much; the bias is the last weight.

    Attributes:
        fisher: X̂ᵀX̂/N, of the likelihood alone; `hessian` has the prior too.
        mean: Of the posterior.
    """

    def __init__(self, name, stddevs, means, num_data=500, prior_stddev=100.0):
        rng = np.random.default_rng(0)
        self.name, self.n, self.prior_stddev = name, num_data, prior_stddev
        features = len(stddevs)
        self.x = rng.permutation(means) + rng.normal(size=(num_data, features)) * stddevs
        self.x = self.x.astype("float32").astype("float64")
        self.y = self.x @ (rng.normal(size=features) / stddevs) + rng.normal(size=num_data)
        self.design = np.c_[self.x, np.ones(num_data)]
        self.fisher = self.design.T @ self.design / num_data
        self.hessian = self.fisher + np.eye(features + 1) / num_data / prior_stddev**2
        self.mean = np.linalg.solve(self.hessian, self.design.T @ self.y / num_data)


PROBLEMS = {
    "wide": Regression("wide", np.logspace(-2, 2, 20), np.linspace(1, 10, 20)),
    "mild": Regression("mild", np.logspace(-0.5, 0.5, 20), np.linspace(0, 1, 20)),
}


def factor(regression, sampler, epsilon):
    """L with L Lᵀ = C, dense, from the formulas alone."""
    r, size = regression, len(regression.mean)
    if sampler == "SGLD":
        return np.eye(size)
    if sampler == "RMSProp":
        return np.diag((stationary_squares(r) + 1e-8) ** -0.25)
    variance = r.x.var(axis=0)
    scales = (variance + epsilon * variance.max() + EPSILON) ** -0.5
    q = max((size - 1) / r.n, 1.0) ** 0.5
    shear = np.eye(size)
    shear[-1, :-1] = -r.x.mean(axis=0)
    return shear @ np.diag(np.append(scales, 1.0)) / q


def stationary_squares(r):
    """E ḡ² over the posterior, ḡ the gradient of the mean loss on all data: RMSProp's average."""
    prior = r.mean / r.n / r.prior_stddev**2
    return np.diag(r.fisher @ np.linalg.solve(r.hessian, r.fisher)) / r.n + prior**2


class Modes:
    """The chain with a fixed metric in the eigenvectors of C H, at the rate of `SHARE`."""

    def __init__(self, regression, sampler, epsilon=None):
        self.r, self.factor = regression, factor(regression, sampler, epsilon)
        self.curvatures, self.vectors = np.linalg.eigh(
            self.factor.T @ regression.hessian @ self.factor
        )
        self.learning_rate = SHARE * 2 / self.curvatures[-1]
        self.fraction = self.learning_rate * self.curvatures

    def coordinates(self, offset):
        return self.vectors.T @ np.linalg.solve(self.factor, offset)

    def variances(self, steps):
        """Over the posterior's, one for each direction, after so many steps from one point."""
        decay = np.exp(2 * np.multiply.outer(steps, np.log1p(-self.fraction)))
        return (1 - decay) / (1 - self.fraction / 2)

    def steps_to_within_ten_per_cent(self):
        remains = 1 - 0.9 * (1 - self.fraction / 2)
        return int(np.ceil((np.log(remains) / 2 / np.log1p(-self.fraction)).max()))

    def excess(self, steps):
        """E[U] − min U after so many steps from zero weights, nats."""
        start = self.coordinates(-self.r.mean) ** 2 * self.r.n * self.curvatures
        decay = np.exp(2 * np.multiply.outer(steps, np.log1p(-self.fraction)))
        return (decay @ start + self.variances(steps).sum(axis=-1)) / 2


def linear(results, most_steps):
    for name, regression in PROBLEMS.items():
        for sampler, epsilon in cases():
            key = {"part": "linear", "problem": name, "sampler": sampler, "epsilon": epsilon}
            row = results.run(exact, regression, sampler, epsilon, **key)
            if row["steps"] <= most_steps:
                key["part"] = "linear, fit"
                results.run(confirmed, regression, sampler, epsilon, row["steps"], **key)


def cases():
    return [("SGLD", None), ("RMSProp", None), *(("BNP", ε) for ε in RELATIVE_EPSILONS)]


def exact(regression, sampler, epsilon):
    modes = Modes(regression, sampler, epsilon)
    fisher = np.linalg.eigvalsh(modes.factor.T @ regression.fisher @ modes.factor)
    measured = lanczos(regression, epsilon) if sampler == "BNP" else None
    return {
        "fisher": fisher[-1] / fisher[0],
        "hessian": modes.curvatures[-1] / modes.curvatures[0],
        "measured": measured,
        "learning_rate": modes.learning_rate,
        "steps": modes.steps_to_within_ten_per_cent(),
        "steps_of_loss": steps_of_loss(modes),
    }


def steps_of_loss(modes):
    """Until the potential is within 1 nat a weight of where it will stay."""
    steps = np.unique(np.logspace(0, 14, 2000).round())
    excess = modes.excess(steps)
    return float(steps[np.argmax(excess < excess[-1] + len(modes.curvatures))])


def optimizer(regression, sampler, epsilon):
    classes = {"SGLD": kl.SGLD, "RMSProp": kl.RMSPropLangevin, "BNP": kl.BNPLangevin}
    arguments = (
        {} if sampler == "SGLD" else {"averaging": kl.preconditioners.Averaging(freeze_after=1)}
    )
    if sampler == "BNP":
        arguments |= bnp_arguments((epsilon, EPSILON, False))
    prior = kl.priors.Normal(regression.prior_stddev)
    return classes[sampler](1e-9, num_data=regression.n, prior=prior, seed=1, **arguments)


def bnp_arguments(setting):
    return dict(zip(("relative_epsilon", "epsilon", "prior_in_metric"), setting, strict=True))


def chains(regression, sampler, epsilon, replicas):
    """All at the posterior mean, the metric filled from all data."""
    size = len(regression.mean)
    model = keras.Sequential([keras.Input((size - 1,)), keras.layers.Dense(replicas)])
    model.compile(
        optimizer(regression, sampler, epsilon),
        HalfSquaredError(),
        jit_compile=keras.backend.backend() != "torch",
    )
    x, y = regression.x.astype("float32"), regression.y[:, None].astype("float32")
    kl.warm_up_metric(model, x, y, batch_size=regression.n, num_batches=1)
    if sampler == "RMSProp":
        squares = np.repeat(stationary_squares(regression)[:, None], replicas, axis=1)
        kernel, bias = model.optimizer.preconditioner.states
        kernel.assign(squares[:-1])
        bias.assign(squares[-1])
    weights = np.repeat(regression.mean[:, None], replicas, axis=1)
    model.set_weights([weights[:-1], weights[-1]])
    return model, x, y


def lanczos(regression, epsilon):
    """The condition number that `kl.diagnostics.curvature` finds, float32."""
    model, x, y = chains(regression, "BNP", epsilon, replicas=1)
    return kl.diagnostics.curvature(model, x, y, num_steps=60).condition_number


def confirmed(regression, sampler, epsilon, steps):
    """Variances along the eigenvectors in a real `fit`, against the closed form."""
    modes = Modes(regression, sampler, epsilon)
    model, x, y = chains(regression, sampler, epsilon, REPLICAS)
    model.optimizer.learning_rate = modes.learning_rate
    recorder = Variances(modes, max(steps // 40, 1))
    model.fit(Constant(x, y, int(1.3 * steps) + 1), shuffle=False, verbose=0, callbacks=[recorder])
    measured, closed = np.array(recorder.values), modes.variances(np.array(recorder.steps))
    arrived = (measured >= 0.9).all(axis=1)
    return {
        "steps_at": recorder.steps,
        "smallest": measured.min(axis=1).tolist(),
        "steps": recorder.steps[int(np.argmax(arrived))] if arrived.any() else None,
        "largest_deviation": float(np.abs(measured / closed - 1).max()),
        "rms_deviation": float(np.sqrt(np.mean((measured / closed - 1) ** 2))),
    }


class HalfSquaredError(keras.losses.Loss):
    """−log N(y; ŷ, 1) summed over the chains, without the constant."""

    def call(self, y_true, y_pred):
        return 0.5 * ops.sum(ops.square(y_true - y_pred), axis=-1)


class Constant(keras.utils.PyDataset):
    """One batch, `steps` times: thousands of steps in one epoch of `fit`."""

    def __init__(self, x, y, steps):
        super().__init__()
        self.batch, self.steps = (x, y), steps

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        return self.batch


class Variances(keras.callbacks.Callback):
    """Over the posterior's, along each eigenvector, every so many steps."""

    def __init__(self, modes, every):
        super().__init__()
        self.modes, self.every = modes, every
        self.steps, self.values = [], []

    def on_train_batch_end(self, batch, logs=None):
        if (batch + 1) % self.every:
            return
        kernel, bias = (ops.convert_to_numpy(w) for w in self.model.layers[-1].weights[:2])
        weights = np.concatenate([kernel, bias[None]]).astype("float64")
        coordinates = self.modes.coordinates(weights - self.modes.r.mean[:, None])
        self.steps.append(batch + 1)
        self.values.append(coordinates.var(axis=1) * self.modes.r.n * self.modes.curvatures)


# ------------------------------------------------------------------------------- small networks


def digits():
    return datasets.load_digits(return_X_y=True)


def digits_scaled():
    x, y = digits()
    return x / 16, y


NETWORKS = {
    "digits": digits,
    "digits / 16": digits_scaled,
    "breast_cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
}


class Task:
    """Unscaled inputs and labels; the seed chooses the fifth that is the test set."""

    def __init__(self, name, seed):
        x, y = NETWORKS[name]()
        order = np.random.default_rng(seed).permutation(len(x))
        test = len(x) // 5
        train = test + (len(x) - test) // BATCH_SIZE * BATCH_SIZE  # batches of one size
        x, y = x[order].astype("float32"), y[order].astype("int32")
        self.train, self.test = (x[test:train], y[test:train]), (x[:test], y[:test])
        self.features, self.classes = x.shape[1], int(y.max()) + 1

    def network(self):
        return mlp(self.features, 50, self.classes)

    def restartable(self, sampler, setting, learning_rate):
        classes = {"SGLD": kl.SGLD, "RMSProp": kl.RMSPropLangevin, "BNP": kl.BNPLangevin}
        arguments = bnp_arguments(setting) if sampler == "BNP" else {}
        prior, n = kl.priors.FanInNormal(10.0), len(self.train[0])
        chosen = classes[sampler](learning_rate, num_data=n, prior=prior, seed=0, **arguments)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return Restartable(self.network, chosen, loss)


def networks(results, options):
    names = ["wine"] if options.quick else NETWORKS
    chosen = [DEFAULT] if options.quick else SETTINGS
    settings = [("SGLD", None), ("RMSProp", None), *(("BNP", list(s)) for s in chosen)]
    for name in names:
        for sampler, setting in settings:
            tuned = Task(name, 0).restartable(sampler, setting, 1.0)
            for seed in range(1 if options.quick else options.seeds):
                task = Task(name, seed)
                for rate in ("auto", *RATES[sampler]):
                    key = {"part": "network", "problem": name, "sampler": sampler}
                    key |= {"setting": setting, "rate": rate, "seed": seed}
                    results.run(trained, task, sampler, setting, rate, tuned, seed, **key)


def trained(task, sampler, setting, rate, tuned, seed):
    if rate == "auto":
        keras.utils.set_random_seed(seed)
        model = task.restartable(sampler, setting, rate).model
    else:
        tuned.restart(rate, seed)
        model = tuned.model
    drawn = kl.PosteriorSampler(burn_in=BURN_IN)
    losses = Losses()
    try:
        model.fit(*task.train, BATCH_SIZE, EPOCHS, verbose=0, callbacks=[losses, drawn])
    except FloatingPointError:
        return {"diverged": True, "losses": losses.values, "nll": None}
    nll = ensemble_nll(model, drawn.samples, task)
    return {"diverged": False, "losses": losses.values, "nll": nll}


class Losses(keras.callbacks.Callback):
    """Mean training loss of each epoch, null where it is not finite."""

    def on_train_begin(self, logs=None):
        self.values = []

    def on_epoch_end(self, epoch, logs=None):
        self.values.append(float(logs["loss"]) if np.isfinite(logs["loss"]) else None)


def ensemble_nll(model, samples, task):
    x, y = task.test
    probabilities = 0.0
    for sample in samples:
        model.set_weights(list(sample.values()))
        logits = model.predict_on_batch(x).astype("float64")
        members = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities += members / members.sum(axis=1, keepdims=True) / len(samples)
    return float(-np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-30)).mean())


# -------------------------------------------------------------------------------------- report


def page(path):
    return pages.with_tables(path, tables(Results(path).rows))


def report(rows):
    return "\n\n".join(tables(rows).values()) + "\n"


def tables(rows):
    """In Markdown, by their names in the page."""
    networks = [r for r in rows if r["part"] == "network"]
    by_data = [
        network_report(name, [r for r in networks if r["problem"] == name])
        for name in dict.fromkeys(r["problem"] for r in networks)
    ]
    return {
        "regression": linear_report([r for r in rows if r["part"].startswith("linear")]),
        "networks": "\n\n".join(by_data),
        "all networks": scores(networks),
    }


def linear_report(rows):
    head = ["regression", "metric", "ε₁", "cond. Fisher", "cond. Hessian", "by Lanczos"]
    head += ["steps, loss", "steps, covariance", "steps in `fit`", "rms (largest) deviation %"]
    lines = []
    for row in rows:
        if row["part"] != "linear":
            continue
        match = {k: row[k] for k in ("problem", "sampler", "epsilon")} | {"part": "linear, fit"}
        fit = next((r for r in rows if match.items() <= r.items()), None)
        lines.append(
            [
                row["problem"],
                row["sampler"],
                "" if row["epsilon"] is None else f"{row['epsilon']:g}",
                *(f"{row[k]:.2g}" for k in ("fisher", "hessian")),
                "" if row["measured"] is None else f"{row['measured']:.2g}",
                *(f"{row[k]:.2g}" for k in ("steps_of_loss", "steps")),
                "" if fit is None else fit["steps"],
                "" if fit is None else deviation(fit),
            ]
        )
    return table(head, lines)


def deviation(fit):
    return f"{100 * fit['rms_deviation']:.1f} ({100 * fit['largest_deviation']:.1f})"


def label(row):
    if row["setting"] is None:
        return row["sampler"]
    *epsilons, prior = row["setting"]
    return "BNP, ε₁ {:g}, ε₂ {:g}".format(*epsilons) + prior * ", prior"


def methods(rows):
    """Those of the rows; new settings are run last and stand among the others here."""
    settings = [None, *map(list, SETTINGS)]
    return list(dict.fromkeys(map(label, sorted(rows, key=lambda r: settings.index(r["setting"])))))


def network_report(name, rows):
    marks = [f"after {m}" for m in MARKS]
    head = [f"{name}: metric", *(f"auto, {m}" for m in marks), "NLL", "diverged"]
    head += ["best rate", *marks, "NLL", "diverged"]
    lines = []
    for method in methods(rows):
        mine = [r for r in rows if label(r) == method]
        auto = [r for r in mine if r["rate"] == "auto"]
        best = best_rate(mine)
        fixed = [r for r in mine if r["rate"] == best]
        lines.append([method, *cells(auto), f"{best:g}", *cells(fixed)])
    return table(head, lines)


def best_rate(rows):
    """Fewest divergences, then the lowest training loss of epoch 3."""
    rates = {r["rate"] for r in rows if r["rate"] != "auto"}

    def order(rate):
        mine = [r for r in rows if r["rate"] == rate]
        return sum(r["diverged"] for r in mine), middle([loss_after(r, 3) for r in mine])

    return min(sorted(rates), key=order)


def loss_after(row, epoch):
    losses = row["losses"]
    found = losses[epoch - 1] if len(losses) >= epoch else None
    return np.inf if found is None else found


def middle(values):
    return float(np.median([np.inf if v is None else v for v in values]))


def cells(rows):
    values = [middle([loss_after(r, m) for r in rows]) for m in MARKS]
    values.append(middle([r["nll"] for r in rows]))
    return [*(f"{v:.3g}" for v in values), sum(r["diverged"] for r in rows)]


def scores(rows):
    """Geometric mean over data sets of each quantity over that of the default setting."""
    default = label({"setting": DEFAULT})
    head = ["relative to the default", "auto, after 1", "after 3", "after 10", "NLL"]
    head += ["best rate, after 1", "after 3", "after 10", "NLL", "diverged, of all runs"]
    lines = []
    for method in methods(rows):
        ratios = [
            np.log(quantities(rows, name, method)) - np.log(quantities(rows, name, default))
            for name in dict.fromkeys(r["problem"] for r in rows)
        ]
        mine = [r for r in rows if label(r) == method]
        failures = f"{sum(r['diverged'] for r in mine)} of {len(mine)}"
        lines.append([method, *(f"{v:.2f}" for v in np.exp(np.mean(ratios, axis=0))), failures])
    return table(head, lines)


def quantities(rows, name, method):
    mine = [r for r in rows if r["problem"] == name and label(r) == method]
    values = []
    for rate in ("auto", best_rate(mine)):
        chosen = [r for r in mine if r["rate"] == rate]
        values += [middle([loss_after(r, m) for r in chosen]) for m in MARKS]
        values.append(middle([r["nll"] for r in chosen]))
    return np.array(values)


# -------------------------------------------------------------------------------------- figure


def figure(rows, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    canvas, axes = plt.subplots(2, 2, figsize=(11, 8))
    axes = axes.ravel()
    steps = np.logspace(0, 12, 400)
    for sampler, epsilon in cases():
        name = sampler if epsilon is None else f"{sampler}, ε₁ = {epsilon:g}"
        axes[0].loglog(steps, Modes(PROBLEMS["wide"], sampler, epsilon).excess(steps), label=name)
    axes[0].set(title="wide scales, from zero weights", xlabel="step", ylabel="E[U] − min U, nats")
    for sampler, epsilon in cases()[:3]:
        draw_variances(axes[1], rows, "mild", sampler, epsilon)
    draw_variances(axes[1], rows, "wide", "BNP", 0.0)
    draw_variances(axes[1], rows, "wide", "BNP", 1e-6)
    axes[1].axhline(0.9, color="grey", linewidth=0.7)
    axes[1].set(
        title="lines exact, dots `fit`", xlabel="step", ylabel="smallest variance / posterior"
    )
    networks = [r for r in rows if r["part"] == "network"]
    there = {r["problem"] for r in networks}
    shown = [name for name in ("digits", "breast_cancer", "wine") if name in there][:2]
    for axis, name in zip(axes[2:], shown, strict=False):
        draw_losses(axis, name, [r for r in networks if r["problem"] == name])
    for axis in axes[: 2 + len(shown)]:
        axis.legend(fontsize=8)
    canvas.tight_layout()
    canvas.savefig(path, dpi=120)


def draw_variances(axis, rows, problem, sampler, epsilon):
    steps = np.unique(np.logspace(0, 4, 200).round())
    exact = Modes(PROBLEMS[problem], sampler, epsilon).variances(steps).min(axis=1)
    name = sampler if epsilon is None else f"{sampler}, ε₁ = {epsilon:g}"
    (line,) = axis.semilogx(steps, exact, label=f"{problem}: {name}")
    key = {"part": "linear, fit", "problem": problem, "sampler": sampler, "epsilon": epsilon}
    for row in rows:
        if key.items() <= row.items():
            axis.plot(row["steps_at"], row["smallest"], ".", color=line.get_color())


def draw_losses(axis, problem, rows):
    """Each metric at its best rate; dashed without the prior, where two curves may coincide."""
    chosen = [None, list(DEFAULT), [1e-6, EPSILON, False], [1e-2, EPSILON, False]]
    mine = [r for r in rows if r["setting"] in chosen]
    for method in methods(mine):
        best = best_rate([r for r in mine if label(r) == method])
        losses = [r["losses"] for r in mine if label(r) == method and r["rate"] == best]
        losses = np.array([one for one in losses if len(one) == EPOCHS], dtype=float)
        axis.semilogy(
            np.arange(1, EPOCHS + 1),
            losses.mean(axis=0),
            "--" if "ε₁" in method and "prior" not in method else "-",
            label=f"{method}, rate {best:g}",
        )
    axis.set(title=f"{problem}, unscaled", xlabel="epoch", ylabel="training loss")


if __name__ == "__main__":
    main()
