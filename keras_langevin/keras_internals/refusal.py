"""Private names of Keras around an error in a training step, which should cost the user nothing."""

import inspect

import keras

_PARTS = (
    "trainable_variables",
    "non_trainable_variables",
    "optimizer_variables",
    "metrics_variables",
)


def refusal(error):
    """An error to be raised inside of a training step: Keras will not add in which layer's call it
    was, and the model keeps its weights."""
    error._keras_call_info_injected = True
    if keras.backend.backend() == "jax":
        _keep_those_of_fit()
    return error


def keep_weights(model):
    """Before the first step of `fit`: has the model keep its weights, whatever fails in it.

    Keras on JAX takes the values out of the variables before a step and puts those of the last one
    back when `fit` fails, where there was one.
    """
    if keras.backend.backend() == "jax":
        state = model._get_jax_state(
            **dict.fromkeys(_PARTS, True),
            purge_model_variables=False,
        )
        model._jax_state = dict(zip(_PARTS, state, strict=True))


def _keep_those_of_fit():
    frame = inspect.currentframe()
    while frame is not None:
        names = frame.f_locals
        model, state = names.get("self"), names.get("state")
        if "epoch_iterator" in names and isinstance(model, keras.Model) and state is not None:
            model._jax_state = dict(zip(_PARTS, state, strict=True))
            return
        frame = frame.f_back
