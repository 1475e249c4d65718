"""A loss without a likelihood is named before the first step, once."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_langevin as kl

X = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


def pinball(y_true, y_pred):
    return ops.mean(ops.maximum(0.9 * (y_true - y_pred), 0.1 * (y_pred - y_true)), axis=-1)


def fitted(model, **arguments):
    sampler = kl.PosteriorSampler(burn_in=0)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[sampler], **arguments)
    return sampler


def compiled(loss, activation=None):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, activation)], name="mine")
    model.compile(kl.SGLD(0.001, num_data=8), loss)
    return model


@pytest.mark.parametrize(
    ("loss", "name"),
    [(pinball, "pinball"), (keras.losses.Hinge(), "Hinge"), ("cosine_similarity", "cosine_sim")],
)
def test_fit_names_the_loss_and_what_to_write(loss, name):
    model = compiled(loss)
    with pytest.warns(
        UserWarning, match=f"model 'mine'. Received: a model with loss={name}"
    ) as found:
        sampler = fitted(model)
    (message,) = [str(one.message) for one in found if one.category is UserWarning]
    for words in ('sampler.ensemble(output="values")', "`output=`", "register_family"):
        assert words in message
    fitted(model)  # a warning is an error here: once for each model
    assert sampler.ensemble(output="values").predict(X, verbose=0).shape == (8, 1)
    model.compile(kl.SGLD(0.001, num_data=8), "squared_hinge")
    with pytest.warns(UserWarning, match="loss=squared_hinge"):
        fitted(model)


def test_a_model_without_a_loss_is_named_too():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.dense = layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y - y_pred))

    model = Own()
    model(X)
    model.compile(kl.SGLD(0.001, num_data=8))
    with pytest.warns(UserWarning, match="Received: a model that is not compiled with a loss"):
        fitted(model)


def test_a_contradiction_is_said_before_the_first_step():
    model = compiled("binary_crossentropy")
    words = "as it is compiled: the loss binary_crossentropy says .* activation is linear"
    with pytest.warns(UserWarning, match=words):
        fitted(model)


@pytest.mark.parametrize(
    "loss", ["mse", "mae", "huber", "log_cosh", "msle", "poisson", kl.losses.GaussianNLL(0.1)]
)
def test_nothing_is_said_of_what_is_known(loss):
    fitted(compiled(loss, "softplus"))  # a warning is an error
