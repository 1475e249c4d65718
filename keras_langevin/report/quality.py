"""How likely the labels are: the rows of a report that every likelihood has."""

import numpy as np

from keras_langevin import calibration
from keras_langevin.predictive.row import Row


def likelihood(log_likelihood, weights):
    """Rows for any family.

    Args:
        log_likelihood: `(members, n)`, of the labels that count.
        weights: Their `sample_weight`, shape `(n,)`; as in `evaluate` they multiply what is
            averaged and are not divided by.
    """
    of_members = np.mean(log_likelihood * weights, axis=1)
    of_ensemble = calibration.log_predictive_density(log_likelihood)
    if np.any(weights != 1):
        densities = np.logaddexp.reduce(log_likelihood, axis=0) - np.log(len(log_likelihood))
        of_ensemble = np.mean(weights * densities)
    return [
        Row("num_labels", log_likelihood.shape[1], "labels", "That all this is measured on.", ",d"),
        Row(
            "negative_log_likelihood",
            float(-of_ensemble),
            "negative log-likelihood",
            "Nats per label, lower is better: what `evaluate` calls loss (of several labels an "
            "example whose noise the loss sets, it adds them up).",
        ),
        Row(
            "negative_log_likelihood_of_members",
            float(-np.mean(of_members)),
            "the same, one member alone",
            "Average of the members. The ensemble is never worse; the gap is what it gains.",
        ),
    ]
