"""Natural Langevin dynamics against SGD, Adam, dropout, ensembles and its own controls on MNIST.

    python -m examples.studies.mnist.natural_langevin tune|final|report  scikit-learn's digits
    python -m examples.studies.mnist.natural_langevin tune|final|report
        --dataset mnist --data-dir DIR

`tune` gives every method the same number of trials, drawn at random from the search spaces in
`methods.py`, and validates on the last sixth of the training set. `final`
trains with the chosen settings on the whole training set, for several seeds, and tests. `report`
writes a page with tables and figures. A run that is finished is a row of a CSV file: start
the same command again after an interruption and it goes on. Processes with different `--only`
may share the file. To try it out on digits, in two to three minutes of mostly compiling:

    python -m examples.studies.mnist.natural_langevin tune --trials 1 --tune-epochs 6
    python -m examples.studies.mnist.natural_langevin final --seeds 1 --epochs 6
    python -m examples.studies.mnist.natural_langevin report

The times of the page mean something only if nothing else runs on the machine.
"""

import argparse
import dataclasses
import math
from pathlib import Path

from examples.studies.common import digit_images, pages
from examples.studies.mnist.methods import METHODS, Method
from examples.studies.mnist.report import draw, page
from examples.studies.mnist.results import CurvePoint, Results, Row
from examples.studies.mnist.training import WARM_START_EPOCHS, Task, scores, train
from keras_langevin import calibration

