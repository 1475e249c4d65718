"""Handwritten digits: four posterior samplers of keras_langevin against Adam and dropout.

    python -m examples.studies.digits.demo  scikit-learn's digits, no download
    python -m examples.studies.digits.demo --dataset mnist --data-dir DIR  MNIST and Fashion-MNIST

Trains a small network in six ways, prints one table (accuracy, likelihood, calibration, and how
well uncertainty tells digits from other images), draws figures, writes a report on the QDOP
ensemble, exports it as a SavedModel and checks that it predicts the same where keras_langevin is
not installed.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # SavedModels are TensorFlow's
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

from examples.studies.common import digit_images
from examples.studies.common.digit_network import probabilities
from examples.studies.digits import figures
from examples.studies.digits.methods import PLANS, LiveLine, train
from keras_langevin import calibration

DROPOUT_PASSES = 50
LARGEST_DIFFERENCE = 1e-5
SERVED = "QDOPLangevin"
NEEDED = ("Adam", SERVED)
METHODS = tuple(method.name for method in PLANS["digits"].methods)
COLUMNS = {
    "method": "{}",
    "prediction": "{}",
    "accuracy %": "{:.1f}",
    "NLL": "{:.4f}",
    "ECE %": "{:.1f}",
    "OOD AUROC %": "{:.1f}",
    "seconds": "{:.1f}",
}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Class probabilities, `(examples, 10)`, of the test digits and of the other images."""

    method: str
    kind: str
    test: np.ndarray
    out: np.ndarray
    seconds: float  # of training, compilation included

    def row(self, labels):
        """The table's numbers, by `COLUMNS`."""
        entropies = [calibration.predictive_entropy(p) for p in (self.test, self.out)]
        values = (
            self.method,
            self.kind,
            100 * calibration.accuracy(self.test, labels),
            calibration.negative_log_likelihood(self.test, labels),
            100 * calibration.expected_calibration_error(self.test, labels),
            100 * calibration.out_of_distribution_auroc(*entropies),
            self.seconds,
        )
        return dict(zip(COLUMNS, values, strict=True))


def main():
    options = arguments()
    images = digit_images.load(options.dataset, options.data_dir)
    plan = PLANS[options.dataset]
    methods = tuple(m for m in plan.methods if m.name in options.methods)
    plan = dataclasses.replace(plan, methods=methods, epochs=options.epochs or plan.epochs)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    print(describe(images))
    predictions, ensemble = run_all(plan, images, options.seed)
    rows = [p.row(images.y_test) for p in predictions]
    print(f"\n{text_table(rows)}\n\n{explain(images)}\n")
    write_results(options, plan, rows)
    for path in draw_figures(options.output_dir, images, predictions):
        print(f"Figure {path}")
    write_report(options.output_dir, images, ensemble)
    check_served(ensemble, images.x_test, options.output_dir)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", choices=PLANS, default="digits")
    parser.add_argument(
        "--data-dir", help="folder with mnist.npz or mnist/mnist.npz, and fashion_mnist/*.gz"
    )
    parser.add_argument("--epochs", type=int, help="fewer for a quick look")
    parser.add_argument(
        "--methods",
        nargs="*",
        choices=METHODS,
        default=METHODS[:6],
        help=f"must contain {' and '.join(NEEDED)}, which the figures show",
    )
    parser.add_argument("--output-dir", type=Path, default=Path("demo_output"))
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, order and noise")
    options = parser.parse_args()
    if not set(NEEDED) <= set(options.methods):
        parser.error(f"--methods must contain {NEEDED}, which the figures show")
    if options.epochs is not None and options.epochs < 2:
        parser.error("--epochs must be at least 2: one to burn in, one to sample")
    return options


def run_all(plan, images, seed):
    """All predictions, in the order of the table, and the ensemble to serve."""
    predictions, served = [], None
    for method in plan.methods:
        line = LiveLine(method.name)
        model, sampler = train(
            method, plan, images.x_train, images.y_train, seed=seed, callbacks=[line]
        )
        ways = {"last point": lambda x, model=model: probabilities(model, x)}
        if method.dropout:
            ways[f"{DROPOUT_PASSES} passes"] = lambda x, model=model: probabilities(
                model, x, DROPOUT_PASSES
            )
        if sampler is not None:
            ensemble = sampler.ensemble()
            kind = f"ensemble of {len(sampler.samples)}"
            ways[kind] = lambda x, ensemble=ensemble: ensemble.predict(x, verbose=0)
            if method.name == SERVED:
                served = ensemble
        for kind, predict in ways.items():
            test, out = predict(images.x_test), predict(images.x_out)
            predictions.append(Prediction(method.name, kind, test, out, line.seconds))
    return predictions, served


