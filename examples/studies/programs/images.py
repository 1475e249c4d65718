"""Programs that read images."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

import keras_langevin as kl
from examples.studies.programs.program import RMSE, Program, mnist, rmse

PIXELS = 14 * 14
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def cifar(folder, count, tested=500):
    """The first images as `float32` from 0 to 255, and their classes."""
    with np.load(Path(folder) / "cifar10_subset" / "cifar10_subset.npz") as arrays:
        parts = ("train", count), ("test", tested)
        return [
            (arrays[f"x_{p}"][:n].astype("float32"), arrays[f"y_{p}"][:n].astype("int32").ravel())
            for p, n in parts
        ]


def small_xception(folder):
    """Number 05. `BatchNormalization` in training, which the sampler refuses."""
    train, test = cifar(folder, 800)
    return Program(
        source="image_classification_from_scratch, 800 CIFAR-10 images",
        make=xception_model,
        train=train,
        test=test,
        num_data=800,
        loss=FROM_LOGITS,
        fit={"batch_size": 64},
    )


def frozen_xception(folder):
    program = small_xception(folder)
    return dataclasses.replace(
        program,
        source="the same, and the line `kl.freeze_batch_normalization(model, x_train)`",
        extra_line=lambda model: kl.freeze_batch_normalization(model, program.train[0]),
    )


def xception_model():
    inputs = keras.Input((32, 32, 3))
    x = layers.RandomRotation(0.05)(layers.RandomFlip("horizontal")(inputs))
    x = layers.Conv2D(24, 3, strides=2, padding="same")(layers.Rescaling(1 / 255)(x))
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    for filters in (32, 48):
        before = layers.Conv2D(filters, 1, strides=2, padding="same")(x)
        x = layers.SeparableConv2D(filters, 3, padding="same")(layers.Activation("relu")(x))
        x = layers.MaxPooling2D(3, 2, padding="same")(layers.BatchNormalization()(x))
        x = layers.add([x, before])
    x = layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def transfer(folder):
    """Number 06: a new head on a network that is held."""
    (x, y), (x_test, y_test) = cifar(folder, 800)
    backbone_seed = 5  # in place of the weights that the guide downloads

    def make():
        keras.utils.set_random_seed(backbone_seed)
        base = keras.applications.MobileNetV2((32, 32, 3), 0.35, include_top=False, weights=None)
        base.trainable = False
        inputs = keras.Input((32, 32, 3))
        x = base(layers.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
        x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, layers.Dense(1)(x))

    return Program(
        source="transfer_learning, MobileNetV2 with random weights, CIFAR-10: a machine or not",
        make=make,
        train=(x, (y < 2).astype("float32")),
        test=(x_test, (y_test < 2).astype("float32")),
        num_data=800,
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metric="binary_accuracy",
        metrics=lambda: [keras.metrics.BinaryAccuracy(threshold=0.0)],
        epochs=4,
        fit={"batch_size": 64},
    )


def autoencoder(folder):
    """Number 08: grey pixels as targets of a crossentropy."""
    rng = np.random.default_rng(0)

    def noisy(x):
        clean = x[:, ::2, ::2]
        noise = rng.normal(0, 0.4, clean.shape)
        return np.clip(clean + noise, 0, 1).astype("float32"), clean

    train, test = (noisy(x) for x, _ in mnist(folder, 1500, 500))
    return Program(
        source="autoencoder, MNIST at 14x14 with noise",
        make=autoencoder_model,
        train=train,
        test=test,
        num_data=1500,
        loss="binary_crossentropy",
        metric=RMSE,
        metrics=rmse,
        fit={"batch_size": 64},
    )


def autoencoder_model():
    inputs = keras.Input((14, 14, 1))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x))


@keras.saving.register_keras_serializable("programs")
class Sampling(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, moments):
        mean, log_variance = moments
        noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
        return mean + ops.exp(0.5 * log_variance) * noise


def halves():
    """Encoder and decoder of 14x14 images."""
    image = keras.Input((14, 14, 1))
    x = layers.Dense(64, "relu")(layers.Flatten()(image))
    mean, log_variance = layers.Dense(2)(x), layers.Dense(2)(x)
    code = keras.Input((2,))
    x = layers.Dense(PIXELS, "sigmoid")(layers.Dense(64, "relu")(code))
    moments = [mean, log_variance]
    encoder = keras.Model(image, [*moments, Sampling()(moments)])
    return encoder, keras.Model(code, layers.Reshape((14, 14, 1))(x))


@keras.saving.register_keras_serializable("programs")
class Variational(keras.Model):
    """Encoder and decoder; predictions are those of the mean code."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = halves()

    def call(self, image, training=False):
        mean, _, code = self.encoder(image)
        return self.decoder(code if training else mean)


def divergence(mean, log_variance):
    """Of the codes from N(0, 1), one number for each example."""
    return ops.sum(0.5 * (ops.square(mean) + ops.exp(log_variance) - 1 - log_variance), axis=1)


@keras.saving.register_keras_serializable("programs")
class OwnStep(Variational):
    """A step of its own, as in the example, whose loss nothing else can compute."""

    def train_step(self, data):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            mean, log_variance, code = self.encoder(data[0])
            pixels = keras.losses.binary_crossentropy(data[0], self.decoder(code))
            loss = ops.mean(ops.sum(pixels, axis=(1, 2)) + divergence(mean, log_variance))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss}


