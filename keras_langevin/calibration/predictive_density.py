"""The log density that an ensemble gives to held-out data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_langevin.arguments import real_array


def log_predictive_density(log_likelihood: ArrayLike) -> float:
    """Log pointwise predictive density (lppd) per example, in nats; higher is better.

    mean_i log (1/M) Σ_s exp(log_likelihood[s, i])

    A proper score of any likelihood. For classes it is minus `negative_log_likelihood` of the
    averaged probabilities; computed from logarithms, it stays finite where probabilities
    underflow. -inf when no member gives an example any density.

    Args:
        log_likelihood: `(members, examples)`, log p(y_i | x_i, θ_s).

    Raises:
        ValueError: If the shape is another, or a number is NaN.

    Example:

    >>> lppd = kl.calibration.log_predictive_density(np.log([[0.5, 0.1], [0.5, 0.3]]))
    >>> round(lppd, 3)  # (log 0.5 + log 0.2) / 2
    -1.151

    References:
        A. Gelman, J. Hwang, A. Vehtari, "Understanding predictive information criteria for
        Bayesian models", Statistics and Computing 24, 2014, https://arxiv.org/abs/1307.5928,
        equation 5.
    """
    log_likelihood = real_array("log_likelihood", log_likelihood)
    if log_likelihood.ndim != 2 or log_likelihood.size == 0:
        raise ValueError(
            "`log_likelihood` must have the shape (members, examples) with at least one of each. "
            f"Received: log_likelihood.shape={log_likelihood.shape}. For one model use "
            "`log_likelihood[None]`."
        )
    if np.isnan(log_likelihood).any():
        members = np.isnan(log_likelihood).any(axis=1)
        raise ValueError(
            f"`log_likelihood` must be numbers. Received: NaN of {members.sum()} of "
            f"{members.size} members. Leave out diverged members."
        )
    sums = np.logaddexp.reduce(log_likelihood, axis=0)
    return float(np.mean(sums - np.log(len(log_likelihood))))
