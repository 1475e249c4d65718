"""What a model declared to be probabilities: checks on NumPy arrays, and Keras' clipping."""

import keras
import numpy as np
from keras import ops

TOLERANCE = 1e-2  # by which probabilities computed in half precision may be off


def away_from_0_and_1(probabilities):
    """As Keras' crossentropies take them before their logarithm."""
    epsilon = keras.config.epsilon()
    return ops.clip(probabilities, epsilon, 1 - epsilon)


def check_probabilities(probabilities, output):
    """ValueError for a number below 0 or above 1. NaN passes, as it does in Keras."""
    lowest = np.nanmin(probabilities, initial=0)
    highest = np.nanmax(probabilities, initial=0)
    if lowest < 0 or highest > 1 + TOLERANCE:
        raise _error(output, f"values from {lowest:.6g} to {highest:.6g}")


def check_distributions(probabilities, output, axis=-1):
    """The same, and the axis of the classes must sum to 1."""
    check_probabilities(probabilities, output)
    off = np.abs(np.sum(probabilities, axis=axis, dtype="float64") - 1)
    if np.nanmax(off, initial=0) > TOLERANCE:
        worst = np.sum(probabilities, axis=axis).flat[np.nanargmax(off)]
        which = "the last axis" if axis == -1 else f"axis {axis}"
        raise _error(output, f"a sum over {which} of {worst:.6g}")


def _error(output, what):
    alternative = "logits" if output == "probabilities" else "binary_logits"
    return ValueError(
        f'The outputs of a model with output="{output}" (a loss with from_logits=False) must be '
        f"probabilities. Received: {what}. Compile the model with `from_logits=True`, pass "
        f'`output="{alternative}"`, or end the model with the right activation.'
    )