@keras.saving.register_keras_serializable("programs")
class AddedLoss(Variational):
    """The crossentropy of pixels is compiled, the divergence is added to it in `call`."""

    def call(self, image, training=False):
        mean, log_variance, code = self.encoder(image)
        self.add_loss(ops.mean(divergence(mean, log_variance)) / PIXELS)
        return self.decoder(code if training else mean)


def variational(make, loss, output, what):
    """Number 09."""

    def program(folder):
        train, test = (x[:, ::2, ::2] for x, _ in mnist(folder, 1000, 300))
        return Program(
            source=f"vae, MNIST at 14x14: {what}",
            make=make,
            train=(train, train),
            test=(test, test),
            num_data=1000,
            loss=loss,
            metric=RMSE,
            metrics=rmse if loss else lambda: None,
            output=output,
            fit={"batch_size": 64},
        )

    return program


own_step = variational(OwnStep, None, "values", "a `train_step` of its own")
added_loss = variational(AddedLoss, "binary_crossentropy", None, "a compiled loss and `add_loss`")


class Pictures(keras.utils.PyDataset):
    def __init__(self, x, y, batch_size):
        super().__init__()
        self.x, self.y, self.batch_size = x, y, batch_size

    def __len__(self):
        return len(self.x) // self.batch_size

    def __getitem__(self, index):
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return self.x[rows], self.y[rows]


def segmentation(folder):
    """Number 14: outside, edge or inside of a digit, for every pixel of a noisy image."""
    rng = np.random.default_rng(0)

    def pictures(x):
        labels = edges_and_insides(x[..., 0] > 0.5)
        noisy = np.clip(x + rng.normal(0, 0.5, x.shape), -1, 2).astype("float32")
        return (Pictures(noisy, labels[..., None], 32),)

    train, test = (pictures(x) for x, _ in mnist(folder, 512, 160))
    return Program(
        source="oxford_pets_image_segmentation, parts of MNIST digits, `PyDataset`",
        make=u_net,
        train=train,
        test=test,
        num_data=512,
        loss="sparse_categorical_crossentropy",
        epochs=4,
    )


def edges_and_insides(ink):
    """0 outside, 1 at the edge and 2 where all nine pixels are ink."""
    padded = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return (ink + (ink & windows.all(axis=(-1, -2)))).astype("uint8")


def u_net():
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(inputs)
    before = layers.Conv2D(24, 1, strides=2, padding="same")(x)
    x = layers.SeparableConv2D(24, 3, padding="same", activation="relu")(x)
    x = layers.add([layers.MaxPooling2D(3, 2, padding="same")(x), before])
    for filters in (24, 16):
        before = layers.Conv2D(filters, 1, padding="same")(layers.UpSampling2D(2)(x))
        x = layers.Conv2DTranspose(filters, 3, padding="same")(layers.Activation("relu")(x))
        x = layers.add([layers.UpSampling2D(2)(x), before])
    return keras.Model(inputs, layers.Conv2D(3, 3, padding="same", activation="softmax")(x))


def soft_labels(folder):
    """Number 20: an endless `tf.data` of mixed images, smoothed labels, half precision."""
    import tensorflow as tf

    (x, y), (x_test, y_test) = mnist(folder, 2000, 1000)

    def mixed(x, y):
        share = tf.random.uniform((tf.shape(x)[0], 1), seed=1)
        other_x, other_y = tf.reverse(x, [0]), tf.reverse(y, [0])
        image_share = share[..., None, None]
        return image_share * x + (1 - image_share) * other_x, share * y + (1 - share) * other_y

    rows = tf.data.Dataset.from_tensor_slices((x, np.eye(10, dtype="float32")[y]))
    train = rows.shuffle(2000, seed=0).repeat().batch(64).map(mixed).prefetch(2)
    return Program(
        source="mixed_precision guide and mixup, MNIST, `steps_per_epoch`, label smoothing",
        make=half_precision_convnet,
        train=(train,),
        test=(x_test, np.eye(10, dtype="float32")[y_test]),
        num_data=2000,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        fit={"steps_per_epoch": 31},
        tolerance=0.01,
    )


def half_precision_convnet():
    policy = "mixed_bfloat16"
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(16, 3, strides=2, activation="relu", dtype=policy)(inputs)
    x = layers.Conv2D(32, 3, strides=2, activation="relu", dtype=policy)(x)
    x = layers.Dense(64, "relu", dtype=policy)(layers.Flatten()(x))
    x = layers.Dense(10, dtype=policy)(x)
    return keras.Model(inputs, layers.Activation("softmax", dtype="float32")(x))


@keras.saving.register_keras_serializable("programs")
class Quickstart(keras.Model):
    """Without a `build` and without `training`; `fit` builds it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(16, 3, strides=2, activation="relu")
        self.flatten = layers.Flatten()
        self.hidden, self.out = layers.Dense(64, "relu"), layers.Dense(10)

    def call(self, x):
        return self.out(self.hidden(self.flatten(self.conv(x))))


def subclassed(folder):
    train, test = mnist(folder, 1500, 1000)
    return Program(
        source="quickstart of TensorFlow, a subclassed model, MNIST",
        make=Quickstart,
        train=train,
        test=test,
        num_data=1500,
        loss=FROM_LOGITS,
    )


def convnet(folder):
    def one_hot(part):
        return part[0], np.eye(10, dtype="float32")[part[1]]

    train, test = (one_hot(part) for part in mnist(folder, 2500, 1000))
    return Program(
        source="mnist_convnet, `validation_split`, dropout",
        make=convnet_model,
        train=train,
        test=test,
        num_data=2250,
        loss="categorical_crossentropy",
        fit={"batch_size": 128, "validation_split": 0.1},
    )


def convnet_model():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
