"""How good predictions of classes are: rows and figures of a report."""

import numpy as np

from keras_langevin import calibration, plotting
from keras_langevin.predictive.row import Row, drawing, guess, percent


def report_of_classes(probabilities, labels, outside=None):
    """For probabilities `(members, n, classes)` and labels `(n,)`; `outside` are those of inputs
    of another kind."""
    rows = [guess_of_classes(labels), *classes(probabilities, labels, outside)]
    return rows, figures(probabilities, labels, outside)


def guess_of_classes(labels):
    """Row: what always predicting the frequencies of the labels would reach."""
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return guess(-np.sum(shares * np.log(shares)))


def classes(probabilities, labels, outside=None):
    """Rows for probabilities `(members, n, classes)` and labels `(n,)`; `outside` are those of
    inputs of another kind."""
    average = normalised(probabilities.mean(axis=0))
    single = np.mean(probabilities.argmax(-1) == labels)
    confidence, is_right = average.max(axis=-1), average.argmax(axis=-1) == labels
    gap = float(np.mean(confidence) - np.mean(is_right))
    doubt = _doubt(probabilities)
    rows = [
        percent("accuracy", float(np.mean(is_right)), "accuracy", "Share of right predictions."),
        percent(
            "accuracy_of_members", float(single), "the same, one member alone", "Average of all."
        ),
        Row(
            "brier_score",
            calibration.brier_score(average, labels),
            "Brier score",
            "Squared error of the probabilities, 0 to 2, lower is better.",
        ),
        percent(
            "expected_calibration_error",
            calibration.expected_calibration_error(average, labels),
            "calibration error (ECE)",
            "How far confidence and accuracy are apart in 15 bins; 0 is perfect.",
        ),
        Row(
            "overconfidence",
            gap,
            "confidence minus accuracy",
            "Above 0: more sure than right. Below 0: more right than sure.",
            "+.1%",
        ),
        percent(
            "area_under_risk_coverage",
            calibration.area_under_risk_coverage(confidence, is_right),
            "error when it may abstain",
            "Mean error rate when the least sure predictions are left out one by one.",
        ),
        percent(
            "epistemic_share",
            float(doubt["epistemic"].sum() / max(doubt["total"].sum(), 1e-30)),
            "share of doubt that is about the weights",
            "The rest is noise of the data, on which members agree.",
        ),
    ]
    return rows + (out_of_distribution(probabilities, outside) if outside is not None else [])


def out_of_distribution(inside, outside):
    entropies = [
        calibration.predictive_entropy(normalised(p.mean(axis=0))) for p in (inside, outside)
    ]
    return [
        percent(
            "out_of_distribution_auroc",
            calibration.out_of_distribution_auroc(*entropies),
            "strange inputs told apart (AUROC)",
            "By predictive entropy; 50 % is chance, 100 % perfect.",
        ),
        percent(
            "out_of_distribution_aupr",
            calibration.out_of_distribution_aupr(*entropies),
            "strange inputs told apart (AUPR)",
            "Average precision; chance is the share of strange inputs.",
        ),
        percent(
            "false_positive_rate",
            calibration.false_positive_rate(*entropies),
            "false alarms at 95 % found (FPR95)",
            "Share of ordinary inputs that look as strange; lower is better.",
        ),
    ]


def figures(probabilities, labels, outside):
    """Pairs of a caption and a function that draws."""
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


def normalised(probabilities):
    """Sums of float32 are off by more than a float64 check allows."""
    probabilities = np.asarray(probabilities, "float64")
    return probabilities / probabilities.sum(axis=-1, keepdims=True)


def _doubt(probabilities):
    total = calibration.predictive_entropy(normalised(probabilities.mean(axis=0)))
    members = calibration.predictive_entropy(normalised(probabilities))
    return {"total": total, "epistemic": np.maximum(total - members.mean(axis=0), 0.0)}
