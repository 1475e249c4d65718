"""Warnings of `fit` where `num_data` is not the number of training examples, and none where it
is."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers

import keras_langevin as kl

pytestmark = pytest.mark.timeout(120)
ROWS, BATCH = 100, 10
WARNING = "`num_data` must be the number of training examples"
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


def labelled(rows=ROWS, targets=1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3)).astype("float32")
    return x, (rng.uniform(size=(rows, targets)) < 0.5).astype("float32")


def fit(num_data, *data, targets=1, verbose=0, **arguments):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(targets)])
    model.compile(kl.SGLD(1e-6, num_data=num_data), BINARY, jit_compile=JIT_IF_NEEDED)
    sampler = kl.PosteriorSampler(burn_in=0)
    model.fit(*data, callbacks=[sampler], verbose=verbose, **arguments)


class Batches(keras.utils.PyDataset):
    batch_size = BATCH

    def __init__(self, passes=1, last=BATCH):
        super().__init__()
        self.passes, self.last = passes, last

    def __len__(self):
        return self.passes * ROWS // BATCH

    def __getitem__(self, index):
        rows = self.last if index == len(self) - 1 else BATCH
        return labelled(rows)


def tensorflow_data(repeat=False):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(labelled())
    return (data.repeat() if repeat else data).batch(BATCH, drop_remainder=True)


@pytest.mark.parametrize(
    "num_data, arguments, words",
    [
        (10, {}, r"num_data=10 and .* 100 examples in as many batches. Pass num_data=100;"),
        (1000, {}, r"num_data=1000 and an epoch of 100 examples. Pass num_data=100"),
        (100, {"validation_split": 0.2}, r"Pass num_data=80 \(`validation_split` takes"),
        (50, {"class_weight": {0: 0.9, 1: 1.1}}, "Pass num_data=100"),
    ],
)
def test_arrays(num_data, arguments, words):
    with pytest.warns(UserWarning, match=f"{WARNING}.*{words}"):
        fit(num_data, *labelled(), batch_size=BATCH, **arguments)


def test_datasets():
    with pytest.warns(UserWarning, match="an epoch of 100 examples in as many batches"):
        fit(10, Batches())
    with pytest.warns(UserWarning, match="num_data=150 and an epoch of 100"):
        fit(150, Batches())
    with pytest.warns(UserWarning, match="num_data=60 and an epoch of 100"):
        fit(60, tensorflow_data(), shuffle=False)
    with pytest.warns(UserWarning, match="num_data=10 and the number of batches of an epoch"):
        fit(10, tensorflow_data(repeat=True), shuffle=False, steps_per_epoch=10)


def test_a_right_number_is_not_named():
    fit(ROWS, *labelled(), batch_size=7)  # the last batch is smaller
    fit(98, *labelled(), batch_size=7)
    fit(ROWS, *labelled(), batch_size=1)  # as many batches as examples
    fit(ROWS, *labelled(), batch_size=BATCH, steps_per_epoch=3)
    fit(80, *labelled(), validation_split=0.2)
    half = (np.arange(ROWS) % 2).astype("float32")
    fit(50, *labelled(), sample_weight=half)  # rows of weight 0
    fit(ROWS, *labelled(), sample_weight=half)
    fit(94, Batches(last=4))
    fit(ROWS, Batches(passes=3))
    fit(ROWS, kl.RandomBatches(*labelled(), batch_size=BATCH, batches_per_epoch=25))
    fit(ROWS, tensorflow_data(), shuffle=False)
    fit(ROWS, tensorflow_data(repeat=True), shuffle=False, steps_per_epoch=25)
    fit(5 * ROWS, *labelled(targets=5), targets=5)


def test_what_the_mean_over_targets_means_is_said_once(capsys):
    fit(ROWS, *labelled(targets=5), targets=5, verbose=2)
    printed = capsys.readouterr().out
    assert "the mean over the 5 targets of an example" in printed
    assert "multiply num_data by 5" in printed
    fit(ROWS, *labelled(targets=5), targets=5)
    fit(5 * ROWS, *labelled(targets=5), targets=5, verbose=2)
    fit(ROWS, *labelled(), verbose=2)
    assert "multiply" not in capsys.readouterr().out
