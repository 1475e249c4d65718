"""How well confidence tells right predictions from wrong ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin.arguments import array
from keras_langevin.calibration.checks import checked_same_shape, checked_scores


class RiskCoverageCurve(NamedTuple):
    """What `risk_coverage_curve` returns: two arrays, one entry per example.

    Attributes:
        coverage: Share of the examples that are kept.
        risk: Share of these that are wrong.
    """

    coverage: np.ndarray
    risk: np.ndarray


def risk_coverage_curve(confidence: ArrayLike, is_right: ArrayLike) -> RiskCoverageCurve:
    """Share of wrong predictions among the most confident ones, by how many are kept.

    A model that may say "I do not know" keeps the k of n examples it is most confident about:
    `coverage` k/n, `risk` the share of these that are wrong. Where examples are equally
    confident the risk is its expectation over their random order, so that the order of the
    examples does not matter.

    Args:
        confidence: `(examples,)`, larger is surer: the largest probability, or minus
            `predictive_entropy`. Only its order matters.
        is_right: `(examples,)` of booleans, or 0 and 1.

    Returns:
        `RiskCoverageCurve` of arrays with the shape `(examples,)`, coverage 1/n to 1.

    Example:

    >>> curve = kl.calibration.risk_coverage_curve([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1])
    >>> curve.coverage, curve.risk.round(2)
    (array([0.25, 0.5 , 0.75, 1.  ]), array([0.  , 0.  , 0.33, 0.25]))

    References:
        Y. Geifman, R. El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS
        2017, https://arxiv.org/abs/1705.08500.
    """
    confidence = checked_scores("confidence", confidence)
    is_right = _checked_booleans("is_right", is_right)
    checked_same_shape(confidence=confidence, is_right=is_right)
    _, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    wrong = np.cumsum(np.bincount(group, weights=~is_right))
    kept = np.arange(1, confidence.size + 1)
    # Within a group of ties the expected number of wrong ones grows evenly.
    expected = np.interp(kept, np.append(0, last), np.append(0, wrong))
    return RiskCoverageCurve(coverage=kept / confidence.size, risk=expected / kept)


def area_under_risk_coverage(confidence: ArrayLike, is_right: ArrayLike) -> float:
    """Mean of the risks of `risk_coverage_curve` (AURC), 0 to 1; lower is better.

    Small when few predictions are wrong and when these are the least confident. Confidences
    that say nothing give the share of wrong predictions.

    Args:
        confidence: `(examples,)`, larger is surer.
        is_right: `(examples,)` of booleans, or 0 and 1.

    Example:

    >>> kl.calibration.area_under_risk_coverage([0.9, 0.8, 0.7, 0.6], [1, 1, 1, 0])
    0.0625

    References:
        Y. Geifman, G. Uziel, R. El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural
        Classifiers", ICLR 2019, https://arxiv.org/abs/1805.08206.
    """
    return float(np.mean(risk_coverage_curve(confidence, is_right).risk))


def _checked_booleans(name, values):
    values = array(name, values)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"`{name}` must be booleans, or 0 and 1. Received: {name} of {values.dtype} with other "
            "values. Use `probabilities.argmax(-1) == labels`."
        )
    return values.astype(bool)
