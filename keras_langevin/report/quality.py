"""How likely the labels are: the rows of a report that every likelihood has."""

import numpy as np

from keras_langevin import calibration
from keras_langevin.predictive.row import Row


def likelihood(log_likelihood):
    """Rows for any family; `log_likelihood` is `(members, n)`."""
    ensemble = -calibration.log_predictive_density(log_likelihood)
    members = -np.mean(log_likelihood, axis=1)
    return [
        Row("num_labels", log_likelihood.shape[1], "labels", "That all this is measured on.", ",d"),
        Row(
            "negative_log_likelihood",
            ensemble,
            "negative log-likelihood",
            "Nats per label, lower is better: what `evaluate` calls loss.",
        ),
        Row(
            "negative_log_likelihood_of_members",
            float(np.mean(members)),
            "the same, one member alone",
            "Average of the members. The ensemble is never worse; the gap is what it gains.",
        ),
    ]
