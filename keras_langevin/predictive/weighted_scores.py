"""Scores of `kl.calibration` for examples that do not count alike, and for labels in shades.

`right` is the share of the label that the prediction has: 0 or 1, or between of a soft label.
"""

import numpy as np

from keras_langevin.calibration.reliability import inner_edges
from keras_langevin.predictive.label_weights import weighted_mean

BINS = 15


def expected_calibration_error(confidence, right, weights):
    """In bins of equal width; see `kl.calibration.expected_calibration_error`."""
    bins = np.searchsorted(inner_edges(BINS), confidence, side="right")
    gaps = np.bincount(bins, weights * (right - confidence), BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def area_under_risk_coverage(confidence, right, weights):
    """See `kl.calibration.area_under_risk_coverage`; an example of weight w counts as w examples
    of the same confidence, w a share of one being the share of a step."""
    _, group = np.unique(-confidence, return_inverse=True)
    size = np.bincount(group, weights)
    wrong = np.bincount(group, weights * (1 - right))
    last, sum_of_wrong = np.append(0, np.cumsum(size)), np.append(0, np.cumsum(wrong))
    unit = weights.sum() / len(weights)
    kept = unit * np.arange(1, len(weights) + 1)
    return float(np.mean(np.interp(kept, last, sum_of_wrong) / kept))


def out_of_distribution_auroc(inside, outside, weights):
    """See `kl.calibration.out_of_distribution_auroc`; the weights are of those inside."""
    below = _weight_below(inside, weights, outside, "left")
    return float(np.mean(below + _weight_below(inside, weights, outside, "right")) / 2)


def out_of_distribution_aupr(inside, outside, weights):
    """See `kl.calibration.out_of_distribution_aupr`; the weights are of those inside."""
    outside = np.sort(outside)
    found = len(outside) - np.searchsorted(outside, outside, side="left")
    false_alarms = weights.sum() * (1 - _weight_below(inside, weights, outside, "left"))
    return float(np.mean(found / (found + false_alarms)))


def false_positive_rate(inside, outside, weights, share=0.95):
    """See `kl.calibration.false_positive_rate`; the weights are of those inside."""
    reached = np.arange(1, len(outside) + 1) / len(outside)
    threshold = np.sort(outside)[::-1][np.searchsorted(reached, share)]
    return float(weighted_mean(inside >= threshold, weights))


def _weight_below(inside, weights, scores, side):
    """The share of the weight that is below each score, or with `side="right"` not above."""
    order = np.argsort(inside)
    sums = np.append(0, np.cumsum(weights[order])) / weights.sum()
    return sums[np.searchsorted(inside[order], scores, side=side)]
