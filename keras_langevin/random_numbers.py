"""Random numbers that layers draw: their generators, and torch's global one."""

import contextlib

import keras
import numpy as np
from keras import ops


def is_random_state(variable):
    """Whether a `keras.random.SeedGenerator` holds it."""
    return variable.name == "seed_generator_state"


def other_random_state(state):
    """A state of a `keras.random.SeedGenerator`, (seed, counter), that draws other numbers."""
    return state + ops.convert_to_tensor(np.array([0x2545F491, 0]), dtype=state.dtype)


@contextlib.contextmanager
def other_global_numbers():
    """Inside, torch's own generator, which its dropout without a seed uses, draws other numbers
    than it would outside; afterwards it goes on where it was."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    device = ops.zeros(()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, ())))
        yield
