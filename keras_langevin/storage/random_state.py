"""The states of the generators that Keras shuffles training data with."""

import contextlib
import random
import sys

import keras
import numpy as np


def random_state() -> list[np.ndarray]:
    """States of Python's and NumPy's generators, and on that backend of torch's, as arrays.

    Keras takes the order of a `PyDataset` from the first, that of arrays from the second on JAX
    and from the third on torch. On TensorFlow the order of arrays is part of the graph and
    cannot be read.
    """
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    arrays = [
        np.array([version, *words], "uint64"),
        np.array(np.nan if gauss is None else gauss),
        keys,
        np.array([position, has_gauss], "int64"),
        np.array(cached),
    ]
    if keras.backend.backend() == "torch":
        import torch

        arrays.append(torch.get_rng_state().numpy())
    return arrays


def set_random_state(arrays: list[np.ndarray]) -> None:
    """Puts back what `random_state` gave."""
    (version, *words), gauss = arrays[0].tolist(), float(arrays[1])
    random.setstate((version, tuple(words), None if np.isnan(gauss) else gauss))
    position, has_gauss = arrays[3].tolist()
    np.random.set_state(("MT19937", arrays[2], position, has_gauss, float(arrays[4])))
    if keras.backend.backend() == "torch" and len(arrays) > 5:
        import torch

        torch.set_rng_state(torch.from_numpy(arrays[5]))


@contextlib.contextmanager
def kept_random_state():
    """Inside, the generators may be used: afterwards they stand where they stood. Among them is
    torch's wherever it is loaded: its loaders of data draw from it on every backend."""
    arrays = random_state()
    torch = sys.modules.get("torch")
    torch_state = None if torch is None else torch.get_rng_state()
    try:
        yield
    finally:
        set_random_state(arrays)
        if torch is not None:
            torch.set_rng_state(torch_state)
