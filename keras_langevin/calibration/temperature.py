"""One number that repairs how sharp predicted probabilities are."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin.calibration.checks import checked_distributions, checked_labels
from keras_langevin.calibration.predictive_density import log_predictive_density

BOUNDS = (0.01, 100.0)
GRID = 33  # temperatures of the coarse search, a factor 4/3 apart
TOLERANCE = 1e-9  # of log temperature


@dataclass(frozen=True)
class TemperatureScaling:
    """What `temperature_scaling` returns; call it to temper probabilities the same way.

    Attributes:
        temperature: τ > 0; above 1 the probabilities were too sure.
        negative_log_likelihood_before, negative_log_likelihood_after: Of the labels it was
            chosen on, nats per example.
        of_members: Whether each member is tempered before the average, or the average.
    """

    temperature: float
    negative_log_likelihood_before: float
    negative_log_likelihood_after: float
    of_members: bool = False

    def __call__(self, probabilities: ArrayLike) -> np.ndarray:
        """Tempered probabilities.

        Args:
            probabilities: `(examples, classes)`; `(members, examples, classes)` when the
                temperature was chosen for members.

        Returns:
            Array with the shape `(examples, classes)`.

        Raises:
            ValueError: If the temperature was chosen for the other of the two.
        """
        probabilities = _checked(probabilities)
        if (probabilities.ndim == 3) != self.of_members:
            shape = "(members, examples, classes)" if self.of_members else "(examples, classes)"
            raise ValueError(
                f"This temperature was chosen for probabilities of the shape {shape}. Received: "
                f"probabilities.shape={probabilities.shape}. Temper what it was chosen for."
            )
        return np.exp(_tempered(_logarithms(probabilities), self.temperature)).mean(axis=0)


def temperature_scaling(probabilities: ArrayLike, labels: ArrayLike) -> TemperatureScaling:
    """The temperature τ that minimises the negative log likelihood of held-out labels.

    p_k → p_k^(1/τ) / Σ_j p_j^(1/τ), the same as dividing logits by τ. Choose it on data that
    were neither trained on nor are tested on.

    An ensemble can be tempered in two ways. Given the average of its members, τ tempers the
    average, which leaves the predicted classes as they are, and which Rahaman and Thiery found
    better. Given all members, τ tempers each of them, and the average is taken after.

    Args:
        probabilities: `(examples, classes)`, or `(members, examples, classes)`.
        labels: `(examples,)` integers.

    Returns:
        `TemperatureScaling`, to be called with other probabilities. τ is searched between 0.01
        and 100; without a better one it is 1.

    Raises:
        ValueError: If shapes do not fit, or a label was given probability exactly 0, which
            makes the loss infinite at every temperature.

    Warns:
        UserWarning: If the best temperature is at the end of the range: at 0.01 when all labels
            are predicted (the limit τ → 0 is certainty), at 100 when guessing is better than
            the probabilities.

    Example:

    >>> scaling = kl.calibration.temperature_scaling([[0.9, 0.1]] * 4, [0, 0, 0, 1])
    >>> round(scaling.temperature, 3)  # three of four are right, not nine of ten
    2.0
    >>> scaling([[0.64, 0.36]]).round(3)
    array([[0.571, 0.429]])

    References:
        - C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural
          Networks", ICML 2017, https://arxiv.org/abs/1706.04599, equation 9.
        - R. Rahaman, A. H. Thiery, "Uncertainty Quantification and Deep Ensembles", NeurIPS
          2021, https://arxiv.org/abs/2007.08792 (average first).
    """
    probabilities = _checked(probabilities)
    labels = checked_labels(labels, *probabilities.shape[-2:])
    logarithms = _logarithms(probabilities)

    def negative_log_likelihood(temperature):
        of_labels = _tempered(logarithms, temperature)[:, np.arange(labels.size), labels]
        return -log_predictive_density(of_labels)

    _check_possible(logarithms[:, np.arange(labels.size), labels])
    # The first of equals: a plateau of likelihoods keeps 1, or is reported.
    temperature = min(
        (1.0, *BOUNDS, _minimum(negative_log_likelihood)), key=negative_log_likelihood
    )
    if temperature in BOUNDS:
        warnings.warn(
            f"The best temperature is at the end of its range, {temperature}: the labels are "
            "all predicted, or not at all. Choose it on more held-out examples.",
            stacklevel=2,
        )
    return TemperatureScaling(
        temperature=temperature,
        negative_log_likelihood_before=negative_log_likelihood(1.0),
        negative_log_likelihood_after=negative_log_likelihood(temperature),
        of_members=probabilities.ndim == 3,
    )


def _minimum(function):
    """By golden section around the best of a grid, in the logarithm of the temperature.

    For one distribution an example the loss is convex in 1/τ, and has one minimum; for members
    there may be several, of which the grid picks one.
    """
    grid = np.linspace(*np.log(BOUNDS), GRID)
    best = int(np.argmin([function(math.exp(t)) for t in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    return math.exp(_golden_section(lambda t: function(math.exp(t)), low, high))


def _golden_section(function, low, high):
    share = (5**0.5 - 1) / 2
    left, right = high - share * (high - low), low + share * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > TOLERANCE:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - share * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + share * (high - low)
            at_right = function(right)
    return 0.5 * (low + high)


def _checked(probabilities):
    probabilities = checked_distributions(probabilities)
    if probabilities.ndim not in (2, 3):
        raise ValueError(
            "`probabilities` must have the shape (examples, classes) or (members, examples, "
            f"classes). Received: probabilities.shape={probabilities.shape}. Reshape all axes of "
            "examples into one."
        )
    return probabilities


def _check_possible(log_probabilities):
    impossible = np.isneginf(log_probabilities).all(axis=0)
    if impossible.any():
        raise ValueError(
            "Every label must have a probability above 0. Received: probability 0 of the label "
            f"in all members for {impossible.sum()} of {impossible.size} examples, which no "
            "temperature repairs. Compute `softmax` in float64."
        )


def _logarithms(probabilities):
    """Shape (members, examples, classes), the largest 0, so that powers do not overflow."""
    members = probabilities.reshape(-1, *probabilities.shape[-2:])
    with np.errstate(divide="ignore"):
        return np.log(members / members.max(axis=-1, keepdims=True))


def _tempered(logarithms, temperature):
    """Normalised log probabilities."""
    powers = logarithms / temperature
    return powers - np.log(np.sum(np.exp(powers), axis=-1, keepdims=True))
