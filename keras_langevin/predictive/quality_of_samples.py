"""How good the predictions of any likelihood are, from draws of y: rows and figures of a report."""

import keras
import numpy as np
from keras import ops

from keras_langevin.predictive.quality_of_numbers import (
    LEVELS,
    coverage,
    coverage_figure,
    epistemic_share,
    root_mean_squared_error,
)
from keras_langevin.predictive.row import Row, guess

DRAWS = 400  # of every y, from all members together


def report_of_samples(family, parameters, y):
    """See `Family.report`."""
    mean, variance = (m.astype("float64") for m in family.moments_of(parameters))
    y = np.asarray(y, "float64").reshape(mean.shape[1:])
    reached = family.guess(ops.convert_to_tensor(y, keras.config.floatx()))
    rows = [] if reached is None else [guess(reached)]
    rows.append(root_mean_squared_error(mean, y))
    if not family.can_sample:
        reason = f"Not measured: `{type(family).__name__}` must implement `sample` for it."
        label = "inside the {:.0f} % interval"
        rows += [
            Row(f"coverage_{100 * q:.0f}", None, label.format(100 * q), reason) for q in LEVELS
        ]
        return [*rows, epistemic_share(mean, variance)], []
    pit = ranks_among_samples(family, parameters, y)
    return [*rows, *coverage(pit), epistemic_share(mean, variance)], [coverage_figure(pit)]


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
