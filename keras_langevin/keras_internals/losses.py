"""Private names of Keras' losses."""

import keras
from keras.src.losses.losses import LossFunctionWrapper


def as_loss(loss):
    """What `compile` makes of a loss, a name or a function: a `keras.losses.Loss`."""
    found = keras.losses.get(loss)
    return found if isinstance(found, keras.losses.Loss) else LossFunctionWrapper(found)


def loss_argument(loss, name, default):
    """An argument that a loss of Keras' was made with, which not all of their configs have."""
    return getattr(loss, "_fn_kwargs", {}).get(name, default)
