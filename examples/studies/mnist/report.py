"""The page of the study: tables from the results, in Markdown."""

import numpy as np

from examples.studies.common import pages
from examples.studies.common.r_hat import NOTE, OLD, r_hat_of
from examples.studies.mnist import figures
from examples.studies.mnist.methods import METHODS, SEARCH
from examples.studies.mnist.results import Results
from examples.studies.mnist.training import DROPOUT_PASSES, WARM_START_EPOCHS

DATASETS = {
    "mnist": "MNIST; out of distribution: the test images of Fashion-MNIST",
    "digits": "scikit-learn's 8x8 digits, out of distribution: pieces of two photographs",
}
SCORES = {
    "accuracy": ("accuracy %", 100, 2),
    "nll": ("NLL", 1, 4),
    "ece": ("ECE %", 100, 2),
    "auroc": ("OOD AUROC %", 100, 1),
}


def page(path):
    """The text of the page of the results in this file."""
    results = Results(path)
    rows = list(results.rows().values())
    if not rows:
        raise SystemExit(f"{path} has no results yet: run `tune` and `final` first.")
    tuned, final, why = by_method(rows, "tune"), by_method(rows, "final"), results.why()
    captions = figures.captions(path, final, results.curves(), why)
    sections = [
        introduction(rows),
        *pages.findings(path),
        "## Results\n\n" + final_table(final),
        FINAL_NOTES,
        *(f"![{caption}]({name})" for name, caption in captions.items()),
        "## What it took\n\n" + cost_table(final),
        COST_NOTES,
        *(["## Why\n\n" + why_table(why), WHY_NOTES] if why else []),
        *([NOTE] if any(OLD in found for found in why.values()) else []),
        "## Tuning\n\n" + tuning_table(tuned, final),
        TUNING_NOTES,
        "Search spaces; a range is drawn from log-uniformly, a list uniformly:",
        search_table(),
    ]
    return "\n\n".join(sections) + "\n"


def draw(path):
    """Writes the figures of the page."""
    results = Results(path)
    final = by_method(results.rows().values(), "final")
    figures.draw_all(path, final, results.curves(), results.why())


def by_method(rows, phase):
    """Lists of the rows of a phase by name, in the order of `METHODS`."""
    groups = {name: [] for name in METHODS}
    for row in sorted((row for row in rows if row.phase == phase), key=lambda row: row.index):
        groups[row.method].append(row)
    return {name: group for name, group in groups.items() if group}


def introduction(rows):
    tune, final = (
        [row for row in rows if row.phase == phase and METHODS[row.method].kind == "chain"]
        for phase in ("tune", "final")
    )
    text = [
        "# Natural Langevin dynamics: the study",
        f"{DATASETS[rows[0].dataset]}. A network pixels-100-100-10 with ReLU, batches of "
        f"{rows[0].batch_size}, pixels from 0 to 1.",
        phase_words("Tuning", tune, "the last sixth of the training set validates, one seed"),
        phase_words("Final runs", final, "trained on the whole training set"),
        f"Chains (samplers and snapshots) start from {WARM_START_EPOCHS} epochs of Adam, which are "
        "counted in their epochs and seconds; they burn in until a third of all epochs and then "
        "store one sample per epoch.",
    ]
    return "\n\n".join(part for part in text if part)


def phase_words(title, rows, words):
    if not rows:
        return ""
    epochs = " or ".join(str(n) for n in sorted({row.epochs for row in rows}))
    return f"{title}: {rows[0].num_data:,} training images, {epochs} epochs; {words}."


FINAL_NOTES = (
    "Mean ± standard error over the seeds, which leaves out that the test set is finite. NLL: mean "
    "negative log-likelihood, nats. ECE: expected calibration error, 15 bins. OOD AUROC: area "
    "under the ROC curve of predictive entropy telling the other images from digits. *point*: the "
    "last weights; *weight mean*: the network with the mean of the sampled weights; *ensemble*: "
    "the mean of the members' probabilities. The controls repeat the chosen cold settings without "
    "noise: what they reach is the work of the prior, the path and the averaging, not of the noise."
)
COST_NOTES = (
    "ms per step: median epoch after the first; of one network for the deep ensemble. Seconds: all "
    "training, with warm start and compilation (by how much first epochs are longer than others), "
    "without evaluation. Clipped: share of steps whose "
    "drift was shortened. Member NLL: of a single network of the ensemble, on average. The times "
    "are of one machine that did other work as well: those of the section below, taken in one "
    "sequence, compare better."
)
WHY_NOTES = (
    "One chain of each sampler with its settings at T = 1. λ: the largest eigenvalue of C H on "
    "5,000 training images, C the inverse metric, H the Gauss-Newton matrix plus the prior; stable "
    "learning rates are below 2/λ. Condition: λ over the smallest Ritz value of 80 Lanczos steps, "
    "which is at least the smallest eigenvalue. η λ/2: share of the stability limit that is used. "
    "Effective samples: of the log-probability of the right class of 200 held-out images, median, "
    "by seconds of sampling. The chains differ in step-size bias and in minibatch noise, so more "
    "effective samples are not better ones; a median R-hat above 1.05 says that this chain is too "
    "short for its number to be more than rough."
)
TUNING_NOTES = (
    "Every tuned method had the same number of random trials; one that diverged counts. NLL: of "
    "the better predictor for dropout, of the ensemble for chains, of the best epoch for SGD and "
    "Adam, whose number of epochs is kept. ηN/(2BT) of the final runs compares minibatch noise "
    "with injected noise in units of the outer-product metric: above 0.1 the sampled law is wider "
    "than the declared one. The T = 1 forms of DOP and QDOP are searched below that bound, the "
    "cold ones are not; for the other samplers the number says nothing."
)


