"""What a variable is in its layer: a kernel with a fan-in, rows of an embedding, a gain, a vector.

A variable knows its path alone. `note_roles` reads the layers of a model and leaves with every
variable what its layer says; every sampler has it done before it trains. Where no model was seen,
names that Keras' layers give their variables decide.
"""

import dataclasses
import math

import keras

from keras_langevin import keras_internals
from keras_langevin.statistics.einsum_dense import Axes

KERNEL, EMBEDDING, GAIN, VECTOR = "kernel", "embedding", "gain", "vector"

_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


@dataclasses.dataclass(frozen=True)
class Role:
    """What a variable is.

    Attributes:
        kind: `KERNEL`, `EMBEDDING` (rows that are looked up), `GAIN` (a vector that begins at
            one), or `VECTOR` (biases, offsets).
        fan_in: How many inputs a unit of a kernel adds up; 1 for others.
        is_output: Whether a kernel's units are outputs of the model.
    """

    kind: str
    fan_in: float = 1
    is_output: bool = False

    def __str__(self):
        words = f"{self.kind}, fan-in {self.fan_in:g}" if self.kind == KERNEL else self.kind
        return f"output {words}" if self.is_output else words


def role_of(variable) -> Role:
    """What the layer said, and where none was asked what the names say."""
    return getattr(variable, "langevin_role", None) or _role_by_name(variable)


def note_roles(model):
    """Leaves with every variable of a model what it is in its layer."""
    for layer in reversed(keras_internals.flatten_layers(model)):  # of layers that share, the first
        for variable in keras_internals.own_variables(layer):
            variable.langevin_role = _role_in(layer, variable)
    ends = keras_internals.operations_before_outputs(model, lambda x: not _transforms(x))
    for group in [model.weights] if ends is None else [_variables_of(end) for end in ends]:
        _note_output(group)


def note_last_as_output(variables):
    """For an optimizer that meets variables before their model: the last kernel is the output's."""
    if not any(hasattr(v, "langevin_role") for v in variables):
        _note_output(variables)


def _note_output(variables):
    kernels = [v for v in variables if role_of(v).kind == KERNEL]
    recurrent = {_layer(v) for v in kernels if "recurrent" in v.path.split("/")[-1]}
    kernels = [v for v in kernels if _layer(v) not in recurrent and "/lora_" not in v.path]
    if kernels:
        kernels[-1].langevin_role = dataclasses.replace(role_of(kernels[-1]), is_output=True)


def _transforms(operation):
    return any(role_of(v).kind in (KERNEL, EMBEDDING) for v in _variables_of(operation))


def _variables_of(operation):
    if not isinstance(operation, keras.layers.Layer):
        return []
    layers = keras_internals.flatten_layers(operation)
    return [v for layer in layers for v in keras_internals.own_variables(layer)]


def _layer(variable):
    return variable.path.rpartition("/")[0]


def _role_in(layer, variable):
    role, shape = _role_by_name(variable), tuple(variable.shape)
    if role.kind != KERNEL:
        return role
    if isinstance(layer, keras.layers.EinsumDense) and variable.path.endswith("/kernel"):
        return Role(KERNEL, _fan_in_of_equation(layer))
    if isinstance(layer, _DEPTHWISE):
        return Role(KERNEL, math.prod(shape[:-2]))
    if isinstance(layer, _TRANSPOSED):
        taps = math.prod(shape[:-2]) / math.prod(_strides(layer, len(shape) - 2))
        return Role(KERNEL, max(taps, 1) * shape[-1])
    return role


def _role_by_name(variable):
    *layers, name = variable.path.split("/")
    layer, shape = "/".join(layers[-1:]), tuple(variable.shape)
    if len(shape) < 2 or name in ("bias", "beta"):
        return Role(GAIN if name in ("gamma", "scale") else VECTOR)
    if name == "reverse_embeddings" or (name.startswith("lora_") and name.endswith("_b")):
        return Role(KERNEL, shape[0])
    if "embeddings" in name:
        return Role(EMBEDDING)
    if "depthwise" in f"{layer}/{name}":
        return Role(KERNEL, math.prod(shape[:-2]))
    if layer in ("query", "key", "value") and name == "kernel":  # of Keras' attention layers
        return Role(KERNEL, shape[0])
    return Role(KERNEL, math.prod(shape[:-1]))


def _fan_in_of_equation(layer):
    """Sizes of the letters that a unit sums over: of `abc,cd->ad` b and c."""
    axes = Axes.of(layer)
    sizes = dict(zip(axes.inputs, _input_shape(layer), strict=False))
    sizes |= dict(zip(axes.kernel, layer.kernel.shape, strict=True))
    summed = (set(axes.inputs) | set(axes.kernel)) - set(axes.outputs)
    return math.prod(sizes.get(letter) or 1 for letter in summed)


def _input_shape(layer):
    return keras_internals.build_shapes(layer).get("input_shape") or ()


def _strides(layer, rank):
    return (layer.strides,) * rank if isinstance(layer.strides, int) else layer.strides
