"""Public programs of Keras: what Adam says of the test data, and what three lines more say.

    python -m examples.studies.programs.programs --data-dir DIR
    python -m examples.studies.programs.programs --quick --programs 12,19     made-up data, a minute
    python -m examples.studies.programs.programs --report                     the tables alone

Each program is trained by Adam and, with all defaults, by `QDOPLangevin(num_data=N)` and
`PosteriorSampler()`, for the same few epochs; then sampled as long from Adam's weights, the warm
start. Each appends a line to the file of rows; what is in it is not run again.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from examples.studies.common import pages, study
from examples.studies.common.results import Results
from examples.studies.common.tables import table
from examples.studies.programs import images, structures, tabular, text
from examples.studies.programs.measure import STAGES, measured
from examples.studies.programs.program import ACCURACY, RMSE, shortened

PROGRAMS = {
    "01": tabular.words_and_numbers,
    "02": tabular.feature_space,
    "03": text.convolution,
    "03b": text.small_convolution,
    "04": text.transformer,
    "05": images.small_xception,
    "05b": images.frozen_xception,
    "06": images.transfer,
    "07": tabular.series,
    "08": images.autoencoder,
    "09": images.own_step,
    "09b": images.added_loss,
    "10": structures.same_digit,
    "10b": structures.contrastive,
    "11": structures.tickets,
    "12": structures.recommender,
    "13": tabular.normalized_inside,
    "13b": tabular.normalized_before,
    "13c": tabular.raw_targets,
    "14": images.segmentation,
    "15": text.addition,
    "16": tabular.poisson,
    "16b": tabular.absolute,
    "16c": tabular.quantile,
    "16d": tabular.huber,
    "16e": tabular.logarithmic,
    "16f": tabular.model_fisher,
    "17": tabular.rare_class,
    "19": text.masked_tags,
    "19b": text.ignored_tags,
    "19c": text.own_loss_tags,
    "20": images.soft_labels,
    "22": images.subclassed,
    "23": images.convnet,
}
WITHOUT_DATA = ("11", "12", "15", "19", "19b", "19c")  # made up


def main():
    options = arguments()
    study.run_all(options, options.programs, run, report, page)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="folder with the data sets, see README.md")
    parser.add_argument("--programs", help="comma-separated numbers; by default all there are")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two epochs of few examples")
    parser.add_argument("--results", type=Path, default=Path("demo_output/programs.jsonl"))
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args()
    there = PROGRAMS if options.data_dir else WITHOUT_DATA
    options.programs = options.programs.split(",") if options.programs else list(there)
    return options


def run(number, seed, options, results):
    """The stages after `evaluate` are those of the first seed alone."""
    key = {"program": number, "seed": seed, "quick": options.quick}
    if results.find(**key):
        return
    program = PROGRAMS[number](options.data_dir)
    program = shortened(program) if options.quick else program
    about = {"source": program.source, "metric": program.metric, **versions()}
    results.add(key | about | measured(program, seed, with_stages=seed == 0))


def versions():
    return {"backend": keras.backend.backend(), "keras": keras.__version__}


def report(rows):
    """Markdown: what the numbers come to, the numbers, what failed, and what was run."""
    return "\n\n".join(part for part in tables(rows).values() if part)


def tables(rows):
    programs = list(by_program(rows))
    return {
        "counts": counts(programs),
        "numbers": numbers(programs),
        "stages": stages(programs),
        "programs": table(
            ["number", "public example, and data here", "N", "epochs"],
            [[p[0]["program"], p[0]["source"], p[0]["num_data"], p[0]["epochs"]] for p in programs],
        ),
    }


def by_program(rows):
    """Lists of the seeds' rows, in the order of `PROGRAMS`."""
    for number in PROGRAMS:
        mine = [row for row in rows if row["program"] == number]
        if mine:
            yield mine


def mean(rows, key):
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.mean(values)) if values else None


def counts(programs):
    """In how many programs the test loss is below Adam's, and in which it is not."""
    lines = []
    for name, words in (("ensemble", "from random weights"), ("warm", "from Adam's weights")):
        gaps = {}
        for mine in programs:
            ours, adams = mean(mine, f"{name}_loss"), mean(mine, "adam_loss")
            if ours is not None and adams is not None:
                gaps[mine[0]["program"]] = ours - adams
        worse = [number for number, gap in gaps.items() if not gap < 0]
        text = f"- The ensemble {words} has a lower test loss than Adam in {len(gaps) - len(worse)}"
        text += f" of {len(gaps)} programs"
        lines.append(text + (f", and not in {', '.join(worse)}." if worse else "."))
    return "\n".join(lines)


def numbers(programs):
    head = ["program", "metric", *WAYS, *(f"loss, {way}" for way in WAYS), "time"]
    return table(head, [numbers_of(mine) for mine in programs])


WAYS = {"Adam": "adam", "ensemble": "ensemble", "warm start": "warm"}


def numbers_of(rows):
    found = [mean(rows, f"{w}_{key}") for key in ("metric", "loss") for w in WAYS.values()]
    seconds = [mean(rows, f"{way}_seconds") for way in ("adam", "ensemble")]
    ratio = f"{seconds[1] / seconds[0]:.1f}" if None not in seconds else ""
    name = f"{rows[0]['program']} {rows[0]['source'].split(',')[0].split(':')[0]}"
    return [name, METRICS.get(rows[0]["metric"], rows[0]["metric"]), *map(shown, found), ratio]


METRICS = {
    ACCURACY: "accuracy",
    RMSE: "RMSE",
    "auc": "AUC",
    "binary_accuracy": "accuracy",
    "department_accuracy": "accuracy",
}


def shown(value):
    if value is None:
        return ""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"


def stages(programs):
    """A line for each program: which stages hold, the words of those that do not, and warnings."""
    lines = []
    for mine in programs:
        words = mine[0]["stages"]  # of the first seed
        failed = [f"`{name}`: {text}" for name, text in words.items() if text]
        held = sum(words.get(name, "not run") is None for name in STAGES)
        said = [f"warned: {text}" for text in mine[0]["warned"]]
        lines.append([mine[0]["program"], f"{held} of {len(STAGES)}", cell(failed + said)])
    return table(["program", "stages that hold", "what was said"], lines)


def cell(texts):
    return "; ".join(texts).replace("|", "\\|").replace("\n", " ")


def page(path):
    return pages.with_tables(path, tables(Results(path).rows))


if __name__ == "__main__":
    main()
