"""How good predictions of classes are: rows and figures of a report.

Probabilities have the shape `(members, n, classes)`, targets `(n, classes)`, the share of each
class in a label, and weights `(n,)`, how much it counts.
"""

import numpy as np

from keras_langevin import calibration, plotting
from keras_langevin.predictive import weighted_scores
from keras_langevin.predictive.label_weights import as_if_drawn, weighted_mean
from keras_langevin.predictive.row import Row, drawing, guess, percent


def report_of_classes(probabilities, targets, outside=None, weights=None, trained_on=None):
    """Rows and figures; `outside` are the probabilities of inputs of another kind, and
    `trained_on` the targets as the loss took them, where it smoothed them."""
    weights = np.ones(len(targets)) if weights is None else weights
    counts = weights > 0
    trained_on = targets if trained_on is None else trained_on
    targets, weights, trained_on = targets[counts], weights[counts], trained_on[counts]
    probabilities = probabilities[:, counts]
    rows = [
        guess_of_classes(trained_on, weights),
        *classes(probabilities, targets, outside, weights),
    ]
    return rows, figures(probabilities, targets, outside, weights)


def guess_of_classes(targets, weights):
    """Row: what always predicting the frequencies of the labels would reach."""
    shares = weighted_mean(targets, weights)
    shares = shares[shares > 0]
    return guess(-np.sum(shares * np.log(shares)))


def classes(probabilities, targets, outside, weights):
    """Rows beside that."""
    average = normalised(probabilities.mean(axis=0))
    confidence, right = average.max(axis=-1), _right(average, targets)
    single = np.mean([weighted_mean(_right(one, targets), weights) for one in probabilities])
    doubt = _doubt(probabilities, weights)
    accuracy = [
        percent(
            "accuracy",
            float(weighted_mean(right, weights)),
            "accuracy",
            "Share of right predictions.",
        ),
        percent(
            "accuracy_of_members", float(single), "the same, one member alone", "Average of all."
        ),
        percent(
            "accuracy_of_guessing",
            float(weighted_mean(targets, weights).max()),
            "the same, blind guessing",
            "Always predicting the class that is most frequent here.",
        ),
    ]
    rows = [
        *(accuracy if is_whole(targets) else []),
        Row(
            "brier_score",
            float(weighted_mean(np.sum((average - targets) ** 2, axis=-1), weights)),
            "Brier score",
            "Squared error of the probabilities, 0 to 2, lower is better.",
        ),
        percent(
            "expected_calibration_error",
            weighted_scores.expected_calibration_error(confidence, right, weights),
            "calibration error (ECE)",
            "How far confidence and accuracy are apart in 15 bins; 0 is perfect.",
        ),
        Row(
            "overconfidence",
            float(weighted_mean(confidence - right, weights)),
            "confidence minus accuracy",
            "Above 0: more sure than right. Below 0: more right than sure.",
            "+.1%",
        ),
        percent(
            "area_under_risk_coverage",
            weighted_scores.area_under_risk_coverage(confidence, right, weights),
            "error when it may abstain",
            "Mean error rate when the least sure predictions are left out one by one.",
        ),
        percent(
            "epistemic_share",
            float(doubt["epistemic"] / max(doubt["total"], 1e-30)),
            "share of doubt that is about the weights",
            "The rest is noise of the data, on which members agree.",
        ),
    ]
    return rows + (
        out_of_distribution(probabilities, outside, weights) if outside is not None else []
    )


def out_of_distribution(inside, outside, weights):
    entropies = [
        calibration.predictive_entropy(normalised(p.mean(axis=0))) for p in (inside, outside)
    ]
    return [
        percent(
            "out_of_distribution_auroc",
            weighted_scores.out_of_distribution_auroc(*entropies, weights),
            "strange inputs told apart (AUROC)",
            "By predictive entropy; 50 % is chance, 100 % perfect.",
        ),
        percent(
            "out_of_distribution_aupr",
            weighted_scores.out_of_distribution_aupr(*entropies, weights),
            "strange inputs told apart (AUPR)",
            "Average precision; chance is the share of strange inputs.",
        ),
        percent(
            "false_positive_rate",
            weighted_scores.false_positive_rate(*entropies, weights),
            "false alarms at 95 % found (FPR95)",
            "Share of ordinary inputs that look as strange; lower is better.",
        ),
    ]


def figures(probabilities, targets, outside, weights):
    """Pairs of a caption and a function that draws. Of examples that do not count alike, draws by
    their weights are shown; of a soft label, a class drawn from it."""
    shown = as_if_drawn(weights)
    probabilities, labels = probabilities[:, shown], _whole(targets[shown])
    average = normalised(probabilities.mean(axis=0))
    confidence, is_right = average.max(axis=-1), average.argmax(axis=-1) == labels
    entropies = [
        calibration.predictive_entropy(normalised(p.mean(axis=0)))
        for p in (probabilities, outside)
        if p is not None
    ]
    num_classes = average.shape[-1]
    return [
        ("Reliability", drawing(plotting.reliability, average, labels)),
        ("Risk and coverage", drawing(plotting.risk_coverage, confidence, is_right)),
        (
            "Predictive entropy",
            drawing(plotting.entropy_histogram, *entropies, num_classes=num_classes),
        ),
        ("Agreement of members", drawing(plotting.member_agreement, probabilities)),
    ]


def is_whole(targets):
    """Whether every label is one class."""
    return bool(np.isin(targets, (0, 1)).all())


def normalised(probabilities):
    """Sums of float32 are off by more than a float64 check allows."""
    probabilities = np.asarray(probabilities, "float64")
    return probabilities / probabilities.sum(axis=-1, keepdims=True)


def _right(probabilities, targets):
    """The share of each label that the most probable class has."""
    best = probabilities.argmax(axis=-1)
    return np.take_along_axis(targets, best[:, None], axis=-1)[:, 0]


def _whole(targets, seed=0):
    """Class numbers, drawn where a label is of several classes."""
    if is_whole(targets):
        return targets.argmax(axis=-1)
    levels = np.random.default_rng(seed).uniform(size=(len(targets), 1))
    return (np.cumsum(normalised(targets), axis=-1) < levels).sum(axis=-1)


def _doubt(probabilities, weights):
    total = calibration.predictive_entropy(normalised(probabilities.mean(axis=0)))
    members = calibration.predictive_entropy(normalised(probabilities))
    epistemic = np.maximum(total - members.mean(axis=0), 0.0)
    return {"total": weights @ total, "epistemic": weights @ epistemic}
