"""How does the time of a step grow with the weights, and that of a prediction with the members?

    KERAS_BACKEND=jax python -m examples.benchmarks.scaling
    KERAS_BACKEND=tensorflow python -m examples.benchmarks.scaling

Networks of three square layers with 10⁵ to 10⁷ weights inside `fit`, batches of 100: `kl.SGLD`,
`kl.QDOPLangevin` and Keras' `SGD`. Ensembles of 1 to 500 networks 784-100-100-10 predict 1,000
images. Medians of turns; a slope of 1 on logarithmic axes is a time in proportion. Rows go to
`scaling.jsonl`, the figure to `scaling.png`.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_langevin as kl
from examples.benchmarks.predict import RESULTS, network, random_members
from examples.benchmarks.step_time import epoch_of
from examples.benchmarks.timing import interleaved, last_rows, page_of, versions
from examples.studies.common import pages
from examples.studies.common.results import Results

WIDTHS = (182, 324, 577, 1026, 1825)  # 3 layers: 10^5, 10^5.5, 10^6, 10^6.5, 10^7 weights
MEMBERS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
BATCH, STEPS, EXAMPLES = 100, 20, 1000
MAKE = {
    "Keras SGD": lambda n: keras.optimizers.SGD(1e-4),
    "SGLD": lambda n: kl.SGLD(1e-4, num_data=n),
    "QDOPLangevin": lambda n: kl.QDOPLangevin(1e-4, num_data=n),
}


def steps_of(width, turns):
    """Milliseconds of a step, by optimizer."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH * STEPS, width), "float32")
    y = rng.integers(0, width, len(x))
    epochs = {}
    for name, make in MAKE.items():
        model = network((width,) * 4)
        weights = model.count_params()
        epochs[name] = epoch_of(model, make(len(x)), x, y, BATCH, shuffle=False)
    seconds = interleaved(epochs, turns)
    return weights, {k: 1e3 * float(np.median(s)) / STEPS for k, s in seconds.items()}


def prediction(count, turns):
    """Milliseconds of a prediction."""
    model = network((784, 100, 100, 10))
    ensemble = kl.BayesianEnsembleModel(model, random_members(model, count))
    x = np.random.default_rng(1).standard_normal((EXAMPLES, 784), "float32")
    seconds = interleaved({"": lambda: ensemble.predict(x, verbose=0)}, turns)
    return 1e3 * float(np.median(seconds[""]))


def draw(rows, path):
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for backend in dict.fromkeys(row["backend"] for row in rows):
        own = [row for row in rows if row["backend"] == backend]
        style = "-o" if backend == own[0]["backend"] == rows[0]["backend"] else "--s"
        for color, name in zip(("0.5", "tab:blue", "tab:orange"), MAKE, strict=True):
            line = [(r["weights"], r["ms"]) for r in own if r["what"] == name]
            left.loglog(*zip(*line, strict=True), style, color=color, label=f"{name}, {backend}")
        line = [(r["members"], r["ms"]) for r in own if r["what"] == "prediction"]
        right.loglog(*zip(*line, strict=True), style, color="tab:blue", label=backend)
    left.set(xlabel="weights", ylabel="milliseconds", title=f"a step of {BATCH} examples in fit")
    right.set(xlabel="members", ylabel="milliseconds", title=f"a prediction of {EXAMPLES} images")
    for axes in (left, right):
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def latest(rows):
    return last_rows(rows, ("backend", "what", "weights", "members"))


def page(path):
    return page_of(__doc__, latest(Results(path).rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=Path, help="folder; demo_output with --quick")
    options = parser.parse_args()
    folder = options.results or (Path("demo_output") if options.quick else RESULTS)
    turns = 2 if options.quick else 5
    results = Results(folder / "scaling.jsonl")
    key = {"backend": keras.backend.backend()}
    by = {"machine": versions()}
    for width in WIDTHS[:2] if options.quick else WIDTHS:
        weights, times = steps_of(width, turns)
        for name, ms in times.items():
            results.add({**key, "what": name, "weights": weights, "ms": ms, **by})
        keras.utils.clear_session()
    for count in MEMBERS[:3] if options.quick else MEMBERS:
        ms = prediction(count, turns)
        results.add({**key, "what": "prediction", "members": count, "ms": ms, **by})
    pages.write(page, results.path)
    draw(latest(results.rows), results.path.with_suffix(".png"))


if __name__ == "__main__":
    main()
