"""How much each label of a report counts. Arrays are NumPy's."""

import numpy as np


def label_weights(weights, shape):
    """float64 in the shape of the labels, all 1 for None. Weights may lack the labels' last axes,
    or have one number in them.

    Raises:
        ValueError: If they do not fit, one is negative or NaN, or no label counts.
    """
    if weights is None:
        return np.ones(shape)
    found = np.asarray(weights, "float64")
    if found.ndim > len(shape) and found.shape[-1] == 1:
        found = found[..., 0]
    found = found.reshape(*found.shape, *[1] * (len(shape) - found.ndim))
    pairs = zip(found.shape, shape, strict=False)
    fits = found.ndim == len(shape) and all(own in (1, of_labels) for own, of_labels in pairs)
    if not fits or not np.all(found >= 0):
        raise ValueError(
            f"Weights must be numbers >= 0 with the shape of the labels, {tuple(shape)}, or of "
            f"their first axes. Received: weights of shape {np.shape(weights)}, "
            f"smallest {np.min(weights, initial=np.inf):.6g}."
        )
    found = np.broadcast_to(found, shape)
    if not found.any():
        raise ValueError(
            "At least one label must count. Received: weights that are all 0. Look at masks, "
            "`ignore_class` and `sample_weight`."
        )
    return found


def weighted_mean(values, weights):
    """Over the first axes, which the weights have; behind them axes are kept."""
    axes = tuple(range(weights.ndim))
    return np.tensordot(weights, values, axes=(axes, axes)) / weights.sum()


def as_if_drawn(weights, seed=0):
    """Indices of a figure's examples: all of them where they weigh the same, else drawn by their
    weights."""
    if np.ptp(weights) == 0:
        return np.arange(len(weights))
    generator = np.random.default_rng(seed)
    return generator.choice(len(weights), len(weights), p=weights / weights.sum())


def copies(weights):
    """How often each label is to be repeated: exactly by its weight where all are multiples of the
    least, else to a part in 20 of the mean weight."""
    multiples = weights / weights[weights > 0].min()
    is_exact = np.allclose(multiples, np.round(multiples)) and multiples.mean() <= 20
    return np.round(multiples if is_exact else 20 * weights / weights.mean()).astype(int)
