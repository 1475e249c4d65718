"""Whether the chains have moved and agree: the second part of a report."""

import warnings

import numpy as np

from keras_langevin.diagnostics.chain_health import FEW_DRAWS, chain_health
from keras_langevin.diagnostics.ensemble_size import enough_members
from keras_langevin.predictive.row import Row, percent

PROBE = 100  # examples whose predictions are followed

MIXING = {  # row: label, what it means, form
    "effective_sample_size": (
        "effective sample size",
        "How many independent samples all of them are worth, for a typical prediction.",
        ".1f",
    ),
    "effective_sample_size_smallest": ("the same, slowest prediction", "", ".1f"),
    "independent_draws": (
        "independent samples of the slowest chain",
        "Below 4 it has not moved.",
        ".1f",
    ),
    "drift": (
        "drift of a chain",
        "Share of the variation that is a straight line; a settled chain has little.",
        ".0%",
    ),
    "r_hat": ("R-hat", "Typical prediction. 1.00: chains, and their halves, agree.", ".2f"),
    "r_hat_largest": ("the same, worst prediction", "Of many, some are large by chance.", ".2f"),
}


def rows(ensemble, predictions, curve):
    """Of predictions `(members, quantities)` and the running log predictive density, None where
    there is no likelihood."""
    num_chains = len(np.unique(ensemble.chains))
    return [
        Row("num_members", ensemble.num_members, "members", "Posterior samples.", ",d"),
        Row("num_chains", num_chains, "chains", "Independent runs among them.", ",d"),
        *mixing(ensemble.split_chains(predictions)),
        *([] if curve is None else size(curve)),
    ]


def mixing(draws):
    """Of predictions `(draws, quantities)`, one array a chain."""
    shortest = min(map(len, draws))
    if shortest < FEW_DRAWS:
        reason = f"Needs {FEW_DRAWS} members a chain or more; the shortest has {shortest}."
        return [Row(name, None, label, reason, form) for name, (label, _, form) in MIXING.items()]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of predictions that never change
        health = chain_health(draws)
    values = {
        "effective_sample_size": health.effective_sample_size,
        "effective_sample_size_smallest": health.effective_sample_size_min,
        "independent_draws": min(health.worth),
        "drift": max(health.drift),
        "r_hat": health.r_hat,
        "r_hat_largest": health.r_hat_max,
    }
    found = [
        Row(name, value if np.isfinite(value) else None, *MIXING[name])
        for name, value in values.items()
    ]
    label, meaning = "spread of the members", "Of a prediction, over the range of predictions."
    return [*found, percent("spread", health.spread, label, meaning)]


def size(curve):
    """Rows about how many members are enough."""
    enough = enough_members(curve)
    return [
        Row(
            "enough_members",
            enough.num_members,
            "members that would have been enough",
            "From there on the log predictive density stays within 0.01 nats of that of all.",
            ",d",
        ),
        Row("is_rising", enough.is_rising, "", ""),
    ]
