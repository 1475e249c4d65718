"""Layers around models of another library, which read weights of their own."""

import contextlib

import keras
from keras import ops


@contextlib.contextmanager
def reading_keras_variables(layers):
    """Inside, torch modules within the layers compute with the values of their Keras variables,
    so that a `keras.StatelessScope` reaches them."""
    wrapped = [layer for layer in layers if _is(layer, "TorchModuleWrapper")]
    for layer in wrapped:
        layer.__dict__["call"] = _functional_call(layer)
    try:
        yield
    finally:
        for layer in wrapped:
            del layer.__dict__["call"]


def refuse_unreachable_weights(layers):
    """ValueError where weights are sampled that no ensemble could give to their layer."""
    for layer in layers:
        if _is(layer, "TFSMLayer") and layer.trainable_variables:
            raise ValueError(
                "A layer that samples are drawn of must compute with its Keras variables. "
                f"Received: layer '{layer.name}' (`TFSMLayer`), whose SavedModel reads its own. "
                "Set `trainable = False` on that layer and compile again, or rebuild the network "
                "from Keras layers."
            )


def _is(layer, name):
    found = getattr(keras.layers, name, None)
    return found is not None and isinstance(layer, found)


def _functional_call(layer):
    import torch

    variables = {id(variable._value): variable for variable in layer.variables}
    named = {name: variables[id(p)] for name, p in layer.module.named_parameters()}

    def call(*args, training=None, **kwargs):
        layer.train(training is not False)
        values = {name: ops.convert_to_tensor(variable) for name, variable in named.items()}
        return torch.func.functional_call(layer.module, values, args, kwargs)

    return call