BATCH_SIZES = {"digits": 50, "mnist": 500}
TUNING_SEED = 0
CURVE_SEED = 0  # of the final run whose curve over time is stored


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to do: a trial (`phase="tune"`) or a seed (`phase="final"`) of a method."""

    phase: str
    method: Method
    index: int
    settings: dict
    epochs: int

    @property
    def key(self):
        return self.phase, self.method.name, self.index


def main():
    options = arguments()
    results = Results(options.results)
    check_dataset(options.dataset, results)
    if options.phase == "report":
        pages.write(page, options.results)
        draw(options.results)
        return
    images = digit_images.load(options.dataset, options.data_dir)
    make_task = tuning_task if options.phase == "tune" else final_task
    task = make_task(images, BATCH_SIZES[options.dataset])
    make_jobs = tuning_jobs if options.phase == "tune" else final_jobs
    for job in make_jobs(options, results):
        if job.key not in results.rows():  # read again: others may be writing
            row, curve = do(job, task, options.dataset)
            results.append(row, curve)
            print(line_about(row), flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("phase", choices=("tune", "final", "report"))
    parser.add_argument("--dataset", choices=BATCH_SIZES, default="digits")
    parser.add_argument(
        "--data-dir", help="folder with mnist/mnist.npz and fashion_mnist/*.gz; else downloaded"
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="CSV file; by default demo_output/natural_langevin_DATASET.csv. Runs that are in it "
        "are not done again, also if other options changed",
    )
    parser.add_argument(
        "--only", type=known_methods, default=METHODS, help=f"of {','.join(METHODS)}"
    )
    parser.add_argument("--seeds", type=int, default=5, help="final runs of each method")
    parser.add_argument("--trials", type=int, default=8, help="tuning runs of each method")
    parser.add_argument("--tune-epochs", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=60, help="of final runs")
    options = parser.parse_args()
    if min(options.tune_epochs, options.epochs) <= WARM_START_EPOCHS:
        parser.error(f"more than {WARM_START_EPOCHS} epochs are needed: so many warm up")
    if options.results is None:
        options.results = Path("demo_output", f"natural_langevin_{options.dataset}.csv")
    return options


def known_methods(text):
    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such method: {', '.join(unknown)}")
    return names


def check_dataset(dataset, results):
    others = {row.dataset for row in results.rows().values()} - {dataset}
    if others:
        raise SystemExit(f"{results.path} is of --dataset {others.pop()}; choose another file.")


def tuning_task(images, batch_size):
    """The last sixth of the training set is for validation; the test set is not touched."""
    x, y = images.x_train, images.y_train
    cut = len(x) - len(x) // 6
    return Task(x[:cut], y[:cut], x[cut:], y[cut:], x[:0], batch_size)


def final_task(images, batch_size):
    return Task(
        *(images.x_train, images.y_train, images.x_test, images.y_test, images.x_out),
        batch_size=batch_size,
    )


def tuning_jobs(options, results):
    for method in (METHODS[name] for name in options.only):
        if method.is_tuned:
            for trial in range(options.trials):
                yield Job("tune", method, trial, method.draw(trial), options.tune_epochs)


def final_jobs(options, results):
    for method in (METHODS[name] for name in options.only):
        trial = best_trial(results, method.source)
        if trial is None:
            print(f"final  {method.name}: skipped, no trial of {method.source} has finished")
            continue
        stops_early = METHODS[method.source].kind == "point"
        epochs = trial.epochs if stops_early else options.epochs
        settings = {**trial.settings, **method.fixed}
        for seed in range(options.seeds):
            yield Job("final", method, seed, settings, epochs)


def best_trial(results, name):
    """The row of the finished trial with the lowest objective, `None` without any."""
    trials = [
        row
        for row in results.rows().values()
        if (row.phase, row.method) == ("tune", name) and row.finished
    ]
    return min(trials, key=lambda row: row.objective, default=None)


def do(job, task, dataset):
    """Runs a job: its row, and the points of its curve."""
    is_final = job.phase == "final"
    watched = is_final and job.index == CURVE_SEED
    row = Row(
        *job.key,
        *(dataset, "diverged", job.settings, job.epochs, len(task.x), task.batch_size),
    )
    try:
        run = train(
            *(job.method, job.settings, task),
            seed=job.index if is_final else TUNING_SEED,
            epochs=job.epochs,
            stop_at_best=not is_final,
            watched=watched,
        )
        row = dataclasses.replace(row, status="finished", **outcome(run, task))
    except FloatingPointError:
        return row, []
    curve = [CurvePoint(job.method.name, job.index, *point) for point in run.curve]
    return row, curve


def outcome(run, task):
    """The columns of `Row` that a finished run fills."""
    predictions = {name: scores(p, task) for name, p in run.predictions.items()}
    objective = objective_of(predictions)
    if not math.isfinite(objective):
        raise FloatingPointError("A label was given the probability 0.")
    columns = {
        "epochs": run.epochs,
        "objective": objective,
        "seconds": run.seconds,
        "compile_seconds": run.compile_seconds,
        "seconds_per_step": run.seconds_per_step,
        "clipped": run.clipped,
        "predictions": predictions,
    }
    if run.members is not None:
        columns["num_samples"] = len(run.members)
        columns["member_nll"] = mean_nll(run.members[:, : len(task.y_test)], task.y_test)
    return columns


def objective_of(predictions):
    """The NLL of the method's own predictor: the ensemble where there is one, else the better
    one (dropout has two)."""
    if "ensemble" in predictions:
        return predictions["ensemble"]["nll"]
    return min(scored["nll"] for scored in predictions.values())


def mean_nll(members, labels):
    values = [calibration.negative_log_likelihood(p, labels) for p in members]
    return sum(values) / len(values)


def line_about(row):
    words = {"tune": "trial", "final": "seed "}[row.phase]
    start = f"{row.phase:<5}  {row.method:<13}  {words} {row.index}"
    fixed = METHODS[row.method].fixed
    settings = "  ".join(
        f"{name} {value:g}" for name, value in row.settings.items() if name not in fixed
    )
    if not row.finished:
        return f"{start}  diverged{'':<41}  {settings}"
    accuracy = max(scored["accuracy"] for scored in row.predictions.values())
    return (
        f"{start}  NLL {row.objective:.4f}  best accuracy {100 * accuracy:5.2f} %  "
        f"{row.epochs:>3} epochs  {row.seconds:6.1f} s  {settings}"
    )


if __name__ == "__main__":
    main()
