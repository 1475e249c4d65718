"""EinsumDense: z = einsum(x, K) + b."""

import dataclasses
import functools
import string

import keras
from keras import ops

from keras_langevin.statistics.block import Block
from keras_langevin.statistics.registry import LayerRule, register_rule


@dataclasses.dataclass(frozen=True)
class Axes:
    """The letters of a layer's equation, its ellipsis written out for the rank of its input."""

    inputs: str
    kernel: str
    outputs: str
    bias: str  # in the order of the output

    @classmethod
    def of(cls, layer):
        equation = layer.equation.replace(" ", "")
        inputs, rest = equation.split(",")
        missing = layer.input_spec.ndim - len(inputs.replace("...", ""))
        unused = [c for c in string.ascii_letters if c not in equation]
        written_out = "".join(unused[: max(missing, 0)])
        inputs, rest = (part.replace("...", written_out) for part in (inputs, rest))
        kernel, outputs = rest.split("->")
        bias = "".join(c for c in outputs if c in (layer.bias_axes or ""))
        return cls(inputs, kernel, outputs, bias)

    @property
    def summed(self):
        """Input axes that the layer sums over before the kernel."""
        return [c for c in self.inputs if c not in self.kernel + self.outputs]

    @property
    def features(self):
        """The input's axes after that sum."""
        return "".join(c for c in self.inputs if c not in self.summed)

    @property
    def contracted(self):
        return "".join(c for c in self.features if c not in self.outputs)

    @property
    def keeps_examples_first(self):
        return self.inputs[0] == self.outputs[0] and self.inputs[0] not in self.kernel

    @property
    def pairs_bias(self):
        """Every unit of the bias belongs to units of the kernel, in the same order."""
        return self.bias == "".join(c for c in self.kernel if c in self.bias)

    @property
    def units(self):
        return "".join(c for c in self.kernel if c not in self.contracted)

    @property
    def can_shift(self):
        """Each unit has its own bias, if any, and sees the input's last axes, whole."""
        return (
            self.bias in (self.units, "")
            and not set(self.units) & set(self.inputs)
            and self.features.endswith(self.contracted)
            and self.contracted == "".join(c for c in self.kernel if c in self.contracted)
        )

    def kernel_shape(self, layer, letters):
        """The kernel's shape with 1 for every axis not among the letters."""
        sizes = zip(self.kernel, layer.kernel.shape, strict=True)
        return tuple(n if c in letters else 1 for c, n in sizes)


@register_rule(keras.layers.EinsumDense)
class EinsumDenseRule(LayerRule):
    """A bias with an axis that the kernel lacks (one number for each token, say) has no unit
    of the kernel to pair with: kernel and bias are then measured as two blocks."""

    def blocks(self, layer):
        axes = Axes.of(layer)
        if not axes.keeps_examples_first:
            return []
        op = functools.partial(ops.einsum, f"{axes.features},{axes.kernel}->{axes.outputs}")
        adjoint = functools.partial(ops.einsum, f"{axes.features},{axes.outputs}->{axes.kernel}")
        if not set(axes.kernel) <= set(axes.features + axes.outputs):
            adjoint = None
        shift_shape = axes.kernel_shape(layer, axes.contracted) if axes.can_shift else None
        if layer.bias is None:
            bias_shape = axes.kernel_shape(layer, axes.units)
            return [
                Block(
                    layer.kernel,
                    op=op,
                    bias_shape=bias_shape,
                    shift_shape=shift_shape,
                    adjoint=adjoint,
                )
            ]
        bias_axes = tuple(axes.outputs.index(c) for c in axes.bias)
        if not axes.pairs_bias:
            return [
                Block(layer.kernel, op=op, adjoint=adjoint),
                Block(layer.bias, op=ops.multiply),
            ]
        return [
            Block(
                layer.kernel,
                op=op,
                bias=layer.bias,
                bias_shape=axes.kernel_shape(layer, axes.bias),
                bias_axes=bias_axes,
                shift_shape=shift_shape,
                adjoint=adjoint,
            )
        ]

    def features(self, layer, inputs, deltas):
        axes = Axes.of(layer)
        if axes.summed:
            inputs = ops.sum(inputs, axis=tuple(axes.inputs.index(c) for c in axes.summed))
        pairs = [(inputs, deltas)]
        if layer.bias is not None and not axes.pairs_bias:
            pairs.append((ops.ones_like(deltas), deltas))
        return pairs
