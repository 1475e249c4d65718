"""A block: a kernel, the bias of the same units, and what is measured of them."""

import dataclasses
import math
from collections.abc import Callable

import keras
from keras import ops

from keras_langevin.arguments import function, instance, one_of, shorten


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Weights of z = op(features, kernel) + bias, for an `op` linear in both arguments.

    `Block(layer.kernel, keras.ops.matmul, layer.bias)` is that of a Dense layer. Whatever follows
    from the shapes of kernel and bias may be left out.

    Args:
        kernel: The variable the features meet.
        op: `op(features, kernel)` gives z without bias and activation, shape (batch, ...).
        bias: The variable of the same units, or None.
        bias_shape: The shape under which the bias, or a number for each unit of a layer
            without one, broadcasts against the kernel, one number for each kernel axis:
            `(1, units)` for Dense. None: the bias has the last axes of the kernel, as in all Keras
            layers but transposed and depthwise convolutions; without a bias, the axes that
            `shift_shape` has not.
        bias_axes: The axes of z, counted from the end, that the bias has. None: the last ones.
        shift_shape: Shape under which one number for each input feature broadcasts against
            the kernel: `(inputs, 1)` for Dense; the features are the last axes of the input.
            Only for a layer that brings every input of a unit together with every δ of that
            unit, which shapes do not tell. None: `(inputs, 1)` for `op=keras.ops.matmul` and a
            kernel of two axes; for all others the second moments are then taken about zero, and
            the moments of the inputs are not measured.
        per_example: `per_example(block, features, deltas)` gives the kernel's gradient of
            every example, shape (batch, *kernel.shape). None: the gradient of `op`, run for
            all examples at once by `keras.ops.vectorized_map`.
        adjoint: `adjoint(features, cotangent)` gives the gradient of sum(op(features, kernel) ·
            cotangent) by the kernel. None: the matrix product for `op=keras.ops.matmul` and a
            kernel of two axes; for all others automatic differentiation, which torch runs `op`
            itself for.

    Raises:
        ValueError: If the shapes do not fit each other, or `bias_shape` does not follow from them.
    """

    kernel: keras.Variable
    op: Callable
    bias: keras.Variable | None = None
    bias_shape: tuple | None = None
    bias_axes: tuple | None = None
    shift_shape: tuple | None = None
    per_example: Callable | None = None
    adjoint: Callable | None = None

    def __post_init__(self):
        instance("kernel", self.kernel, keras.Variable, "a `keras.Variable`")
        function("op", self.op)
        if self.bias is not None:
            instance("bias", self.bias, keras.Variable, "a `keras.Variable`, or None")
        for name in ("per_example", "adjoint"):
            if getattr(self, name) is not None:
                function(name, getattr(self, name))
        for name in ("bias_shape", "bias_axes", "shift_shape"):
            value = getattr(self, name)
            is_tuple = isinstance(value, tuple) and all(isinstance(n, int) for n in value)
            if not is_tuple and value is not None:
                raise ValueError(
                    f"`{name}` must be a tuple of integers, or None. Received: {name}="
                    f"{shorten(value)}"
                )
        for name in ("bias_shape", "shift_shape"):
            self._check_broadcasts(name)
        self._derive()
        self._check_bias()

    def _derive(self):
        """Fills in what follows from the shapes."""
        kernel = tuple(self.kernel.shape)
        derived = {}
        if self.op is ops.matmul and len(kernel) == 2:
            derived = {"shift_shape": (kernel[0], 1), "adjoint": _product_adjoint}
        if self.bias is not None:
            bias = tuple(self.bias.shape)
            derived["bias_axes"] = tuple(range(-len(bias), 0))
            first = len(kernel) - len(bias)
            if first >= 0 and kernel[first:] == bias:
                derived["bias_shape"] = (1,) * first + bias
        for name, value in derived.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.bias is None and self.bias_shape is None and self.shift_shape is not None:
            pairs = zip(kernel, self.shift_shape, strict=True)
            units = tuple(1 if n == shifts else n for n, shifts in pairs)
            object.__setattr__(self, "bias_shape", units)

    def _check_broadcasts(self, name):
        kernel, shape = tuple(self.kernel.shape), getattr(self, name)
        if shape is None:
            return
        pairs = list(zip(shape, kernel, strict=False))
        if len(shape) != len(kernel) or any(n not in (1, m) for n, m in pairs):
            raise ValueError(
                f"`{name}` must have one number for each axis of the kernel, 1 or the kernel's "
                f"own. Received: {name}={shape} for a kernel of shape {kernel}."
            )

    def _check_bias(self):
        if self.bias is None:
            return
        kernel, bias = tuple(self.kernel.shape), tuple(self.bias.shape)
        if self.bias_shape is None:
            raise ValueError(
                "`bias_shape` cannot be derived, since the bias has not the last axes of the "
                f"kernel. Received: bias_shape=None for a kernel of shape {kernel} and a bias of "
                f"shape {bias}. Pass the shape under which the bias broadcasts against the kernel: "
                "one number for each axis of the kernel, 1 where the bias has no such axis."
            )
        if math.prod(self.bias_shape) != math.prod(bias):
            raise ValueError(
                "`bias_shape` must hold as many numbers as the bias. Received: bias_shape="
                f"{self.bias_shape} for a bias of shape {bias}."
            )


def _product_adjoint(features, cotangent):
    """The gradient of sum(features · kernel · cotangent) by the kernel, a matrix."""
    flat = (ops.reshape(array, (-1, array.shape[-1])) for array in (features, cotangent))
    features, cotangent = flat
    return ops.matmul(ops.transpose(features), cotangent)


# Kinds of statistics. δ is the derivative of one example's loss by z; averages are over
# examples, those of the inputs over positions too.
SECOND_MOMENT = "second_moment"  # Mii = E[δ² x²], shaped as the kernel
CROSS_MOMENT = "cross_moment"  # M0i = E[δ² x], shaped as the kernel
BIAS_SECOND_MOMENT = "bias_second_moment"  # M00 = E[δ²], shaped as the bias
INPUT_MEAN = "input_mean"  # E[x] for every feature
INPUT_SECOND_MOMENT = "input_second_moment"  # E[x²] for every feature
SHIFT = "shift"  # c for every feature, rows (used, next): moments are of x - c
UNIT_SCALE = "unit_scale"  # max(inputs of a unit / batch, √positions)
LOSS_SCALE = "loss_scale"  # what the loss was multiplied by
LABEL_DRAW = "label_draw"  # how many times labels were drawn from the model
LOSS = "loss"  # the loss itself, regularisers included
BATCH_SIZE = "batch_size"  # examples in the minibatch, over replicas and micro-batches

KINDS = (
    SECOND_MOMENT,
    CROSS_MOMENT,
    BIAS_SECOND_MOMENT,
    INPUT_MEAN,
    INPUT_SECOND_MOMENT,
    SHIFT,
    UNIT_SCALE,
    LOSS_SCALE,
    LABEL_DRAW,
    LOSS,
    BATCH_SIZE,
)
# What an optimizer asks for: the name of a set of statistics and its kinds.
SETS = {
    "diagonal": (SECOND_MOMENT, BIAS_SECOND_MOMENT),
    "quasi_diagonal": (SECOND_MOMENT, BIAS_SECOND_MOMENT, CROSS_MOMENT, SHIFT),
    "inputs": (INPUT_MEAN, INPUT_SECOND_MOMENT, SHIFT, UNIT_SCALE),
    "loss": (),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Statistic:
    """What a statistics variable holds; stands on the variable as `variable.statistic`.

    Attributes:
        kind: Of the statistic, such as `"second_moment"`.
        block: The `Block` that it is measured of, or None for one of the whole model.
    """

    kind: str
    block: Block | None

    def __post_init__(self):
        one_of("kind", self.kind, KINDS)
        if self.block is not None:
            instance("block", self.block, Block, "a `kl.statistics.Block`, or None")

    @property
    def is_intensive(self) -> bool:
        return self.kind in (SHIFT, UNIT_SCALE, LOSS_SCALE, LABEL_DRAW)

    @property
    def is_a_sum(self) -> bool:
        """Over accumulation steps, of which the others are averages."""
        return self.kind == BATCH_SIZE

    @property
    def is_of_gradients(self) -> bool:
        return self.kind in (SECOND_MOMENT, CROSS_MOMENT, BIAS_SECOND_MOMENT)


def statistics_of(block: Block, name: str) -> dict[str, tuple]:
    """Kinds and shapes of what the set of statistics `name` measures of a block."""
    shapes = {SECOND_MOMENT: tuple(block.kernel.shape)}
    if block.bias is not None:
        shapes[BIAS_SECOND_MOMENT] = tuple(block.bias.shape)
        shapes[CROSS_MOMENT] = tuple(block.kernel.shape)
    if block.shift_shape is not None:
        features = math.prod(block.shift_shape)
        shapes[INPUT_MEAN] = shapes[INPUT_SECOND_MOMENT] = (features,)
        shapes[UNIT_SCALE] = ()
        if block.bias is not None or name == "inputs":
            shapes[SHIFT] = (2, features)
    return {kind: shapes[kind] for kind in SETS[name] if kind in shapes}


def features_axis(shift_shape):
    """The kernel's axis of its input features; None where several of its axes hold them."""
    axes = [axis for axis, n in enumerate(shift_shape) if n != 1]
    return axes[0] if len(axes) == 1 else None


def axes_of(kind, block):
    """The variable of a block that a statistic is laid out along, and the axes of it that the
    statistic has, None for an axis of its own."""
    if kind == BIAS_SECOND_MOMENT:
        return block.bias, range(len(block.bias.shape))
    if kind in (SECOND_MOMENT, CROSS_MOMENT):
        return block.kernel, range(len(block.kernel.shape))
    if kind == UNIT_SCALE:
        return block.kernel, ()
    axis = features_axis(block.shift_shape)
    return block.kernel, (None, axis) if kind == SHIFT else (axis,)
