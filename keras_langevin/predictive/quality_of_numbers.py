"""How good predictions of real numbers are: rows and figures of a report."""

import numpy as np

from keras_langevin import calibration, plotting
from keras_langevin.predictive.row import Row, drawing, guess, percent

LEVELS = (0.5, 0.9)  # of the intervals whose coverage is reported


def report_of_gaussians(mean, stddev, y):
    """For the members' means and standard deviations `(members, ..., d)`, and as many y."""
    y = np.asarray(y, "float64").reshape(mean.shape[1:])
    pit = calibration.probability_integral_transform(mean, stddev, y)
    score = Row(
        "continuous_ranked_probability_score",
        calibration.continuous_ranked_probability_score(mean, stddev, y),
        "CRPS",
        "Distance of predicted distribution and y, in the units of y, lower is better.",
    )
    rows = [
        guess_of_real_numbers(y),
        root_mean_squared_error(mean, y),
        score,
        *coverage(pit),
        epistemic_share(mean, stddev**2),
    ]
    return rows, [coverage_figure(pit)]


def guess_of_real_numbers(y):
    """Row: what always predicting one Gaussian would reach, for y `(..., d)`."""
    stddev = np.maximum(y.reshape(-1, y.shape[-1]).std(axis=0), 1e-30)
    return guess(np.sum(np.log(stddev) + 0.5 * np.log(2 * np.pi * np.e)))


def root_mean_squared_error(mean, y):
    """Row: for the members' means `(members, ...)`."""
    return Row(
        "root_mean_squared_error",
        float(np.sqrt(np.mean((mean.mean(axis=0) - y) ** 2))),
        "root mean squared error",
        "Of the average prediction, in the units of y.",
    )


def coverage(pit):
    """Rows: how many y are in central intervals, for F(y) of each y."""
    found = calibration.interval_coverage_curve(pit.ravel(), LEVELS)
    return [
        percent(
            f"coverage_{100 * level:.0f}",
            float(share),
            f"inside the {100 * level:.0f} % interval",
            f"Should be {100 * level:.0f} %: less is overconfident, more is too careful.",
        )
        for level, share in zip(LEVELS, found, strict=True)
    ]


def coverage_figure(pit):
    """A caption and a function that draws, for F(y) of each y."""
    return "Coverage of central intervals", drawing(plotting.coverage, pit.ravel())


def epistemic_share(mean, variance):
    """Row: for the members' means and variances `(members, ...)`."""
    noise, doubt = float(np.mean(variance)), float(np.mean((mean - mean.mean(axis=0)) ** 2))
    return percent(
        "epistemic_share",
        doubt / max(noise + doubt, 1e-30),
        "share of variance that is about the weights",
        "The rest is noise of the data, on which members agree.",
    )
