"""Whether two calls of `fit` train on the same data in the same way."""

import keras
import numpy as np

OWN = ("callbacks", "verbose")  # each chain has its own


def difference(one, other):
    """The name of an argument that is not the same; None where all are.

    Args:
        one, other: Arguments by name.
    """
    for name in dict.fromkeys([*one, *other]):
        if name not in OWN and not _are_alike(one.get(name), other.get(name)):
            return f"`{name}`"
    return None


def _are_alike(a, b):
    """Equal numbers, equal arrays in equal structures, or the same object."""
    if a is b:
        return True
    if isinstance(a, tuple | list | dict):
        try:
            keras.tree.assert_same_structure(a, b)
        except (TypeError, ValueError):
            return False
        pairs = zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True)
        return all(_are_alike(x, y) for x, y in pairs)
    if type(a) is not type(b):
        return False
    if isinstance(a, bool | int | float | str):
        return a == b
    if keras.ops.is_tensor(a) or isinstance(a, np.ndarray):
        a, b = (keras.ops.convert_to_numpy(x) for x in (a, b))
        return a.dtype == b.dtype and np.array_equal(a, b)
    return False
