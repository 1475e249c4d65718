"""One row for each way to use a layer that has a rule, and how measured and expected
statistics are compared."""

import keras
import numpy as np
from cases import JIT_IF_NEEDED
from keras import layers, ops

from keras_langevin import keras_internals, statistics
from keras_langevin.statistics.block import INPUT_MEAN, SHIFT
from keras_langevin.statistics.reference import per_example_statistics
from keras_langevin.weights import is_statistic

BACKEND = keras.backend.backend()
BATCH = 4


class Descent(keras_internals.JointOptimizer):
    """Plain gradient descent that asks for statistics and looks at none."""

    statistics = "quasi_diagonal"

    def step(self, parameters, gradients, learning_rate):
        for variable, gradient in zip(parameters, gradients, strict=True):
            if not is_statistic(variable):
                yield variable, variable - learning_rate * ops.cast(gradient, variable.dtype)


class FrozenBatchNormalization(layers.Layer):
    """In inference mode, with moments that are not those of a fresh layer."""

    def __init__(self, **kwargs):
        super().__init__()
        self.inner = layers.BatchNormalization(
            moving_mean_initializer=keras.initializers.RandomNormal(0.3, seed=1),
            moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2.0, seed=2),
            **kwargs,
        )

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, x):
        return self.inner(x, training=False)


def attention(layer):
    return lambda x: layer(x, x)


def einsum(equation, output_shape, bias_axes=None):
    return layers.EinsumDense(equation, output_shape, bias_axes=bias_axes, activation="tanh")


# family: (shape of one example, {case: what makes the layer})
CASES = {
    "each_rule": (
        (5, 4, 2),
        {
            "dense": lambda: layers.Dense(2, activation="tanh"),
            "einsum": lambda: einsum("abcd,cde->abe", (5, 3), "e"),
            "convolution": lambda: layers.Conv2D(3, (2, 3), strides=2, padding="same"),
            "depthwise": lambda: layers.DepthwiseConv2D(2, depth_multiplier=2),
            "transposed": lambda: layers.Conv2DTranspose(2, 2),
            "layer_norm": lambda: layers.LayerNormalization(axis=[1, 2, 3]),
            "batch_norm": lambda: FrozenBatchNormalization(),
            "embedding": lambda: keras.Sequential(
                [layers.GlobalAveragePooling2D(), layers.ReLU(), layers.Embedding(7, 3)]
            ),
        },
    ),
    "dense": (
        (3, 4),
        {
            "tokens": lambda: layers.Dense(2, activation="tanh"),
            "no_bias": lambda: layers.Dense(2, use_bias=False),
            "features": lambda: keras.Sequential([layers.Flatten(), layers.Dense(3)]),
        },
    ),
    "einsum": (
        (3, 4),
        {
            "as_dense": lambda: einsum("abc,cd->abd", (3, 2), "d"),
            "heads": lambda: einsum("abc,cde->abde", (3, 2, 3), "de"),
            "part_of_heads": lambda: einsum("abc,cde->abde", (3, 2, 3), "e"),
            "first_of_heads": lambda: einsum("abc,cde->abde", (3, 2, 3), "d"),
            "contract_all": lambda: einsum("abc,bcd->ad", 2, "d"),
            "ellipsis_left": lambda: einsum("...x,xy->...y", 2, "y"),
            "ellipsis_right": lambda: einsum("ab...,bc->ac...", (2,), "c"),
            "bias_of_positions": lambda: einsum("abc,cd->abd", (3, 2), "bd"),
            "bias_in_other_order": lambda: einsum("abc,cde->abed", (3, 3, 2), "ed"),
            "summed_before": lambda: einsum("abc,cd->ad", 2, "d"),
            "kernel_of_positions": lambda: einsum("abc,bcd->abd", (3, 2), "bd"),
            "no_bias": lambda: einsum("abc,cd->abd", (3, 2)),
        },
    ),
    "attention": (
        (3, 4),
        {
            "multi_head": lambda: attention(layers.MultiHeadAttention(2, 3)),
            "grouped_query": lambda: attention(layers.GroupQueryAttention(2, 4, 2)),
        },
    ),
    "normalization": (
        (3, 2, 4),
        {
            "layer": lambda: layers.LayerNormalization(),
            "layer_two_axes": lambda: layers.LayerNormalization(axis=[1, 3]),
            "layer_scale_only": lambda: layers.LayerNormalization(center=False),
            "layer_offset_only": lambda: layers.LayerNormalization(scale=False),
            "group": lambda: layers.GroupNormalization(2),
            "group_first_axis": lambda: layers.GroupNormalization(3, axis=1),
            "rms": lambda: layers.RMSNormalization(),
            "batch": lambda: FrozenBatchNormalization(),
            "batch_offset_only": lambda: FrozenBatchNormalization(scale=False, axis=2),
        },
    ),
    "convolution_1d": (
        (6, 4),
        {
            "valid": lambda: layers.Conv1D(3, 3, activation="tanh"),
            "same_strides": lambda: layers.Conv1D(3, 3, strides=2, padding="same"),
            "strides_past_window": lambda: layers.Conv1D(3, 1, strides=4, padding="same"),
            "causal_dilated": lambda: layers.Conv1D(3, 2, padding="causal", dilation_rate=2),
            "groups": lambda: layers.Conv1D(6, 3, groups=2),
            "depthwise": lambda: layers.DepthwiseConv1D(3, depth_multiplier=2),
            "transposed": lambda: layers.Conv1DTranspose(3, 3, strides=2),
        },
    ),
    "convolution_2d": (
        (5, 4, 2),
        {
            "valid_strides": lambda: layers.Conv2D(3, (3, 2), strides=(2, 1), activation="tanh"),
            "same": lambda: layers.Conv2D(3, 3, padding="same"),
            "same_strides": lambda: layers.Conv2D(3, (2, 3), strides=2, padding="same"),
            "dilated": lambda: layers.Conv2D(3, 2, dilation_rate=2),
            "no_bias": lambda: layers.Conv2D(3, 2, use_bias=False),
            "groups": lambda: layers.Conv2D(4, 2, groups=2, padding="same"),
            "depthwise": lambda: layers.DepthwiseConv2D(2, depth_multiplier=3),
            "depthwise_same": lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
            "transposed": lambda: layers.Conv2DTranspose(3, 2, strides=2, padding="same"),
        },
    ),
    "convolution_3d": (
        (3, 4, 3, 2),
        {
            "same": lambda: layers.Conv3D(2, 2, padding="same", strides=(1, 2, 1)),
            "transposed": lambda: layers.Conv3DTranspose(2, (1, 2, 1)),
        },
    ),
    "channels_first": (
        (2, 5, 4),
        {
            "same": lambda: layers.Conv2D(3, 3, padding="same", data_format="channels_first"),
            "depthwise": lambda: layers.DepthwiseConv2D(2, data_format="channels_first"),
            "transposed": lambda: layers.Conv2DTranspose(3, 2, data_format="channels_first"),
        },
    ),
    "separable": (  # the reference has no `independent` for them: see test_separable_...
        (5, 4, 2),
        {
            "multiplier": lambda: layers.SeparableConv2D(3, 2, depth_multiplier=2),
            "same_strides": lambda: layers.SeparableConv2D(
                3, 3, strides=2, padding="same", activation="tanh", use_bias=False
            ),
            "one_axis": lambda: keras.Sequential(
                [layers.Reshape((5, 8)), layers.SeparableConv1D(3, 2)]
            ),
        },
    ),
    "embedding": ((5,), {"tokens": lambda: layers.Embedding(7, 3)}),
}


