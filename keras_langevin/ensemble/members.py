"""How many members of an ensemble to run at once, and on how many examples."""

import math

import keras

from keras_langevin.keras_internals import flatten_layers
from keras_langevin.weights import named_weights

# Members are vectorised as long as their weights together are no more than this. On a CPU,
# TensorFlow gains a factor of 2 to 3 by it for networks of 400 to 10,000 weights in batches of
# 32, nothing in batches of 500; with 500,000 weights it loses, as JAX does with 80,000.
WEIGHTS_AT_ONCE = 2**18

# A batch holds no more numbers than this in the widest layer, of the members evaluated together.
# Time per example hardly falls beyond it, and at 2**14 (32 examples, 400 units) is twice as long.
NUMBERS_AT_ONCE = 2**20
KERAS_BATCH_SIZE, LARGEST_BATCH_SIZE = 32, 1024


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
