"""The network of an ensemble's members: a copy of the user's, and how many to run at once."""

import math

import keras

from keras_langevin.keras_internals import flatten_layers
from keras_langevin.statistics import untracked
from keras_langevin.weights import named_weights

# Members are vectorised as long as their weights together are no more than this. On a CPU,
# TensorFlow gains a factor of 2 to 3 by it for networks of 400 to 10,000 weights in batches of
# 32, nothing in batches of 500; with 500,000 weights it loses, as JAX does with 80,000.
WEIGHTS_AT_ONCE = 2**18

# A batch holds no more numbers than this in the widest layer, of the members evaluated together.
# Time per example hardly falls beyond it, and at 2**14 (32 examples, 400 units) is twice as long.
NUMBERS_AT_ONCE = 2**20
KERAS_BATCH_SIZE, LARGEST_BATCH_SIZE = 32, 1024


def own_copy(model):
    """A clone of the network, whose own weights do not matter; the model itself where it
    cannot be cloned from its config, or has assets."""
    if has_assets(model):
        return model
    try:
        with untracked(model):
            clone = keras.models.clone_model(model)
            fits = clone.built and _shapes(clone) == _shapes(model)
    except Exception:  # whatever a `get_config` or an `__init__` of the user's may raise
        return model
    return clone if fits else model


def take_constants(member, values):
    """Gives layers that compute with constants made from their weights, such as a `Normalization`
    that was adapted, these weights and has them make the constants anew.

    Args:
        member: The network.
        values: An array for each of its weights, in the order of `named_weights`.
    """
    layers = [x for x in flatten_layers(member) if hasattr(x, "finalize_state") and x.weights]
    theirs = {id(variable) for layer in layers for variable in layer.weights}
    for variable, value in zip(named_weights(member).values(), values, strict=True):
        if id(variable) in theirs:
            variable.assign(value)
    for layer in layers:
        layer.finalize_state()


def has_assets(model):
    """Whether it holds state that is neither config nor weights: vocabularies."""
    return any(hasattr(layer, "save_assets") for layer in flatten_layers(model))


def default_member_batch_size(member, num_members):
    """All members together when they are small, one at a time when they are large."""
    if _vectorises_badly(member):
        return 1
    size = sum(math.prod(v.shape) for v in named_weights(member).values())
    return max(1, min(num_members, WEIGHTS_AT_ONCE // max(size, 1)))


def default_batch_size(member, num_members, member_batch_size):
    """Examples in a batch: as many as use the machine well in little memory; Keras' own number
    for a subclassed network, whose layers' outputs have no known shapes."""
    if not hasattr(member, "outputs"):
        return KERAS_BATCH_SIZE
    widest = max(map(_width, flatten_layers(member)))
    outputs = sum(_size(o.shape) for o in keras.tree.flatten(member.outputs))
    numbers = max(widest * member_batch_size, outputs * num_members)
    return min(max(NUMBERS_AT_ONCE // max(numbers, 1), KERAS_BATCH_SIZE), LARGEST_BATCH_SIZE)


def _width(layer):
    """Numbers in what a layer returns for one example, 0 where that is not known."""
    return sum(_size(o.shape) for o in keras.tree.flatten(getattr(layer, "output", ())))


def _size(shape):
    """Numbers in one example; an axis of any length counts as the whole budget."""
    return math.prod(NUMBERS_AT_ONCE if n is None else n for n in shape[1:])


def _vectorises_badly(member):
    layers = keras.layers
    bad = {
        # Each step of the recurrence is converted by itself, which takes seconds to compile.
        "tensorflow": (layers.RNN,),
        # `torch.vmap` refuses the memory format that convolutions ask for.
        "torch": (
            layers.Conv2D,
            layers.Conv3D,
            layers.Conv2DTranspose,
            layers.Conv3DTranspose,
            layers.DepthwiseConv2D,
            layers.SeparableConv2D,
        ),
    }.get(keras.backend.backend(), ())
    return any(isinstance(layer, bad) for layer in flatten_layers(member))


def _shapes(model):
    return [tuple(v.shape) for v in named_weights(model).values()]