def runs_here(family):
    return family != "channels_first" or BACKEND != "tensorflow"


def make_model(family):
    return make_branches(*CASES[family])


def make_branches(shape, cases):
    """Every case as a branch of one model: one compilation tests them all."""
    inputs = keras.Input(shape)
    heads = []
    for name, make in cases.items():
        with keras.name_scope(name):
            hidden = layers.Flatten()(make()(inputs))
            heads.append(layers.Dense(2, trainable=False)(hidden))
    model = keras.Model(inputs, layers.Add()(heads) if len(heads) > 1 else heads[0])
    randomize(model)
    return model


def randomize(model, seed=0):
    """No weight is zero or one, so that none hides a mistake."""
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        v.assign(rng.normal(0.2, 0.6, v.shape))


def make_data(model, batch=BATCH, seed=1):
    """Inputs whose mean is far from zero, and targets."""
    rng = np.random.default_rng(seed)
    shape = (batch, *model.input_shape[1:])
    x = rng.normal(1.0, 0.7, shape).astype("float32")
    if any(isinstance(layer, layers.Embedding) for layer in model.layers):
        x = rng.integers(0, 6, shape)
    return x, rng.normal(size=(batch, *model.output_shape[1:])).astype("float32")


def fit_once(model, x, y, sample_weight=None):
    model.fit(
        x, y, sample_weight=sample_weight, batch_size=len(x), epochs=1, shuffle=False, verbose=0
    )


def measure(
    model, x, y, spatial="independent", steps=2, sample_weight=None, wanted="quasi_diagonal"
):
    """Runs steps that change nothing but the statistics; the second has a shift."""
    optimizer = Descent(0.0)
    optimizer.statistics = wanted
    model.compile(optimizer, loss="mse", jit_compile=JIT_IF_NEEDED)
    statistics.track_statistics(model, optimizer, spatial=spatial)
    for _ in range(steps):
        fit_once(model, x, y, sample_weight)
    return measured(model)


def measured(model):
    """Statistics about zero, by path of the kernel and kind, as the reference returns them."""
    raw = {}
    for variable in filter(is_statistic, model.trainable_variables):
        block = variable.statistic.block
        if block is not None:
            value = ops.convert_to_numpy(variable).astype("float64")
            raw.setdefault(block, {})[variable.statistic.kind] = value
    return {block.kernel.path: _about_zero(block, dict(values)) for block, values in raw.items()}


def _about_zero(block, values):
    if INPUT_MEAN in values:
        shift, mean = values.pop(SHIFT)[0], values["input_mean"]
        values["input_second_moment"] += 2 * shift * mean + shift**2
        values["input_mean"] = mean + shift
    elif SHIFT in values:
        shift = values.pop(SHIFT)[0].reshape(block.shift_shape)
        bias = values["bias_second_moment"].reshape(block.bias_shape)
        cross = values["cross_moment"]
        values["second_moment"] = values["second_moment"] + 2 * shift * cross + shift**2 * bias
        values["cross_moment"] = cross + shift * bias
    return values


def relative_error(value, expected, scale=0.0):
    return np.abs(value - expected).max() / max(np.abs(expected).max(), scale)


def errors(value, expected):
    """Largest relative error of each kernel's statistics."""
    assert value.keys() == expected.keys()
    result = {}
    for path in expected:
        assert value[path].keys() == expected[path].keys(), path
        # The whole gradient of an attention's key bias is zero but for rounding.
        scale = np.abs(expected[path]["second_moment"]).max() if "/key/" in path else 0.0
        result[path] = max(
            relative_error(value[path][kind], expected[path][kind], scale)
            for kind in expected[path]
        )
    return result


def family_errors(family, spatial):
    model = make_model(family)
    x, y = make_data(model)
    value = measure(model, x, y, spatial)
    return errors(value, per_example_statistics(model, x, y, spatial=spatial))
