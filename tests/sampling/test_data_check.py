"""Warnings in `fit` about data that the likelihood does not mean, before the first step."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_langevin as kl

pytestmark = pytest.mark.timeout(120)
ROWS = 40


def fit(y, loss="mse", outputs=1, scale=1.0, optimizer=None, **arguments):
    x = np.random.default_rng(0).normal(size=(len(y), 3)).astype("float32")
    offset = 454.0 if scale != 1.0 else 0.0
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(outputs), layers.Rescaling(scale, offset)]
    )
    model.compile(optimizer or kl.SGLD(1e-6, num_data=ROWS), loss)
    model.fit(x, y, callbacks=[kl.PosteriorSampler(burn_in=0)], verbose=0, **arguments)


def targets(mean, stddev, columns=1):
    return np.random.default_rng(1).normal(mean, stddev, (ROWS, columns)).astype("float32")


def test_targets_in_their_own_units():
    with pytest.warns(
        UserWarning, match=r"noise of standard deviation 0.71.*mean 45\d.* deviation 1"
    ):
        fit(targets(454, 17))
    with pytest.warns(UserWarning, match=r"standard deviation 2,.*GaussianNLL"):
        fit(targets(454, 17), kl.losses.GaussianNLL(stddev=2.0))
    with pytest.warns(UserWarning, match=r"Standardise y"):
        fit(targets(454, 17)[:, 0], optimizer=kl.SGLD(num_data=ROWS))


@pytest.mark.parametrize("weights", [{"class_weight": {0: 0.05, 1: 0.05}}, {"sample_weight": 30.0}])
def test_weights_that_are_not_one_on_average(weights):
    y = (targets(0, 1) > 0).astype("float32")
    if "sample_weight" in weights:
        weights = {"sample_weight": np.full(ROWS, weights["sample_weight"], "float32")}
    with pytest.warns(UserWarning, match="multiply the likelihoods.*Divide them by their mean"):
        fit(y, keras.losses.BinaryCrossentropy(from_logits=True), **weights)


def test_no_false_alarm():
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    y = (targets(0, 1) > 0).astype("float32")
    dropped = np.where(np.arange(ROWS) < 30, 0.0, 1.0).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(targets(0, 1))
        fit(targets(3, 5))
        fit(targets(454, 5), scale=5.0)  # a model with outputs on that scale
        fit(targets(454, 17), kl.losses.GaussianNLL(stddev=30.0))
        fit(targets(454, 17), optimizer=keras.optimizers.SGD(1e-9))  # samples nothing
        fit(y, binary, class_weight={0: 0.7, 1: 1.3})
        fit(y, binary, sample_weight=dropped)
        fit(100 * y, "mae")  # no likelihood of a known noise
