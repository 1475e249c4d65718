"""The tables of the README that repeat numbers of the pages, made from the same rows."""

import numpy as np

from examples.benchmarks import effective_samples
from examples.benchmarks.timing import last_rows
from examples.studies.common.results import Results
from examples.studies.common.tables import table
from examples.studies.mnist import report as natural_langevin
from examples.studies.mnist.results import Results as CsvResults
from examples.studies.momentum import regression
from examples.studies.ten_problems import ten_problems

MNIST = {  # label in the README: method, predictor
    "Adam, point": ("adam", "point"),
    "dropout, 50 passes": ("dropout", "50 passes"),
    "deep ensemble of 5": ("deep-ensemble", "ensemble"),
    "SGLD, cold": ("sgld-cold", "ensemble"),
    "RMSProp, cold": ("rmsprop-cold", "ensemble"),
    "DOP, cold": ("dop-cold", "ensemble"),
    "QDOP, cold": ("qdop-cold", "ensemble"),
    "QDOP, T = 1": ("qdop-t1", "ensemble"),
    "control: QDOP, T = 0": ("qdop-t0", "ensemble"),
    "control: Adam snapshots with the prior": ("snapshots", "ensemble"),
}
REGRESSION = {
    "pSMILE": "pSMILE, `kl.SMILE`",
    "SMILE": "SMILE, not preconditioned",
    "MILE": "MILE, full batches",
}
STEPS = [  # what, method in the rows, over, in the rows
    ("`SGLD`", "SGLD", "Keras `SGD`", ["Keras SGD"]),
    ("`RMSPropLangevin`", "RMSPropLangevin", "Keras `Adam`", ["Keras Adam"]),
    (
        "`DOPLangevin`, the whole batch measured in every step",
        "DOPLangevin, statistics_stride=1",
        "Keras `SGD`",
        ["Keras SGD"],
    ),
    (
        "`QDOPLangevin`, the same",
        "QDOPLangevin, statistics_stride=1",
        "Keras `SGD`",
        ["Keras SGD"],
    ),
    ("`QDOPLangevin` as it comes", "QDOPLangevin", "Keras `SGD`", ["Keras SGD"]),
    ("`SGLD`", "SGLD", "blackjax, posteriors", ["blackjax SGLD", "posteriors SGLD"]),
]
BACKENDS = {"TensorFlow, XLA¹": "tensorflow, one thread", "JAX": "jax", "torch": "torch"}


def tables(examples, names):
    """Markdown of these tables, by name.

    Args:
        examples: `Path` of the folder of examples.
        names: Keys of `TABLES`.
    """
    unknown = sorted(set(names) - TABLES.keys())
    if unknown:
        raise SystemExit(f"Tables must be of {', '.join(TABLES)}. Received: {', '.join(unknown)}.")
    return {name: TABLES[name](examples) for name in names}


def ten(examples):
    rows = Results(examples / "studies/ten_problems/ten_problems.jsonl").rows
    return ten_problems.summary(rows, "QDOP")


def mnist(examples):
    results = CsvResults(examples / "studies/mnist/natural_langevin.csv")
    final = natural_langevin.by_method(results.rows().values(), "final")
    scores = ("accuracy", "nll", "auroc")
    lines, losses = [], []
    for label, (method, predictor) in MNIST.items():
        rows = [row for row in final[method] if row.finished]
        lost = len(final[method]) - len(rows)
        if lost:
            label += f" ({lost} of {len(final[method])} seeds diverged)"
        lines.append([label, *(natural_langevin.score_cell(rows, predictor, s) for s in scores)])
        losses.append(np.mean([row.predictions[predictor]["nll"] for row in rows]))
    best = lines[int(np.argmin(losses))]
    best[0], best[2] = f"**{best[0]}**", f"**{best[2]}**"
    return table(["method", "accuracy %", "NLL", "OOD AUROC %"], lines)


def lppd(examples):
    rows = Results(examples / "studies/momentum/regression.jsonl").rows
    final = [row for row in rows if row["stage"] == "final"]
    data = list(dict.fromkeys(row["data"] for row in final))
    lines = []
    for method in regression.METHODS:
        scores = [regression.values(final, name, method, "lppd").values() for name in data]
        cells = [regression.mean_and_error(values) for values in scores]
        lines.append([REGRESSION.get(method, method), *cells])
    return table(["method", *data], lines)


def steps(examples):
    rows = [row for row in Results(examples / "benchmarks/step_time.jsonl").rows if row["target"]]
    lines = []
    for what, method, over, rivals in STEPS:
        own = [r for r in rows if r["method"] == method and r["against"] in rivals]
        targets = [_targets([r for r in own if r["against"] == rival]) for rival in rivals]
        ratios = [_ratios([r for r in own if r["backend"] == b]) for b in BACKENDS.values()]
        lines.append([what, over, ", ".join(targets), *ratios])
    return table(["a step inside `fit`", "over", "target", *BACKENDS], lines)


def _targets(rows):
    """Of batches of 500, and of 100 in brackets where it is another."""
    large, *small = dict.fromkeys(row["target"] for row in rows)
    return " ".join([f"{large:.2f}", *(f"({target:.2f})" for target in small)])