def final_table(final):
    head = ["method", "prediction", *(title for title, _, _ in SCORES.values()), "ms/step", "seeds"]
    lines = []
    for name, rows in final.items():
        finished = [row for row in rows if row.finished]
        seeds = f"{len(finished)} of {len(rows)}" if len(finished) < len(rows) else f"{len(rows)}"
        label = METHODS[name].label
        if not finished:
            lines.append([label, "diverged", *[""] * len(SCORES), "", seeds])
            continue
        for predictor in finished[0].predictions:
            cells = [score_cell(finished, predictor, score) for score in SCORES]
            lines.append([label, predictor, *cells, milliseconds(finished), seeds])
            label = ""
    return table(head, lines, num_words=2)


def score_cell(rows, predictor, score):
    _, factor, digits = SCORES[score]
    return mean_cell([factor * row.predictions[predictor][score] for row in rows], digits)


def mean_cell(values, digits):
    """Mean ± standard error; empty where a value is missing."""
    if None in values:
        return ""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) == 1 or not np.isfinite(values).all():
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}"


def milliseconds(rows):
    return mean_cell([1000 * row.seconds_per_step for row in rows], 2)


def cost_table(final):
    head = [
        *("method", "epochs", "seconds", "of these compilation", "ms/step"),
        *("samples", "member NLL", "clipped %"),
    ]
    lines = []
    for name, rows in final.items():
        rows = [row for row in rows if row.finished]
        if rows:
            clipped = [None if row.clipped is None else 100 * row.clipped for row in rows]
            lines.append(
                [
                    METHODS[name].label,
                    str(rows[0].epochs),
                    mean_cell([row.seconds for row in rows], 1),
                    mean_cell([row.compile_seconds for row in rows], 1),
                    milliseconds(rows),
                    str(rows[0].num_samples or ""),
                    mean_cell([row.member_nll for row in rows], 4),
                    mean_cell(clipped, 2),
                ]
            )
    return table(head, lines, num_words=1)


def why_table(why):
    head = ["sampler", "λ, warm start", "λ, trained", "condition", "η λ/2", "effective samples"]
    head += ["per second", "R-hat", "ms/step"]
    lines = []
    for name, found in why.items():
        largest, smallest = found["trained"]["largest"], found["trained"]["smallest"]
        cells = [found["warm start"]["largest"], largest, largest / smallest]
        cells += [found["settings"]["learning_rate"] * largest / 2, found["effective_samples"]]
        cells += [found["effective_samples_per_second"]]
        cells += [r_hat_of(found, chains=1, draws=found["samples"])]
        cells += [1000 * found["seconds_per_step"]]
        lines.append([METHODS[name].label, *map(three_digits, cells)])
    return table(head, lines, num_words=1)


def three_digits(number):
    return f"{float(f'{number:.3g}'):,.10g}"


def tuning_table(tuned, final):
    head = ["method", "chosen settings", "trials", "diverged", "best NLL", "median NLL", "ηN/(2BT)"]
    lines = []
    for name, rows in tuned.items():
        finished = sorted((row for row in rows if row.finished), key=lambda row: row.objective)
        objectives = [row.objective for row in finished]
        lines.append(
            [
                METHODS[name].label,
                settings_words(finished[0]) if finished else "none",
                str(len(rows)),
                str(len(rows) - len(finished)),
                f"{objectives[0]:.4f}" if finished else "",
                f"{np.median(objectives):.4f}" if finished else "",
                minibatch_noise(final.get(name, finished)),
            ]
        )
    return table(head, lines, num_words=2)


def settings_words(row):
    words = [
        f"{name.replace('_', ' ')} {value:g}"
        for name, value in row.settings.items()
        if name not in METHODS[row.method].fixed
    ]
    if METHODS[row.method].kind == "point":
        words.append(f"{row.epochs} epochs")
    return ", ".join(words)


def minibatch_noise(rows):
    if not rows or not METHODS[rows[0].method].has_outer_product_metric:
        return ""
    row = rows[0]
    settings = row.settings
    injected = 2 * row.batch_size * settings["temperature"]
    return f"{settings['learning_rate'] * row.num_data / injected:.2f}"


def search_table():
    names = list(dict.fromkeys(name for spaces in SEARCH.values() for name in spaces))
    head = ["method", *(name.replace("_", " ") for name in names), "fixed"]
    lines = [
        [
            METHODS[method].label,
            *(str(spaces.get(name, "")) for name in names),
            ", ".join(
                f"{name.replace('_', ' ')} {value:g}"
                for name, value in METHODS[method].fixed.items()
            ),
        ]
        for method, spaces in SEARCH.items()
    ]
    notes = (
        f"\n\nDropout averages {DROPOUT_PASSES} passes; its learning rate falls to 0 by a cosine. "
        "The deep ensemble uses the settings of Adam. The learning rates of SGLD and RMSProp "
        "Langevin are in other units than those of DOP and QDOP; the bound on minibatch noise at "
        "T = 1 is not applied to them."
    )
    return table(head, lines, num_words=len(head)) + notes


def table(head, lines, num_words):
    """In Markdown; the first columns hold words, the others numbers."""
    rules = ["---"] * num_words + ["---:"] * (len(head) - num_words)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rules, *lines])
