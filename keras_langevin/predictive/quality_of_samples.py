"""How good the predictions of any likelihood are, from draws of y: rows and figures of a report."""

import keras
import numpy as np
from keras import ops

from keras_langevin.predictive.label_weights import copies, label_weights
from keras_langevin.predictive.quality_of_numbers import (
    LEVELS,
    coverage,
    coverage_figure,
    epistemic_share,
    root_mean_squared_errors,
)
from keras_langevin.predictive.row import Row, guess

DRAWS = 400  # of every y, from all members together


def report_of_samples(family, parameters, y, weights=None):
    """See `Family.report`."""
    mean, variance = (m.astype("float64") for m in family.moments_of(parameters))
    y = np.asarray(y, "float64").reshape(mean.shape[1:])
    weights = label_weights(weights, y.shape)
    reached = family.guess(ops.convert_to_tensor(_repeated(y, weights), keras.config.floatx()))
    rows = [] if reached is None else [guess(reached)]
    rows += root_mean_squared_errors(mean, y, weights)
    if not family.can_sample:
        reason = f"Not measured: `{type(family).__name__}` must implement `sample` for it."
        label = "inside the {:.0f} % interval"
        rows += [
            Row(f"coverage_{100 * q:.0f}", None, label.format(100 * q), reason) for q in LEVELS
        ]
        return [*rows, epistemic_share(mean, variance, weights)], []
    pit = ranks_among_samples(family, parameters, y)
    rows += [*coverage(pit, weights), epistemic_share(mean, variance, weights)]
    return rows, [coverage_figure(pit, weights)]


def _repeated(y, weights):
    """Labels as often as their weights say, for a guess that takes labels alone."""
    if y.ndim == 1:
        y, weights = y[:, None], weights[:, None]
    if np.ptp(weights) == 0:
        return y
    if y.ndim > 1 and np.all(weights == weights[..., :1]):  # units are kept together
        return np.repeat(y.reshape(-1, y.shape[-1]), copies(weights[..., 0].ravel()), axis=0)
    return np.repeat(y.reshape(-1, 1), copies(weights.ravel()), axis=0)


def ranks_among_samples(family, parameters, y, seed=0):
    """The rank of each y among draws from all members, 0 to 1, ties broken at random: uniform
    where the members' mixture is what y is drawn from, of counts too.

    References:
        C. Czado, T. Gneiting, L. Held, "Predictive model assessment for count data", Biometrics
        65, 2009.
    """
    generator = np.random.default_rng(seed)
    below, equal, count = np.zeros(y.shape), np.zeros(y.shape), 0
    while count < DRAWS:
        drawn = np.asarray(family.sample(parameters, generator))
        below += np.sum(drawn < y, axis=0)
        equal += np.sum(drawn == y, axis=0)
        count += len(drawn)
    return (below + generator.uniform(size=y.shape) * (equal + 1)) / (count + 1)
