"""Networks of images."""

import keras
from keras import layers
from zoo.row import floats, one_hot, shares, whole, zoo

CLASSES = {"x": floats(8, 8, 1), "y": whole(3), "loss": "sparse_categorical_crossentropy"}
PIXELS = {"x": floats(8, 8, 1), "loss": "sparse_categorical_crossentropy"}


def stack(*middle, units=3):
    return keras.Sequential([keras.Input((8, 8, 1)), *middle, layers.Dense(units, "softmax")])


@zoo(**CLASSES)
def convolutions():
    conv = layers.Conv2D(3, 3, activation="relu")
    return stack(conv, layers.MaxPooling2D(), layers.Flatten())


@zoo(**CLASSES)
def depthwise_and_separable():
    return stack(
        layers.DepthwiseConv2D(3, activation="relu"),
        layers.SeparableConv2D(3, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
    )


@zoo(**CLASSES)
def strides_and_dilation():
    return stack(
        layers.ZeroPadding2D(1),
        layers.Conv2D(3, 3, strides=2, activation="relu"),
        layers.Conv2D(3, 2, dilation_rate=2, padding="same"),
        layers.GlobalMaxPooling2D(),
    )


@zoo(**CLASSES)
def augmented():
    return stack(
        layers.RandomFlip("horizontal"),
        layers.RandomTranslation(0.1, 0.1),
        layers.Conv2D(3, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
    )


@zoo(**CLASSES)
def residual_blocks():
    inputs = keras.Input((8, 8, 1))
    h = layers.Conv2D(4, 3, padding="same")(inputs)
    other = layers.Conv2D(4, 3, padding="same", activation="relu")(h)
    h = layers.Activation("relu")(layers.Add()([h, layers.GroupNormalization(2)(other)]))
    return keras.Model(inputs, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(h)))


@zoo(**PIXELS, y=whole(3, 8, 8), adam_fails=("torch",))
def u_net():
    inputs = keras.Input((8, 8, 1))
    down = layers.Conv2D(3, 3, strides=2, padding="same", activation="relu")(inputs)
    up = layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu")(down)
    h = layers.Concatenate()([inputs, up])
    return keras.Model(inputs, layers.Conv2D(3, 1, activation="softmax")(h))


@zoo(
    x=floats(8, 8, 1),
    y=lambda rng: whole(4, 8, 8)(rng) - 1,
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
    everywhere="one member",
)
def void_pixels():
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(3, 3, padding="same")])


@zoo(
    x=floats(2, 4, 4),
    y=lambda rng: one_hot(3, 4, 4)(rng).transpose(0, 3, 1, 2),
    loss=keras.losses.CategoricalCrossentropy(from_logits=True, axis=1),
    everywhere="one member",
)
def classes_first():
    inputs = keras.Input((2, 4, 4))
    h = layers.Dense(3)(layers.Permute((2, 3, 1))(inputs))
    return keras.Model(inputs, layers.Permute((3, 1, 2))(h))


@zoo(x=shares(8, 8, 1), y=shares(8, 8, 1), loss="binary_crossentropy")
def image_autoencoder():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(2, 3, strides=2, padding="same", activation="relu"),
            layers.UpSampling2D(),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )


@zoo(x=floats(4, 4, 4, 1), y=whole(2), loss="binary_crossentropy")
def volumes():
    return keras.Sequential(
        [
            keras.Input((4, 4, 4, 1)),
            layers.Conv3D(2, 2, activation="relu"),
            layers.GlobalAveragePooling3D(),
            layers.Dense(1, "sigmoid"),
        ]
    )


@zoo(**CLASSES)
def patches_with_attention():
    inputs = keras.Input((8, 8, 1))
    h = layers.Conv2D(4, 4, strides=4)(inputs)
    h = layers.Reshape((4, 4))(h)
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, 2)(h, h))
    return keras.Model(inputs, layers.Dense(3, "softmax")(layers.Flatten()(h)))
