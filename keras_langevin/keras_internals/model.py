"""Private names of Keras' models and layers: their weights, masks and compiled functions."""

import contextlib
import functools

from keras.src.backend import get_keras_mask

from keras_langevin.weights import is_statistic


def compile_argument(model, name):
    """What `model.compile` was given under that name, None for a model not compiled."""
    if not getattr(model, "compiled", False):
        return None
    return model._compile_config.config.get(name)


def flatten_layers(model):
    return model._flatten_layers()


def own_trainable_variables(layer):
    """What a layer holds itself, not through its sublayers, and would be trained."""
    return [v for v in layer._trainable_variables if v.trainable and not is_statistic(v)]


def call_in_training(model, x):
    """The model's outputs as its training step calls it."""
    return model(x, training=True) if model._call_has_training_arg else model(x)


def mask_of(output):
    """The mask that layers have hung on an output, None where there is none."""
    return get_keras_mask(output)


def has_replaced_weights(layer):
    """LoRA and quantization put other variables in the place of the kernel."""
    mode = getattr(layer, "quantization_mode", None)
    return mode is not None or bool(getattr(layer, "lora_enabled", False))


def add_weights(model, variables):
    """Makes variables the model's own, also after it was built."""
    was_locked = model._tracker.locked
    model._tracker.unlock()
    for variable in variables:
        model._track_variable(variable)
    if was_locked:
        model._tracker.lock()
    forget_compiled_functions(model)


def remove_weights(model, variables):
    for variable in variables:
        model._untrack_variable(variable)
    forget_compiled_functions(model)


def forget_compiled_functions(model):
    """A function compiled by an earlier `fit` knows the old list of variables."""
    for name in ("train_function", "test_function", "predict_function"):
        if hasattr(model, name):
            setattr(model, name, None)


@contextlib.contextmanager
def without_weights(model, hidden):
    """Inside, the model's own weights do not contain the hidden ones."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # while the list still matches the state of a running `fit`
    own = model._trainable_variables
    before = list(own)
    own[:] = [v for v in own if not any(v is h for h in hidden)]
    try:
        yield
    finally:
        own[:] = before


# What shows or stores a model's weights. Each runs as if the model were not tracked.
_PRESENTING = (
    "save",
    "save_weights",
    "load_weights",
    "save_own_variables",
    "load_own_variables",
    "get_weights",
    "set_weights",
    "count_params",
    "summary",
    "export",
)


def present_without(model, hiding):
    """Shadows the methods that show or store weights; `hiding` makes the context they run in."""

    def shadow(method):
        @functools.wraps(method)
        def presented(*args, **kwargs):
            with hiding():
                return method(*args, **kwargs)

        return presented

    for name in _PRESENTING:
        if hasattr(model, name):
            setattr(model, name, shadow(getattr(model, name)))


def present_all(model):
    """Undoes `present_without`."""
    for name in _PRESENTING:
        model.__dict__.pop(name, None)
