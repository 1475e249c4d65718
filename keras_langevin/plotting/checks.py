"""Checks of arrays, so that every error reads alike."""

import numpy as np

from keras_langevin.arguments import LARGEST, array, real_array
from keras_langevin.calibration.checks import checked_distributions


def vector(name, values, length=None):
    """Shape `(n,)`, float64 and finite; a column `(n, 1)` is one as well."""
    values = real_array(name, values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"`{name}` must have the shape (n,) or (n, 1) with n >= 1. Received: "
            f"{name}.shape={values.shape}. Choose one quantity, as `{name}[:, 0]`."
        )
    if length is not None and values.size != length:
        raise ValueError(
            f"`{name}` must have {length} entries, as many as there are of the others. Received: "
            f"{name}.shape={values.shape}. Pass all for the same examples."
        )
    is_number = np.abs(values) <= LARGEST
    if not is_number.all():
        raise ValueError(
            f"`{name}` must be finite, in float32 too. Received: NaN or infinity in "
            f"{np.sum(~is_number)} of {values.size} entries. Look for a diverged model."
        )
    return values


def entropies(name, values, most):
    """A `vector` from 0 to `most`, rounding errors cut off."""
    values = vector(name, values)
    slack = 1e-5
    if values.min() < -slack or values.max() > most + slack:
        raise ValueError(
            f"`{name}` must be entropies in nats, from 0 to {most:.6g}. Received: {name} from "
            f"{values.min():.6g} to {values.max():.6g}. Use `kl.calibration.predictive_entropy`, "
            "and count all classes in `num_classes`."
        )
    return np.clip(values, 0.0, most)


def chains(draws):
    """A list of vectors, one a chain."""
    several = isinstance(draws, (list, tuple))
    if several and not draws:
        raise ValueError("`draws` must have at least one chain. Received: draws=[].")
    return [vector("draws", chain) for chain in (draws if several else [draws])]


def member_probabilities(members):
    """float64 with the shape `(members, examples, classes)`."""
    members = array("members", members)
    if np.ndim(members) != 3 or np.shape(members)[-1] < 2:
        raise ValueError(
            "`members` must have the shape (members, examples, classes) with two classes or more. "
            f"Received: members.shape={np.shape(members)}. Look at real numbers with "
            "`kl.plotting.predictive_band`; for yes or no use `np.concatenate([1 - p, p], -1)`."
        )
    return checked_distributions(members)


def fields(name, values, names, origin):
    """The named entries of a dict or attributes of an object, as a list."""
    look_up = values.get if isinstance(values, dict) else lambda n: getattr(values, n, None)
    found = [look_up(n) for n in names]
    missing = [n for n, value in zip(names, found, strict=True) if value is None]
    if missing:
        raise ValueError(
            f"`{name}` must be what {origin} returns. Received: {name} of type "
            f"{type(values).__name__} without {missing}. Pass it as it is."
        )
    return found
