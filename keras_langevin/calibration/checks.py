"""Checks of arrays, each of which returns what it has checked."""

from __future__ import annotations

import numpy as np

from keras_langevin.arguments import array, real_array


def checked_predictions(probabilities, labels):
    """Distributions with the shape `(examples, classes)`, and a label of each."""
    probabilities = checked_distributions(probabilities)
    if probabilities.ndim != 2:
        raise ValueError(
            "`probabilities` must have the shape (examples, classes). Received: "
            f"probabilities.shape={probabilities.shape}. Average over ensemble members, or reshape "
            "all other axes into one."
        )
    return probabilities, checked_labels(labels, *probabilities.shape)


def checked_labels(labels, examples, classes):
    labels = array("labels", labels)
    if labels.shape != (examples,):
        raise ValueError(
            f"`labels` must have the shape ({examples},), one for each row of `probabilities`. "
            f"Received: labels.shape={labels.shape}. Use `labels.argmax(-1)` for one-hot labels, "
            "`labels[:, 0]` for a column."
        )
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers. Received: labels.dtype={labels.dtype}. Convert them with "
            "`labels.astype(int)` if they are class numbers."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"`labels` must be from 0 to {classes - 1}, since `probabilities` has {classes} "
            f"classes. Received: labels from {labels.min()} to {labels.max()}. Number the classes "
            "from 0, and leave out examples without a label."
        )
    return labels


def checked_distributions(probabilities):
    """float64 with the shape `(..., classes)`."""
    probabilities = array("probabilities", probabilities)
    # Sums of half-precision softmax outputs are off by up to a percent.
    tolerance = 1e-4 if probabilities.dtype.itemsize >= 4 else 1e-2
    probabilities = probabilities.astype("float64")
    if probabilities.ndim == 0 or probabilities.size == 0 or probabilities.shape[-1] < 2:
        raise ValueError(
            "`probabilities` must have at least one example, and two or more classes on its last "
            f"axis. Received: probabilities.shape={probabilities.shape}. For a binary model that "
            "returns p use `np.stack([1 - p, p], axis=-1)`."
        )
    if np.isnan(probabilities).any():
        raise ValueError(
            "`probabilities` must be numbers. Received: NaN in "
            f"{np.isnan(probabilities).any(axis=-1).sum()} rows. Look for a diverged model."
        )
    lowest, sums = probabilities.min(), probabilities.sum(axis=-1)
    worst = sums.flat[np.abs(sums - 1).argmax()]
    if lowest < 0 or abs(worst - 1) > tolerance:
        raise ValueError(
            "`probabilities` must be at least 0 and sum to 1 over the last axis. Received: "
            f"smallest probability={lowest:.6g}, sum farthest from 1={worst:.6g}. Apply "
            "`keras.ops.softmax` to logits, `np.exp` to log-probabilities."
        )
    return probabilities


def checked_scores(name, scores):
    """float64 with the shape `(examples,)`; infinite scores are scores."""
    scores = real_array(name, scores)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(
            f"`{name}` must have the shape (examples,) with at least one example. Received: "
            f"{name}.shape={scores.shape}. Give one score per example."
        )
    return _without_nan(name, scores)


def checked_numbers(name, values):
    """float64 with the shape `(examples, ...)`."""
    values = real_array(name, values)
    if values.ndim == 0 or values.size == 0:
        raise ValueError(
            f"`{name}` must have the shape (examples, ...) with at least one example. Received: "
            f"{name}.shape={values.shape}. Put one number into a list."
        )
    return _without_nan(name, values)


def checked_same_shape(**arrays):
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        received = ", ".join(f"{name}.shape={shape}" for name, shape in shapes.items())
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in shapes)} must have the same shape. Received: "
            f"{received}. Use `y[:, None]` for targets of one number per example."
        )


def checked_gaussians(mean, stddev, y):
    """`mean` and `stddev` with the shape `(members, *y.shape)`, and `y`, all float64."""
    y, mean = _finite("y", checked_numbers("y", y)), _finite("mean", mean)
    stddev = _finite("stddev", stddev)
    fits = y.shape in (mean.shape, mean.shape[1:]) and stddev.shape in ((), mean.shape)
    if not fits or not mean.size:
        raise ValueError(
            "`mean` must have the shape of `y`, or (members, *y.shape), and `stddev` that of "
            f"`mean`, or be one number. Received: mean.shape={mean.shape}, "
            f"stddev.shape={stddev.shape}, y.shape={y.shape}. Use `y[:, None]` for targets of one "
            "number per example."
        )
    if stddev.min() < 0:
        raise ValueError(
            f"`stddev` must not be negative. Received: smallest stddev={stddev.min():.6g}. Use "
            "`np.exp` for log scales, `np.sqrt` for variances."
        )
    shape = (-1, *y.shape)
    return mean.reshape(shape), np.broadcast_to(stddev, mean.shape).reshape(shape), y


def _without_nan(name, values):
    if np.isnan(values).any():
        raise ValueError(
            f"`{name}` must be numbers. Received: {np.isnan(values).sum()} NaN of {values.size} "
            "numbers. Look for a diverged model."
        )
    return values


def _finite(name, values):
    values = real_array(name, values)
    if not np.isfinite(values).all():
        raise ValueError(
            f"`{name}` must be finite. Received: {np.sum(~np.isfinite(values))} of {values.size} "
            "numbers infinite or NaN. Look for a diverged model."
        )
    return values
