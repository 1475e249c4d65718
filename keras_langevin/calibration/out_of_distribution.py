"""How well a score tells data of another kind from data like the training data.

Out of distribution is the positive class, and larger scores are stranger.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin import arguments
from keras_langevin.calibration.checks import checked_scores


def out_of_distribution_auroc(score_in: ArrayLike, score_out: ArrayLike) -> float:
    """P(score_out > score_in) + P(score_out = score_in) / 2 of two randomly chosen examples.

    The area under the ROC curve of "score above a threshold means out of distribution": 1
    separates perfectly, 0.5 is chance, below 0.5 the score points the wrong way.

    Args:
        score_in: `(examples,)` scores of data like the training data; larger means stranger, as
            `predictive_entropy` does.
        score_out: `(other examples,)` scores of data of another kind.

    Example:

    >>> kl.calibration.out_of_distribution_auroc([0.1, 0.2, 0.6], [0.5, 0.9])
    0.8333333333333334

    References:
        J. A. Hanley, B. J. McNeil, "The meaning and use of the area under a receiver operating
        characteristic (ROC) curve", Radiology 143(1), 1982.
    """
    score_in, score_out = _sorted_scores(score_in, score_out)
    below = np.searchsorted(score_in, score_out, side="left")
    below_or_equal = np.searchsorted(score_in, score_out, side="right")
    return float(np.mean(below + below_or_equal) / (2 * score_in.size))


def out_of_distribution_aupr(score_in: ArrayLike, score_out: ArrayLike) -> float:
    """Average precision of finding the examples that are out of distribution; higher is better.

    The area under the precision-recall curve as a sum of steps: the mean, over the examples out
    of distribution, of the precision at the threshold of their own score. 1 separates
    perfectly; chance is the share of `score_out` among all scores, so the number depends on
    how many there are of each. Equal to scikit-learn's `average_precision_score`.

    Args:
        score_in: `(examples,)` scores of data like the training data; larger means stranger.
        score_out: `(other examples,)` scores of data of another kind.

    Example:

    >>> kl.calibration.out_of_distribution_aupr([0.1, 0.2, 0.6], [0.5, 0.9])
    0.8333333333333333

    References:
        D. Hendrycks, K. Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
        Examples in Neural Networks", ICLR 2017, https://arxiv.org/abs/1610.02136.
    """
    score_in, score_out = _sorted_scores(score_in, score_out)
    found = score_out.size - np.searchsorted(score_out, score_out, side="left")
    false_alarms = score_in.size - np.searchsorted(score_in, score_out, side="left")
    return float(np.mean(found / (found + false_alarms)))


def false_positive_rate(
    score_in: ArrayLike, score_out: ArrayLike, true_positive_rate: float = 0.95
) -> float:
    """Share of ordinary examples that raise a false alarm (FPR at 95 % TPR); lower is better.

    The threshold is the largest score at which at least the share `true_positive_rate` of the
    examples out of distribution score as much or more.

    Args:
        score_in: `(examples,)` scores of data like the training data; larger means stranger.
        score_out: `(other examples,)` scores of data of another kind.
        true_positive_rate: Share of `score_out` that must be found, in (0, 1].

    Example:

    >>> kl.calibration.false_positive_rate([0.1, 0.2, 0.6], [0.5, 0.9])
    0.3333333333333333

    References:
        S. Liang, Y. Li, R. Srikant, "Enhancing The Reliability of Out-of-distribution Image
        Detection in Neural Networks", ICLR 2018, https://arxiv.org/abs/1706.02690, where the
        ordinary examples are the positive class.
    """
    share = arguments.unit_interval("true_positive_rate", true_positive_rate)
    score_in, score_out = _sorted_scores(score_in, score_out)
    found = np.arange(1, score_out.size + 1) / score_out.size
    threshold = score_out[::-1][np.searchsorted(found, share)]
    return float(np.mean(score_in >= threshold))


def _sorted_scores(score_in, score_out):
    return (
        np.sort(checked_scores("score_in", score_in)),
        np.sort(checked_scores("score_out", score_out)),
    )
