"""Private names of Keras' models and layers: weights, masks, compiled functions, files."""

import contextlib
import functools
import inspect
import types

import keras
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.saving.serialization_lib import SafeModeScope

from keras_langevin.weights import is_statistic


def compile_argument(model, name):
    """What `model.compile` was given under that name, None for a model not compiled."""
    if not getattr(model, "compiled", False):
        return None
    return model._compile_config.config.get(name)


def flatten_layers(model):
    return model._flatten_layers()


def own_variables(layer):
    """What a layer holds itself and would be trained if nothing were frozen."""
    return [v for v in layer._trainable_variables if not is_statistic(v)]


def own_trainable_variables(layer):
    """What a layer holds itself, not through its sublayers, and would be trained."""
    return [v for v in own_variables(layer) if v.trainable]


def call_in_training(model, x):
    """The model's outputs as its training step calls it."""
    return model(x, training=True) if model._call_has_training_arg else model(x)


def mask_of(output):
    """The mask that layers have hung on an output, None where there is none."""
    return get_keras_mask(output)


def set_mask(output, mask):
    """Hangs a mask on an output, as layers do."""
    if mask is not None:
        set_keras_mask(output, mask)


def logits_of(output):
    """The logits behind probabilities, which Keras' crossentropies on TensorFlow take in their
    place; None where they take what they are given."""
    is_read = keras.backend.backend() == "tensorflow" and output.dtype == keras.config.floatx()
    return getattr(output, "_keras_logits", None) if is_read else None


def set_logits(output, logits):
    """Hangs logits on probabilities, as activations do."""
    output._keras_logits = logits


def compute_loss(model, x, y, outputs, sample_weight):
    """The loss of outputs in inference mode. A `compute_loss` of the user's own may lack the
    argument `training`."""
    return model._compute_loss(x, y, outputs, sample_weight, training=False)


def has_compiled_loss(model):
    """Whether `compile` was given a loss."""
    return model._compile_loss is not None


def states_a_loss(model):
    """Whether `compute_loss` gives the loss that `fit` trains on."""
    own_loss = type(model).compute_loss is not keras.Model.compute_loss
    own_step = type(model).train_step is not keras.Model.train_step
    is_read = has_compiled_loss(model) and _reads_the_loss(type(model))
    return own_loss or is_read or not own_step


# Of methods and attributes of a model, by one of which a `train_step` comes by the compiled loss.
_LOSSES = {"compute_loss", "compute_loss_and_updates", "loss", "train_step"}


def _reads_the_loss(cls):
    """Whether a method that is not Keras' own names the loss, or its step cannot be looked into."""
    own = [base for base in cls.__mro__ if not base.__module__.startswith("keras.")]
    methods = (inspect.unwrap(m) for base in own for m in vars(base).values() if callable(m))
    codes = [m.__code__ for m in methods if hasattr(m, "__code__")]
    has_step = any(code.co_name == "train_step" for code in codes)
    return not has_step or any(_LOSSES & _names(code) for code in codes)


def _names(code):
    """Attributes and globals that a function reads, and the functions within it."""
    inner = (_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*inner)


def regularization_loss(model):
    """What regularizers of weights add to the loss at the present weights; None where layers add
    something else, or the loss of `fit` is not the compiled one."""
    for name in ("compute_loss", "train_step"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            return None
    for layer in model._flatten_layers():
        if getattr(layer, "activity_regularizer", None) is not None or layer._loss_ids:
            return None
    return float(sum(keras.ops.convert_to_numpy(x) for x in model._get_regularization_losses()))


def is_built(model):
    """Whether the model and all of its layers have their weights."""
    return all(layer.built for layer in model._flatten_layers())


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


def add_constant_weight(layer, name, array, dtype, layout):
    """What `layer.add_weight` makes for a weight that is not trained, which takes no `layout`."""

    def initializer(shape, dtype):
        return keras.ops.convert_to_tensor(array, dtype)

    with keras.name_scope(layer.name, caller=layer):
        variable = keras.Variable(
            initializer,
            shape=array.shape,
            dtype=dtype,
            trainable=False,
            autocast=False,
            layout=layout,
            name=name,
        )
    layer._track_variable(variable)
    return variable


def remove_weights(model, variables):
    for variable in variables:
        model._untrack_variable(variable)
    forget_compiled_functions(model)


def forget_compiled_functions(model):
    """A function compiled by an earlier `fit` knows the old list of variables."""
    for name in ("train_function", "test_function", "predict_function"):
        if hasattr(model, name):
            setattr(model, name, None)
    model.__dict__.pop(_COMPILED, None)


_COMPILED = "keras_langevin_compiled"


def kept_while_compiled(model, make):
    """What `make()` has given, as long as the functions that Keras compiles for the model would
    stay valid: until another `compile`, or other variables."""
    compilation = (model.optimizer, model._compile_loss)
    kept = model.__dict__.get(_COMPILED)
    if kept is None or any(a is not b for a, b in zip(compilation, kept.of, strict=True)):
        # In no list or dictionary, through which Keras would save the optimizer a second time.
        kept = types.SimpleNamespace(value=make(), of=compilation)
        model.__dict__[_COMPILED] = kept
    return kept.value


def put_back_weights(model):
    """Puts what a running `fit` on JAX holds back into the variables; nothing within a step."""
    if hasattr(model, "jax_state_sync") and not in_stateless_scope():
        model.jax_state_sync()


@contextlib.contextmanager
def without_weights(model, hidden):
    """Inside, the model's own weights do not contain the hidden ones."""
    put_back_weights(model)  # while the list still matches the state of a running `fit`
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


def notice_compile(model, function):
    """Has `function()` called after every `model.compile`."""
    plain = model.compile

    @functools.wraps(plain)
    def noticed(*args, **kwargs):
        plain(*args, **kwargs)
        function()

    model.__dict__["compile"] = noticed


def present_all(model):
    """Undoes `present_without` and `notice_compile`."""
    for name in (*_PRESENTING, "compile"):
        model.__dict__.pop(name, None)


def unsafe_deserialization():
    """A context for configs that were made in this process: `Lambda` layers come back in it."""
    return SafeModeScope(safe_mode=False)
