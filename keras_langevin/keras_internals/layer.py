"""Private names of Keras' layers: what is inside of one, and how it was called."""

import contextlib

import keras
from keras.src.backend import AutocastScope


def sublayers(layer):
    """The layers that a layer holds itself."""
    return layer._flatten_layers(include_self=False, recursive=False)


def is_of_keras(layer):
    """Whether Keras itself brings the layer's class."""
    return type(layer).__module__.split(".")[0] == "keras"


def autocast_scope(layer):
    """Inside, `layer.call` meets its variables in the dtype in which the layer computes."""
    if layer.compute_dtype == layer.variable_dtype:
        return contextlib.nullcontext()
    casts = layer.autocast and keras.backend.is_float_dtype(layer.compute_dtype)
    return AutocastScope(layer.compute_dtype if casts else None)


def draws_random_numbers(layer):
    """Whether it, or a layer within, has a generator of random numbers."""
    return any(x._seed_generators for x in layer._flatten_layers())


def random_outside_of_training(layer):
    """Whether it has such a generator and no argument `training` that could silence it."""
    return any(x._seed_generators and not x._call_has_training_arg for x in layer._flatten_layers())


def symbolic_arguments(layer):
    """`(args, kwargs)` with which a functional model first called the layer, or None."""
    nodes = layer._inbound_nodes
    if not nodes:
        return None
    arguments = nodes[0].arguments
    return arguments.args, arguments.kwargs


def build_shapes(layer):
    """From the names of `build`'s arguments to the shapes it was given."""
    return dict(layer._build_shapes_dict or {})


def takes_training(layer):
    """Whether its `call` has an argument `training`."""
    return layer._call_has_training_arg
