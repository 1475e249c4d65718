"""How good predictions of real numbers are: rows and figures of a report.

Members have the shape `(members, *y.shape)`, weights, how much each y counts, that of y.
"""

import numpy as np

from keras_langevin import calibration, plotting
from keras_langevin.calibration.ranked_probability import ranked_probability_scores
from keras_langevin.predictive.label_weights import as_if_drawn, label_weights, weighted_mean
from keras_langevin.predictive.row import Row, drawing, guess, percent

LEVELS = (0.5, 0.9)  # of the intervals whose coverage is reported


def report_of_gaussians(mean, stddev, y, weights=None):
    """For the members' means and standard deviations `(members, ..., d)`, and as many y."""
    y = np.asarray(y, "float64").reshape(mean.shape[1:])
    weights = label_weights(weights, y.shape)
    pit = calibration.probability_integral_transform(mean, stddev, y)
    score = Row(
        "continuous_ranked_probability_score",
        float(weighted_mean(ranked_probability_scores(mean, stddev, y), weights)),
        "CRPS",
        "Distance of predicted distribution and y, in the units of y, lower is better.",
    )
    rows = [
        guess_of_real_numbers(y, weights),
        *root_mean_squared_errors(mean, y, weights),
        score,
        *coverage(pit, weights),
        epistemic_share(mean, stddev**2, weights),
    ]
    return rows, [coverage_figure(pit, weights)]


def guess_of_real_numbers(y, weights):
    """Row: what always predicting one Gaussian would reach, for y `(..., d)` or `(n,)`."""
    width = y.shape[-1] if y.ndim > 1 else 1
    y, weights = y.reshape(-1, width), weights.reshape(-1, width)
    mean = np.sum(weights * y, axis=0) / weights.sum(axis=0)
    variance = np.sum(weights * (y - mean) ** 2, axis=0) / weights.sum(axis=0)
    stddev = np.maximum(np.sqrt(variance), 1e-30)
    return guess(np.sum(np.log(stddev) + 0.5 * np.log(2 * np.pi * np.e)))


def root_mean_squared_errors(mean, y, weights):
    """Rows: of the members' means `(members, ...)`, and of what is known without a model."""
    name, label = "root_mean_squared_error", "root mean squared error"
    columns, own = (a.reshape(-1, y.shape[-1] if y.ndim > 1 else 1) for a in (y, weights))
    centre = np.sum(own * columns, axis=0) / own.sum(axis=0)
    squares = (mean - y) ** 2
    return [
        Row(
            f"{name}{end}",
            float(np.sqrt(weighted_mean(errors, counts))),
            label if not end else f"the same, {words}",
            meaning,
        )
        for end, words, errors, counts, meaning in (
            ("", "", (mean.mean(axis=0) - y) ** 2, weights, "In the units of y."),
            ("_of_members", "one member alone", squares.mean(axis=0), weights, "Of all members."),
            ("_of_guessing", "blind guessing", (columns - centre) ** 2, own, "By the mean of y."),
        )
    ]


def coverage(pit, weights):
    """Rows: how many y are in central intervals, for F(y) of each y."""
    centrality = np.abs(2 * pit - 1)
    return [
        percent(
            f"coverage_{100 * level:.0f}",
            float(weighted_mean(centrality <= level, weights)),
            f"inside the {100 * level:.0f} % interval",
            f"Should be {100 * level:.0f} %: less is overconfident, more is too careful.",
        )
        for level in LEVELS
    ]


def coverage_figure(pit, weights):
    """A caption and a function that draws, for F(y) of each y; where they do not count alike, of
    draws by their weights."""
    shown = pit.ravel()[as_if_drawn(weights.ravel())]
    return "Coverage of central intervals", drawing(plotting.coverage, shown)


def epistemic_share(mean, variance, weights):
    """Row: for the members' means and variances `(members, ...)`."""
    noise = float(weighted_mean(np.mean(variance, axis=0), weights))
    doubt = float(weighted_mean(np.var(mean, axis=0), weights))
    return percent(
        "epistemic_share",
        doubt / max(noise + doubt, 1e-30),
        "share of variance that is about the weights",
        "The rest is noise of the data, on which members agree.",
    )
