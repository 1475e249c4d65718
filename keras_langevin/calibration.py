"""How good predicted probabilities are: likelihood, calibration, and out-of-distribution scores.

Plain functions of NumPy arrays, computed in float64, on every backend. In all of them

- `probabilities` has the shape `(examples, classes)`, each row a distribution: what
  `BayesianEnsembleModel.predict` returns, or `softmax` of a model's logits. Average the members'
  PROBABILITIES before you come here: the mean of logits is another, sharper prediction.
- `labels` has the shape `(examples,)`, integers from 0 to `classes - 1`.

>>> probabilities = ensemble.predict(x_test)
>>> kl.calibration.negative_log_likelihood(probabilities, y_test)
0.0604
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class ReliabilityCurve(NamedTuple):
    """What `reliability_curve` returns: three arrays, one entry per bin."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def negative_log_likelihood(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log p(label) over the examples, in nats; lower is better.

    A proper score: the true probabilities minimise its expectation. For the posterior
    predictive of an ensemble it is minus the log pointwise predictive density (lppd) per
    example. Infinite when a label was given probability exactly 0.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` integers.
    """
    probabilities, labels = _predictions(probabilities, labels)
    with np.errstate(divide="ignore"):
        return float(-np.mean(np.log(_of_labels(probabilities, labels))))


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of examples whose most probable class is the label, 0 to 1; higher is better.

    Of several classes that are equally probable the first one is the prediction.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` integers.
    """
    probabilities, labels = _predictions(probabilities, labels)
    return float(np.mean(probabilities.argmax(axis=-1) == labels))


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the examples of Σ_k (p_k - [k = label])², 0 to 2; lower is better.

    This is the classical sum over ALL classes (Brier 1950), a proper score. TensorFlow
    Probability's `tfp.stats.brier_score` leaves out the constant and is smaller by exactly 1;
    scikit-learn's `brier_score_loss` of two classes is half of this.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` integers.

    References:
        G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly
        Weather Review 78(1), 1950.
    """
    probabilities, labels = _predictions(probabilities, labels)
    squares = np.sum(probabilities**2, axis=-1)
    return float(np.mean(squares - 2 * _of_labels(probabilities, labels) + 1))


def reliability_curve(
    probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15
) -> ReliabilityCurve:
    """How often a prediction is right, by how confident it was.

    Examples are put in bins of equal width by their confidence, the probability of the most
    probable class. Bin b of B holds confidences in [b/B, (b+1)/B); the last one holds 1 as
    well. So every example is in exactly one bin.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` integers.
        num_bins: Number of bins, >= 1.

    Returns:
        `ReliabilityCurve` of arrays with the shape `(num_bins,)`: `confidence`, the mean
        confidence in each bin; `accuracy`, the share of right predictions; both NaN in an empty
        bin; `count`, the number of examples.
    """
    probabilities, labels = _predictions(probabilities, labels)
    num_bins = _bin_number(num_bins)
    confidence = probabilities.max(axis=-1)
    is_right = probabilities.argmax(axis=-1) == labels
    inner_edges = np.arange(1, num_bins) / num_bins
    bins = np.searchsorted(inner_edges, confidence, side="right")
    count = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 of an empty bin
        return ReliabilityCurve(
            confidence=np.bincount(bins, weights=confidence, minlength=num_bins) / count,
            accuracy=np.bincount(bins, weights=is_right, minlength=num_bins) / count,
            count=count,
        )


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15
) -> float:
    """Σ_b (n_b / n) |accuracy_b - confidence_b| over the bins of `reliability_curve`, 0 to 1.

    Lower is better, but it is not a proper score: it depends on the number of bins, which has to
    be reported with it, and on few examples it is positive even for the true probabilities.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` integers.
        num_bins: Number of bins, >= 1.

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks",
        ICML 2017, https://arxiv.org/abs/1706.04599, equation 3.
    """
    curve = reliability_curve(probabilities, labels, num_bins)
    gap = np.where(curve.count > 0, np.abs(curve.accuracy - curve.confidence), 0.0)
    return float(np.sum(curve.count * gap) / np.sum(curve.count))


def predictive_entropy(probabilities: ArrayLike) -> np.ndarray:
    """-Σ_k p_k log p_k of each distribution, in nats: 0 (certain) to log(classes) (no idea).

    Args:
        probabilities: `(..., classes)`. Of an ensemble's mean prediction this is the total
            uncertainty; of its members, `(members, examples, classes)`, averaged over members,
            the aleatoric part.

    Returns:
        Array with the shape `(...)`.
    """
    probabilities = _distributions(probabilities)
    logarithms = np.log(np.where(probabilities > 0, probabilities, 1.0))  # 0 log 0 = 0
    return np.maximum(-np.sum(probabilities * logarithms, axis=-1), 0.0)


