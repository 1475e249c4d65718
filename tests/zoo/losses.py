"""Losses: those with a likelihood, and those without."""

import keras
from keras import layers, ops
from zoo.row import floats, one_hot, positive, whole, zoo

import keras_langevin as kl


def stack(units=1, activation=None):
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(units, activation)]
    )


@zoo(x=floats(4), y=floats(), loss=kl.losses.GaussianNLL())
def predicted_noise():
    return stack(2)


@zoo(x=floats(4), y=floats(), loss=kl.losses.GaussianNLL(0.3))
def known_noise():
    return stack()


@zoo(x=floats(4), y=floats(2), loss="mae")
def absolute_error():
    return stack(2)


@zoo(x=floats(4), y=floats(2), loss=keras.losses.Huber(0.5))
def huber():
    return stack(2)


@zoo(x=floats(4), y=floats(), loss="log_cosh")
def log_cosh():
    return stack()


@zoo(x=floats(4), y=positive(), loss="msle")
def logarithmic_error():
    return stack(1, "softplus")


@zoo(x=floats(4), y=whole(6, dtype="float32"), loss="poisson", everywhere="one member")
def counts():
    return stack(1, "exponential")


@keras.saving.register_keras_serializable("zoo")
def pinball(y_true, y_pred):
    error = y_true - y_pred
    return ops.mean(ops.maximum(0.9 * error, -0.1 * error), axis=-1)


WITHOUT = "likelihood|meaning|values"


@zoo(x=floats(4), y=floats(1), loss=pinball, output="values", warned=WITHOUT, everywhere=True)
def quantile():
    return stack()


@zoo(x=floats(4), y=floats(3), loss="cosine_similarity", output="values", warned=WITHOUT)
def cosine():
    return stack(3)


@zoo(x=floats(4), y=one_hot(3), loss="categorical_hinge", output="values", warned=WITHOUT)
def hinge():
    return stack(3)


@zoo(
    x=floats(4),
    y=one_hot(3),
    loss="categorical_focal_crossentropy",
    output="values",
    warned=WITHOUT,
)
def focal():
    return stack(3, "softmax")


@zoo(x=floats(4), y=positive(1), loss="mape", output="values", warned=WITHOUT)
def relative_error():
    return stack(1, "softplus")


@keras.saving.register_keras_serializable("zoo")
def weighted(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred) * (1 + ops.abs(y_true)), axis=-1)


@zoo(x=floats(4), y=floats(1), loss=weighted, output="values", warned=WITHOUT)
def loss_of_ones_own():
    return stack()
