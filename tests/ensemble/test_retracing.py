"""TensorFlow says nothing of retracing where an ensemble merely has several functions."""

import logging

import keras
import numpy as np
import pytest
from keras import layers

import keras_langevin as kl

pytestmark = [
    pytest.mark.backend,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow alone warns"),
]


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.words = []

    def emit(self, record):
        self.words.append(record.getMessage())


@pytest.fixture
def said():
    logger, records = logging.getLogger("tensorflow"), Records()
    logger.addHandler(records)
    yield records.words
    logger.removeHandler(records)
    assert not logger.filters


def ensemble():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    samples = [[np.full((3, 2), k), np.zeros(2)] for k in range(3)]
    return kl.BayesianEnsembleModel(model, samples, output="logits")


def test_several_ensembles_one_after_another(said):
    x, y = np.ones((7, 3), "float32"), np.zeros(7, "int32")
    for _ in range(4):
        one = ensemble()
        one.predict(x, verbose=0)
        one.predict_members(x, batch_size=4, verbose=0)
        one.evaluate(x, y, verbose=0)
    assert not [words for words in said if "retracing" in words]


def test_other_words_are_said(said):
    class Talking(layers.Layer):
        def call(self, x):
            logging.getLogger("tensorflow").warning("something else")
            return x

    model = keras.Sequential([keras.Input((3,)), Talking(), layers.Dense(2)])
    weights = [v.numpy() for v in model.trainable_variables]
    kl.BayesianEnsembleModel(model, [weights], output="logits").predict(
        np.ones((2, 3), "float32"), verbose=0
    )
    assert "something else" in said
