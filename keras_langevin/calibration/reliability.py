"""Is a prediction right as often as it says?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin import arguments
from keras_langevin.calibration.checks import checked_predictions


class ReliabilityCurve(NamedTuple):
    """What `reliability_curve` returns: three arrays, one entry per bin.

    Attributes:
        confidence: Mean confidence of the examples in the bin.
        accuracy: Share of them whose label is the predicted one.
        count: How many there are.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def reliability_curve(
    probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15, binning: str = "width"
) -> ReliabilityCurve:
    """How often a prediction is right, by how confident it was.

    Examples are put in bins by their confidence, the probability of the most probable class.

    - `binning="width"`: bins of equal width. Bin b of B holds confidences in [b/B, (b+1)/B); the
      last one holds 1 as well.
    - `binning="mass"`: bins of equal numbers of examples, which differ by one at most where all
      confidences are different. Examples of equal confidence share a bin, the lowest of those
      that they would fill, so that the order of the examples does not matter; bins above it may
      stay empty. These are the bins of scikit-learn's `calibration_curve(strategy="quantile")`.

    So every example is in exactly one bin.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` integers.
        num_bins: Number of bins, >= 1.
        binning: `"width"` or `"mass"`.

    Returns:
        `ReliabilityCurve` of arrays with the shape `(num_bins,)`: `confidence`, the mean
        confidence in each bin; `accuracy`, the share of right predictions; both NaN in an empty
        bin; `count`, the number of examples.

    Example:

    >>> p = [[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]]
    >>> curve = kl.calibration.reliability_curve(p, [0, 1, 0, 0], num_bins=2, binning="mass")
    >>> curve.confidence.round(2), curve.accuracy
    (array([0.65, 0.85]), array([0.5, 1. ]))
    """
    probabilities, labels = checked_predictions(probabilities, labels)
    num_bins = arguments.integer("num_bins", num_bins, at_least=1)
    arguments.one_of("binning", binning, ("width", "mass"))
    confidence = probabilities.max(axis=-1)
    is_right = probabilities.argmax(axis=-1) == labels
    bins = _BINS[binning](confidence, num_bins)
    count = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 of an empty bin
        return ReliabilityCurve(
            confidence=np.bincount(bins, weights=confidence, minlength=num_bins) / count,
            accuracy=np.bincount(bins, weights=is_right, minlength=num_bins) / count,
            count=count,
        )


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15, binning: str = "width"
) -> float:
    """Σ_b (n_b / n) |accuracy_b - confidence_b| over the bins of `reliability_curve`, 0 to 1.

    Lower is better, but it is not a proper score: it depends on the bins, which have to be
    reported with it, and on few examples it is positive even for the true probabilities. Bins
    of equal mass (adaptive calibration error) have no bin of a handful of noisy examples, and
    resolve the high confidences where most predictions are.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` integers.
        num_bins: Number of bins, >= 1.
        binning: `"width"` or `"mass"`.

    Example:

    >>> p = [[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]]
    >>> round(kl.calibration.expected_calibration_error(p, [0, 1, 0, 0], binning="mass"), 3)
    0.35

    References:
        - C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural
          Networks", ICML 2017, https://arxiv.org/abs/1706.04599, equation 3.
        - K. Nguyen, B. O'Connor, "Posterior calibration and exploratory analysis for natural
          language processing models", EMNLP 2015, https://arxiv.org/abs/1508.05154 (bins of
          equal mass).
    """
    curve = reliability_curve(probabilities, labels, num_bins, binning)
    gap = np.where(curve.count > 0, np.abs(curve.accuracy - curve.confidence), 0.0)
    return float(np.sum(curve.count * gap) / np.sum(curve.count))


def inner_edges(num_bins: int) -> np.ndarray:
    """Where one of the bins of equal width ends and the next begins."""
    return np.arange(1, num_bins) / num_bins


def _of_equal_width(confidence, num_bins):
    return np.searchsorted(inner_edges(num_bins), confidence, side="right")


def _of_equal_mass(confidence, num_bins):
    last = np.arange(1, num_bins) * (confidence.size - 1) // num_bins
    return np.searchsorted(np.sort(confidence)[last], confidence, side="left")


_BINS = {"width": _of_equal_width, "mass": _of_equal_mass}
