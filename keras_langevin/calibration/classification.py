"""Scores of predicted class probabilities, and their entropy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin.calibration.checks import checked_distributions, checked_predictions


def negative_log_likelihood(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log p(label) over the examples, in nats; lower is better.

    A proper score: the true probabilities minimise its expectation. For the posterior
    predictive of an ensemble it is minus the log pointwise predictive density (lppd) per
    example. Infinite when a label was given probability exactly 0.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` integers.
    """
    probabilities, labels = checked_predictions(probabilities, labels)
    with np.errstate(divide="ignore"):
        return float(-np.mean(np.log(_of_labels(probabilities, labels))))


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of examples whose most probable class is the label, 0 to 1; higher is better.

    Of several classes that are equally probable the first one is the prediction.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` integers.
    """
    probabilities, labels = checked_predictions(probabilities, labels)
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
    probabilities, labels = checked_predictions(probabilities, labels)
    squares = np.sum(probabilities**2, axis=-1)
    return float(np.mean(squares - 2 * _of_labels(probabilities, labels) + 1))


def predictive_entropy(probabilities: ArrayLike) -> np.ndarray:
    """-Σ_k p_k log p_k of each distribution, in nats: 0 (certain) to log(classes) (no idea).

    Args:
        probabilities: `(..., classes)`. Of an ensemble's mean prediction this is the total
            uncertainty; of its members, `(members, examples, classes)`, averaged over members,
            the aleatoric part.

    Returns:
        Array with the shape `(...)`.
    """
    probabilities = checked_distributions(probabilities)
    logarithms = np.log(np.where(probabilities > 0, probabilities, 1.0))  # 0 log 0 = 0
    return np.maximum(-np.sum(probabilities * logarithms, axis=-1), 0.0)


def _of_labels(probabilities, labels):
    return probabilities[np.arange(labels.size), labels]