def describe(images):
    return (
        f"{images.digits}: {len(images.x_train):,} to train on, {len(images.y_test):,} to test on; "
        f"{len(images.x_out):,} {images.others}.\n"
        f"Network {images.x_test.shape[1]}-100-100-10 with ReLU, TensorFlow, compiled by XLA:\n"
    )


def explain(images):
    percent = 100 / np.sqrt(len(images.y_test))
    return (
        "NLL: mean negative log-likelihood, nats; ECE: expected calibration error, 15 bins;\n"
        f"OOD AUROC: predictive entropy telling {images.others} from digits.\n"
        f"Standard error of an accuracy of 97 % on this test set: {percent * 0.17:.1f} %."
    )


def text_table(rows):
    lines = [list(COLUMNS), *cells(rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(aligned(line, widths)) for line in lines)


def aligned(line, widths):
    words = 2  # columns of words stand left, numbers right
    for i, (cell, width) in enumerate(zip(line, widths, strict=True)):
        yield cell.ljust(width) if i < words else cell.rjust(width)


def cells(rows):
    return [[form.format(row[name]) for name, form in COLUMNS.items()] for row in rows]


def write_results(options, plan, rows):
    lines = [list(COLUMNS), ["---"] * 2 + ["---:"] * (len(COLUMNS) - 2), *cells(rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (options.output_dir / "results.md").write_text(table)
    settings = {
        "dataset": options.dataset,
        "seed": options.seed,
        "epochs": plan.epochs,
        "burn_in": plan.burn_in,
        "batch_size": plan.batch_size,
        "prior": keras.saving.serialize_keras_object(plan.prior),
        "methods": [
            {**dataclasses.asdict(m), "optimizer": m.optimizer.__name__} for m in plan.methods
        ],
    }
    results = json.dumps({"settings": settings, "results": rows}, indent=2)
    (options.output_dir / "results.json").write_text(results + "\n")


def draw_figures(folder, images, predictions):
    adam = next(p for p in predictions if p.method == "Adam")
    served = next(p for p in predictions if p.method == SERVED and p.kind.startswith("ensemble"))
    return figures.draw_all(folder, images, adam, served, f"{SERVED} ensemble")


def write_report(folder, images, ensemble):
    """One page about the ensemble that is served, and what it finds in words."""
    path = folder / "report.html"
    report = ensemble.report(
        images.x_test,
        images.y_test,
        out_of_distribution=images.x_out,
        training_data=(images.x_train, images.y_train),
        html=path,
        verbose=0,
    )
    print(f"Report {path} of {SERVED}:")
    for finding in report.findings:
        print(f"  {finding.title}")


def check_served(ensemble, x, folder):
    """Exports the ensemble, and compares it with itself in a process without keras_langevin."""
    saved_model = folder / "served_model"
    inputs, outputs = folder / "served_inputs.npy", folder / "served_predictions.npz"
    ensemble.export(saved_model, verbose=False)
    np.save(inputs, x)
    script = Path(__file__).with_name("serving.py")
    subprocess.run([sys.executable, script, saved_model, inputs, outputs], check=True)
    difference = largest_difference(ensemble, x, outputs)
    print(f"SavedModel {saved_model}")
    print(
        "Reloaded in another process, without keras_langevin: largest difference of predictions "
        f"{difference:.1e}"
    )
    if not difference <= LARGEST_DIFFERENCE:
        raise SystemExit(f"The difference must be at most {LARGEST_DIFFERENCE}.")


def largest_difference(ensemble, x, outputs):
    expected = ensemble.predict_uncertainty(x, verbose=0)
    with np.load(outputs) as served:
        pairs = [(served["probabilities"], ensemble.predict(x, verbose=0))]
        pairs += [(served[name], expected[name]) for name in expected]
        return max(float(np.abs(a - b).max()) for a, b in pairs)


if __name__ == "__main__":
    main()
