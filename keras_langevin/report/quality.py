"""How good the predictions are: the first part of a report."""

import numpy as np

from keras_langevin import calibration
from keras_langevin.report.row import Row, percent

LEVELS = (0.5, 0.9)  # of the intervals whose coverage is reported


def likelihood(log_likelihood):
    """Rows for any family; `log_likelihood` is `(members, n)`."""
    ensemble = -calibration.log_predictive_density(log_likelihood)
    members = -np.mean(log_likelihood, axis=1)
    return [
        Row("num_labels", log_likelihood.shape[1], "labels", "That all this is measured on.", ",d"),
        Row(
            "negative_log_likelihood",
            ensemble,
            "negative log-likelihood",
            "Nats per label, lower is better: what `evaluate` calls loss.",
        ),
        Row(
            "negative_log_likelihood_of_members",
            float(np.mean(members)),
            "the same, one member alone",
            "Average of the members. The ensemble is never worse; the gap is what it gains.",
        ),
    ]


def guess_of_classes(labels):
    """Row: what always predicting the frequencies of the labels would reach."""
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return _guess(-np.sum(shares * np.log(shares)))


def guess_of_real_numbers(y):
    """Row: what always predicting one Gaussian would reach, for y `(..., d)`."""
    stddev = np.maximum(y.reshape(-1, y.shape[-1]).std(axis=0), 1e-30)
    return _guess(np.sum(np.log(stddev) + 0.5 * np.log(2 * np.pi * np.e)))


def _guess(value):
    return Row(
        "negative_log_likelihood_of_guessing",
        float(value),
        "the same, blind guessing",
        "Always predicting how often the labels occur here.",
    )


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


def real_numbers(mean, stddev, y, pit):
    """Rows for Gaussians with means and stddevs `(members, ..., d)`, y `(..., d)` and F(y)."""
    average = mean.mean(axis=0)
    noise, doubt = float(np.mean(stddev**2)), float(np.mean((mean - average) ** 2))
    coverage = calibration.interval_coverage_curve(pit.ravel(), LEVELS)
    rows = [
        Row(
            "root_mean_squared_error",
            float(np.sqrt(np.mean((average - y) ** 2))),
            "root mean squared error",
            "Of the average prediction, in the units of y.",
        ),
        Row(
            "continuous_ranked_probability_score",
            calibration.continuous_ranked_probability_score(mean, stddev, y),
            "CRPS",
            "Distance of predicted distribution and y, in the units of y, lower is better.",
        ),
    ]
    rows += [
        percent(
            f"coverage_{100 * level:.0f}",
            float(share),
            f"inside the {100 * level:.0f} % interval",
            f"Should be {100 * level:.0f} %: less is overconfident, more is too careful.",
        )
        for level, share in zip(LEVELS, coverage, strict=True)
    ]
    rows.append(
        percent(
            "epistemic_share",
            doubt / max(noise + doubt, 1e-30),
            "share of variance that is about the weights",
            "The rest is noise of the data, on which members agree.",
        )
    )
    return rows


def normalised(probabilities):
    """Sums of float32 are off by more than a float64 check allows."""
    probabilities = np.asarray(probabilities, "float64")
    return probabilities / probabilities.sum(axis=-1, keepdims=True)


def _doubt(probabilities):
    total = calibration.predictive_entropy(normalised(probabilities.mean(axis=0)))
    members = calibration.predictive_entropy(normalised(probabilities))
    return {"total": total, "epistemic": np.maximum(total - members.mean(axis=0), 0.0)}
