"""Priors whose width follows from the place of a variable in its layer; the default among them."""

import math

from keras_langevin.arguments import width
from keras_langevin.priors.densities import Normal
from keras_langevin.priors.prior import Prior, register
from keras_langevin.priors.roles import EMBEDDING, GAIN, KERNEL, role_of


class _ByRole(Prior):
    """What both have in common; a subclass says the scale, variance times fan-in, of a kernel."""

    def for_variable(self, variable):
        role = role_of(variable)
        if role.kind == KERNEL:
            return Normal(math.sqrt(self._scale_of(role) / role.fan_in))
        if role.kind == EMBEDDING:
            return Normal(self.embedding_stddev)
        return Normal(self.bias_stddev, mean=1.0 if role.kind == GAIN else 0.0)


@register
class LayerwiseNormal(_ByRole):
    """The default: modest kernels within the network, wide ones for its outputs.

    | variable | prior |
    |---|---|
    | kernel | N(0, hidden_scale / fan_in) |
    | kernel whose units are the model's outputs | N(0, output_stddev² / fan_in) |
    | embedding | N(0, embedding_stddev²) on every entry |
    | gain of a normalization | N(1, bias_stddev²) |
    | bias, offset, any other vector | N(0, bias_stddev²) |

    Under the prior a hidden layer of rectified units multiplies the size of what goes in by
    √(hidden_scale/2), 1.4 by default, at any width, and the outputs (logits, say) are
    `output_stddev` times the size of what goes into them. With inputs of size one the outputs are
    8.5 wide with one hidden layer, 12 with two, 34 with five; one scale of 10 for all kernels gives
    7, 16 and 177. Within attention and recurrent layers, too, modest kernels do not saturate.

    The fan-in is the number of inputs that a unit adds up: the features of a Dense layer, patch
    size times channels of a convolution (without the channels where it is depthwise, over the
    strides where it is transposed), what the equation of an `EinsumDense`, also within attention,
    sums over, the units for a recurrent kernel. `kl.priors.describe(model)` shows what each
    variable gets.

    Scale inputs to about one: `x / 255` of images is a third of that, and the outputs are then a
    third as wide. Where the training loss stays far above what Adam reaches, the prior is too
    narrow: try a larger `output_stddev`.

    Args:
        output_stddev: Standard deviation of the model's outputs where the units before them are of
            size one.
        hidden_scale: Variance of the entries of any other kernel times its fan-in. With 2 the size
            of rectified units stays the same at any depth.
        bias_stddev: Standard deviation of a vector's entries.
        embedding_stddev: Standard deviation of an embedding's entries.
    """

    def __init__(self, output_stddev=6.0, hidden_scale=4.0, bias_stddev=1.0, embedding_stddev=0.3):
        self.output_stddev = width("output_stddev", output_stddev)
        self.hidden_scale = width("hidden_scale", hidden_scale)
        self.bias_stddev = width("bias_stddev", bias_stddev)
        self.embedding_stddev = width("embedding_stddev", embedding_stddev)

    def _scale_of(self, role):
        return self.output_stddev**2 if role.is_output else self.hidden_scale

    def get_config(self):
        return {
            "output_stddev": self.output_stddev,
            "hidden_scale": self.hidden_scale,
            "bias_stddev": self.bias_stddev,
            "embedding_stddev": self.embedding_stddev,
        }


@register
class FanInNormal(_ByRole):
    """`LayerwiseNormal` with one scale for all kernels: N(0, scale / fan_in).

    Every hidden layer of rectified units multiplies the size of what comes out by √(scale/2), so
    that the scale which suits a network depends on its depth.

    Args:
        scale: Variance of a kernel's entries times the fan-in.
        bias_stddev: Standard deviation of a vector's entries.
        embedding_stddev: Standard deviation of an embedding's entries.
    """

    def __init__(self, scale=10.0, bias_stddev=1.0, embedding_stddev=0.3):
        self.scale = width("scale", scale)
        self.bias_stddev = width("bias_stddev", bias_stddev)
        self.embedding_stddev = width("embedding_stddev", embedding_stddev)

    def _scale_of(self, role):
        return self.scale

    def get_config(self):
        return {
            "scale": self.scale,
            "bias_stddev": self.bias_stddev,
            "embedding_stddev": self.embedding_stddev,
        }


DEFAULT = LayerwiseNormal()
