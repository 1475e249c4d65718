"""Equal mixtures of TensorFlow Probability distributions."""

import numpy as np


def members_last(parameters, event_axes):
    """Moves the members' axis from the first place to right before the last `event_axes`."""
    return np.moveaxis(parameters, 0, parameters.ndim - 1 - event_axes)


def equal_mixture(tfp, components):
    """The mixture over the last batch axis of `components`, all weights equal."""
    logits = np.zeros(components.batch_shape[-1], "float32")
    return tfp.distributions.MixtureSameFamily(
        tfp.distributions.Categorical(logits=logits), components
    )
