"""Checks of arguments that have to do with Keras."""

import keras

from keras_langevin.arguments import instance, shorten, text


def model(name, value):
    return instance(name, value, keras.Model, "a `keras.Model`")


def built_model(name, value):
    if not model(name, value).built or not value.weights:
        raise ValueError(
            f"`{name}` must be a built `keras.Model` with weights. Received: {name}="
            f"{shorten(value)}, which is not. Begin it with `keras.Input(shape)`, or call it on a "
            "batch first."
        )
    return value


def float_dtype(name, value):
    """A dtype, or a policy, of floats; None for Keras' default."""
    if value is None:
        return None
    try:
        is_float = keras.backend.is_float_dtype(keras.dtype_policies.get(value).compute_dtype)
    except Exception:  # of many kinds for what is none
        is_float = False
    if not is_float or not isinstance(value, (str, dict, keras.DTypePolicy)):
        raise ValueError(
            f"`{name}` must be None, a `keras.DTypePolicy` or the name of a type of floats. "
            f"Received: {name}={shorten(value)}."
        )
    return value


def keras_name(name, value):
    """A name of an object; None for Keras' default."""
    if value is not None and "/" in text(name, value):
        raise ValueError(f"`{name}` must not contain a slash. Received: {name}={value!r}.")
    return value