def out_of_distribution_auroc(score_in: ArrayLike, score_out: ArrayLike) -> float:
    """P(score_out > score_in) + P(score_out = score_in) / 2 of two randomly chosen examples.

    The area under the ROC curve of "score above a threshold means out of distribution": 1
    separates perfectly, 0.5 is chance, below 0.5 the score points the wrong way.

    Args:
        score_in: `(examples,)` scores of data like the training data; larger means stranger, as
            `predictive_entropy` does.
        score_out: `(other examples,)` scores of data of another kind.

    References:
        J. A. Hanley, B. J. McNeil, "The meaning and use of the area under a receiver operating
        characteristic (ROC) curve", Radiology 143(1), 1982.
    """
    score_in = np.sort(_scores("score_in", score_in))
    score_out = _scores("score_out", score_out)
    below = np.searchsorted(score_in, score_out, side="left")
    below_or_equal = np.searchsorted(score_in, score_out, side="right")
    return float(np.mean(below + below_or_equal) / (2 * score_in.size))


def _of_labels(probabilities, labels):
    return probabilities[np.arange(labels.size), labels]


def _predictions(probabilities, labels):
    probabilities = _distributions(probabilities)
    if probabilities.ndim != 2:
        raise ValueError(
            "`probabilities` must have the shape (examples, classes). Received: "
            f"probabilities.shape={probabilities.shape}. Average over ensemble members, or reshape "
            "all other axes into one."
        )
    labels = np.asarray(labels)
    examples, classes = probabilities.shape
    if labels.shape != (examples,):
        raise ValueError(
            f"`labels` must have the shape ({examples},), one for each row of `probabilities`. "
            f"Received: labels.shape={labels.shape}. Use `labels.argmax(-1)` for one-hot labels, "
            "`labels[:, 0]` for a column."
        )
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers. Received: labels.dtype={labels.dtype}. Convert them with "
            "`labels.astype(int)` if they are class numbers."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"`labels` must be from 0 to {classes - 1}, since `probabilities` has {classes} "
            f"classes. Received: labels from {labels.min()} to {labels.max()}. Number the classes "
            "from 0, and leave out examples without a label."
        )
    return probabilities, labels


def _distributions(probabilities):
    probabilities = np.asarray(probabilities)
    # Sums of half-precision softmax outputs are off by up to a percent.
    tolerance = 1e-4 if probabilities.dtype.itemsize >= 4 else 1e-2
    probabilities = probabilities.astype("float64")
    if probabilities.ndim == 0 or probabilities.size == 0 or probabilities.shape[-1] < 2:
        raise ValueError(
            "`probabilities` must have at least one example, and two or more classes on its last "
            f"axis. Received: probabilities.shape={probabilities.shape}. For a binary model that "
            "returns p use `np.stack([1 - p, p], axis=-1)`."
        )
    if np.isnan(probabilities).any():
        raise ValueError(
            "`probabilities` must be numbers. Received: NaN in "
            f"{np.isnan(probabilities).any(axis=-1).sum()} rows. Look for a diverged model."
        )
    lowest, sums = probabilities.min(), probabilities.sum(axis=-1)
    worst = sums.flat[np.abs(sums - 1).argmax()]
    if lowest < 0 or abs(worst - 1) > tolerance:
        raise ValueError(
            "`probabilities` must be at least 0 and sum to 1 over the last axis. Received: "
            f"smallest probability={lowest:.6g}, sum farthest from 1={worst:.6g}. Apply "
            "`keras.ops.softmax` to logits, `np.exp` to log-probabilities."
        )
    return probabilities


def _scores(name, scores):
    scores = np.asarray(scores, dtype="float64")
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(
            f"`{name}` must have the shape (examples,) with at least one example. Received: "
            f"{name}.shape={scores.shape}. Give one score per example."
        )
    if np.isnan(scores).any():
        raise ValueError(
            f"`{name}` must be numbers. Received: NaN in {np.isnan(scores).sum()} of {scores.size} "
            "scores. Look for a diverged model."
        )
    return scores


def _bin_number(num_bins):
    is_integer = isinstance(num_bins, (int, np.integer)) and not isinstance(num_bins, bool)
    if not is_integer or num_bins < 1:
        raise ValueError(f"`num_bins` must be an integer >= 1. Received: num_bins={num_bins!r}.")
    return int(num_bins)
