"""Networks of vectors: dense layers, and what stands between them."""

import keras
import numpy as np
from keras import layers, ops
from zoo.row import floats, one_hot, shares, whole, zoo

CLASSES = {"x": floats(4), "y": whole(3), "loss": "sparse_categorical_crossentropy"}
NUMBERS = {"x": floats(4), "y": floats(1), "loss": "mse"}


def stack(*middle, units=3, activation="softmax"):
    return keras.Sequential([keras.Input((4,)), *middle, layers.Dense(units, activation)])


@zoo(**CLASSES, compile={"metrics": ["accuracy"]}, everywhere=True)
def softmax():
    return stack(layers.Dense(5, "relu"))


@zoo(**{**CLASSES, "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
def logits():
    return stack(layers.Dense(5, "gelu"), activation=None)


@zoo(**CLASSES)
def softmax_layer():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Softmax()])


@zoo(**CLASSES)
def layer_normalization():
    return stack(layers.Dense(5), layers.LayerNormalization(), layers.ReLU())


@zoo(**CLASSES)
def rms_and_group_normalization():
    return stack(layers.Dense(6), layers.RMSNormalization(), layers.GroupNormalization(2))


@zoo(**CLASSES)
def dropout_and_noise():
    return stack(layers.GaussianNoise(0.1), layers.Dense(5, "relu"), layers.Dropout(0.3))


@zoo(**CLASSES)
def parametric_rectifier():
    return stack(layers.Dense(5), layers.PReLU())


@zoo(**CLASSES)
def einsum_dense():
    return stack(layers.EinsumDense("ab,bc->ac", output_shape=5, bias_axes="c"), layers.ELU())


@zoo(**CLASSES)
def spectral_normalization():
    return stack(layers.SpectralNormalization(layers.Dense(5, "tanh")))


@zoo(**CLASSES, everywhere=True)
def regularizers():
    dense = layers.Dense(5, "tanh", kernel_regularizer="l2", bias_regularizer="l1")
    return stack(dense, layers.ActivityRegularization(1e-3))


@zoo(**CLASSES, refused="BatchNormalization", everywhere=True)
def batch_normalization():
    return stack(layers.Dense(5), layers.BatchNormalization(), layers.ReLU())


@zoo(**CLASSES)
def frozen_batch_normalization():
    layer = layers.BatchNormalization()
    layer.trainable = False
    return stack(layers.Dense(5), layer, layers.ReLU())


@zoo(**CLASSES)
def partly_frozen():
    frozen = layers.Dense(5, "tanh")
    frozen.trainable = False
    return stack(frozen, layers.Dense(4, "tanh"))


@zoo(**CLASSES, everywhere=True)
def lora():
    model = stack(layers.Dense(5, "tanh"))
    model.layers[0].enable_lora(2)
    return model


@zoo(**NUMBERS)
def one_number():
    return stack(layers.Dense(5, "tanh"), units=1, activation=None)


@zoo(**{**NUMBERS, "y": floats()}, everywhere="one member")
def flat_targets():
    return stack(layers.Dense(5, "tanh"), units=1, activation=None)


@zoo(**{**NUMBERS, "y": floats(3)})
def three_numbers():
    return stack(layers.Dense(5, "tanh"), units=3, activation=None)


@zoo(
    **{
        **CLASSES,
        "y": one_hot(3),
        "loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.2),
    }
)
def smoothed_labels():
    return stack(layers.Dense(5, "tanh"))


@zoo(x=floats(4), y=whole(2), loss="binary_crossentropy", compile={"metrics": ["accuracy"]})
def yes_or_no():
    return stack(units=1, activation="sigmoid")


@zoo(x=floats(4), y=whole(2, 3), loss=keras.losses.BinaryCrossentropy(from_logits=True))
def several_labels():
    return stack(layers.Dense(5, "tanh"), activation=None)


@zoo(x=shares(4), y=shares(4), loss="binary_crossentropy", everywhere="one member")
def grey_targets():
    return stack(layers.Dense(2, "relu"), units=4, activation="sigmoid")


@zoo(**{**NUMBERS, "x": lambda rng: 50 + 9 * floats(4)(rng)}, everywhere=True)
def adapted_normalization():
    layer = layers.Normalization()
    layer.adapt(50 + 9 * np.random.default_rng(0).normal(size=(99, 4)))
    return stack(layer, layers.Dense(5, "tanh"), units=1, activation=None)


@zoo(**{**NUMBERS, "x": whole(200, 4, dtype="uint8")})
def bytes_into_dense():
    inputs = keras.Input((4,), dtype="uint8")
    outputs = layers.Dense(1)(layers.Dense(3, "tanh")(layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, outputs)


@zoo(**{**NUMBERS, "x": whole(3, 4)}, everywhere=True)
def whole_numbers_into_dense():
    inputs = keras.Input((4,), dtype="int32")
    return keras.Model(inputs, layers.Dense(1)(layers.Dense(3, "tanh")(inputs)))


@zoo(**{**NUMBERS, "x": whole(2, 4, dtype="bool")})
def yes_or_no_into_dense():
    inputs = keras.Input((4,), dtype="bool")
    return keras.Model(inputs, layers.Dense(1)(inputs))


@zoo(**NUMBERS)
def lambda_layer():
    return stack(layers.Lambda(lambda t: 2 * t), units=1, activation=None)


@zoo(**{**NUMBERS, "x": floats(4)})
def residual_with_operations():
    inputs = keras.Input((4,))
    h = layers.Dense(4, "swish")(inputs)
    h = ops.concatenate([h + inputs, ops.square(inputs)], axis=-1)
    return keras.Model(inputs, layers.Dense(1)(h))


@zoo(**NUMBERS)
def maximum_of_units():
    inputs = keras.Input((4,))
    parts = [layers.Dense(3)(inputs) for _ in range(3)]
    return keras.Model(inputs, layers.Dense(1)(layers.Maximum()(parts)))


@zoo(x=floats(4), y=floats(4), loss="mse")
def nested_autoencoder():
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(2, "tanh")])
    decoder = keras.Sequential([keras.Input((2,)), layers.Dense(4)])
    inputs = keras.Input((4,))
    return keras.Model(inputs, decoder(encoder(inputs)))