def _ratios(rows):
    """Medians over the runs, of batches of 500 and of 100 in brackets; bold above the target."""
    shown = []
    for batch in dict.fromkeys(row["batch"] for row in rows):
        own = [row for row in rows if row["batch"] == batch]
        ratio = float(np.median([row["ratio"] for row in own]))
        text = f"{ratio:.2f}" if batch == 500 else f"({ratio:.2f})"
        shown.append(f"**{text}**" if round(ratio, 2) > own[-1]["target"] else text)
    return " ".join(shown)


def speeds(examples):
    folder = examples / "benchmarks"
    lines = [
        ["noise, 10⁷ numbers, one core", _noise(folder), "0.2"],
        ["50 members × 10,000 images", _large_ensemble(folder), "0.8; 3"],
        ["64 small members, 100 to 10,000 examples", _small_ensemble(folder), "100"],
        ["a served request, batch 1 and 256", _served(folder), "5"],
        ["peak memory beside SGD's, copies of the weights, 10 and 100 samples", _memory(folder), 1],
        ["effective samples a second", _effective(folder), "QDOP first"],
    ]
    return table(["", "", "target"], lines)


def _noise(folder):
    rows = Results(folder / "noise_quality.jsonl").rows
    found = {r["memory"]: r for r in rows if r["part"] == "time" and r["threads"] == "one"}
    (there, new), (exact_there, exact_new) = (
        [found[memory][f"{way} / NumPy"] for memory in ("reused", "fresh")]
        for way in ("fast", "exact")
    )
    return (
        f"{_bold(there, 0.2)} of NumPy's `standard_normal` into memory that is there, as a step "
        f"has it, {_bold(new, 0.2)} into a new array; the exact law (`exact_noise=True`) "
        f"{exact_there:.2f} and {exact_new:.2f} ([page](examples/benchmarks/noise_quality.md))"
    )


def _bold(value, target):
    return f"**{value:.2f}**" if value > target else f"{value:.2f}"


def _predictions(folder, members):
    rows = Results(folder / "predict.jsonl").rows
    rows = [r for r in rows if r["members"] == members]
    rows = last_rows(rows, ("backend", "network", "members", "examples"))
    return {b: [r for r in rows if r["backend"] == b] for b in ("tensorflow", "jax", "torch")}


def _large_ensemble(folder):
    found = [rows[0] for rows in _predictions(folder, 50).values()]
    products = ", ".join(_bold(r["/ NumPy products"], 0.8) for r in found)
    name = "times faster than the loop"
    loops = ", ".join(f"{r[name]:.1f}" if r[name] > 3 else f"**{r[name]:.1f}**" for r in found)
    return (
        f"{products} of NumPy's products alone (TensorFlow, JAX, torch); {loops} times faster than "
        "`predict` in a loop"
    )


def _small_ensemble(folder):
    name = "times faster than the loop"
    found = [[r[name] for r in rows] for rows in _predictions(folder, 64).values()]
    spans = ", ".join(f"{min(values):,.0f} to {max(values):,.0f}" for values in found)
    return f"{spans} times faster than the loop ([page](examples/benchmarks/predict.md))"


def _served(folder):
    rows = last_rows(Results(folder / "serving.jsonl").rows, ("network", "members", "examples"))
    parts = []
    for words, network in (("small", "8-16-2"), ("large", "784-400-400-10")):
        found = [r["times faster than tf.function"] for r in rows if r["network"] == network]
        shown = [f"{v:.1f}" if v > 5 else f"**{v:.1f}**" for v in found]
        parts.append(f"{words} networks {' and '.join(shown)}")
    return (
        f"{', '.join(parts)} times faster than a list of `tf.function` "
        "([page](examples/benchmarks/serving.md))"
    )


def _memory(folder):
    rows = last_rows(
        Results(folder / "memory.jsonl").rows, ("backend", "optimizer", "samples on disk")
    )
    found = {
        (r["backend"], r["samples on disk"]): r["copies"] for r in rows if r["optimizer"] != "SGD"
    }
    parts = []
    for backend, words in (("jax", "JAX"), ("tensorflow", "TensorFlow"), ("torch", "torch")):
        few, many, alone = (found[backend, n] for n in (10, 100, 0))
        parts.append(f"{words} **{few:.1f}** and **{many:.1f}**, without samples {alone:.1f}")
    return f"`SGLD` on {'; '.join(parts)} ([page](examples/benchmarks/memory.md))"


def _effective(folder):
    rows = effective_samples.page_rows(Results(folder / "effective_samples.jsonl").rows)
    parts = []
    for problem, backend, words in (
        ("regression", "jax", "Replicated regression, JAX"),
        ("regression", "torch", "torch"),
        ("mnist", "jax", "class probabilities of MNIST (196-50-50-10), JAX"),
    ):
        own = [r for r in rows if (r["problem"], r["backend"]) == (problem, backend)]
        own.sort(key=lambda r: -r["effective samples a second"])
        shown = ", ".join(f"{r['method']} {r['effective samples a second']:.3g}" for r in own)
        parts.append(f"{words}: {shown}")
    return f"{'; '.join(parts)} ([page](examples/benchmarks/effective_samples.md))"


TABLES = {
    "ten problems": ten,
    "mnist": mnist,
    "regression": lppd,
    "step times": steps,
    "speeds": speeds,
}
