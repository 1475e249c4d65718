"""Layers that no statistic measures are named with the reason, and do not set the step."""

import re

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers, ops
from targets.statistics_cases import BACKEND, Descent, fit_once, randomize
from targets.whole_layer_cases import OwnBias

import keras_langevin as kl
from keras_langevin import statistics
from keras_langevin.preconditioners import outer_product
from keras_langevin.weights import is_statistic


class Noisy(layers.Layer):
    """Draws random numbers in every call."""

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.seed_generator = keras.random.SeedGenerator(0)

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(input_shape[-1],), name="factor", initializer="ones")

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        noise = keras.random.normal(ops.shape(inputs), seed=self.seed_generator)
        return self.scale * inputs * self.factor + 0.01 * noise


class Centred(OwnBias):
    """Takes the mean over the examples of a batch."""

    def call(self, inputs):
        return super().call(inputs - ops.mean(inputs, axis=0, keepdims=True))


class Sneaky(OwnBias):
    """Reads its weights behind Keras' back."""

    def call(self, inputs):
        return inputs + 0.0 * self.factor


class Whole(OwnBias):
    """Its output has no row for every example."""

    def call(self, inputs):
        return ops.tile(ops.sum(super().call(inputs), axis=0, keepdims=True), (2, 1, 1))


def stateful():
    return layers.LSTM(4, stateful=True, return_sequences=True)


def sequential(*more, batch_size=None):
    model = keras.Sequential(
        [keras.Input((5, 4), batch_size=batch_size), *more, layers.Dense(2, name="head")]
    )
    randomize(model)
    return model


def tracked(model, wanted="diagonal"):
    optimizer = Descent(0.1)
    optimizer.statistics = wanted
    statistics.track_statistics(model, optimizer)
    blocks = [v.statistic.block for v in filter(is_statistic, model.trainable_variables)]
    return {block.kernel.path for block in blocks if block is not None}


@pytest.mark.parametrize(
    ("make", "batch_size", "reason"),
    [
        (stateful, 3, r"stateful=True"),
        (lambda: layers.Bidirectional(stateful()), 3, r"stateful=True"),
        (Noisy, None, r"draws random numbers"),
        (lambda: layers.TimeDistributed(Noisy()), None, r"draws random numbers"),
        (Centred, None, r"depends on the others of the batch"),
        (Sneaky, None, r"does not follow the weights"),
        (Whole, None, r"no row for every example"),
    ],
)
def test_layers_that_cannot_be_measured_are_named_with_the_reason(make, batch_size, reason):
    layer = make()
    model = sequential(layer, batch_size=batch_size)
    with pytest.warns(UserWarning, match=rf"(?s)of the layers.*{reason}.*minibatches") as caught:
        paths = tracked(model)
    assert paths == {model.get_layer("head").kernel.path}
    assert len([w for w in caught if w.category is UserWarning]) == 1
    assert model.get_layer("head").kernel.path not in str(caught[-1].message)


@pytest.mark.parametrize("layer, words", [(stateful, r"9\d% of the weights"), (Noisy, None)])
def test_a_metric_of_the_lesser_part_says_so_once(layer, words):
    with pytest.warns(UserWarning) as caught:
        tracked(sequential(layer(), batch_size=3))
    (said,) = [str(w.message) for w in caught]
    assert bool(re.search("of the weights", said)) == (words is not None)
    assert words is None or re.search(words, said)


def test_a_layer_called_inside_and_outside_of_a_wrapper_is_not_measured_by_halves():
    inner = layers.Dense(4)
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, inner(layers.TimeDistributed(inner)(inputs)))
    with pytest.warns(UserWarning, match="also called from outside"):
        assert tracked(model) == set()


def test_measured_layers_are_not_named():
    inner = layers.Bidirectional(layers.GRU(2, return_sequences=True))
    assert len(tracked(sequential(inner, OwnBias(), layers.PReLU()))) > 1


@pytest.mark.filterwarnings("ignore:No rule measures")
@pytest.mark.parametrize("steps", [1, pytest.param(2, marks=pytest.mark.backend)])
def test_batch_size_is_measured_over_micro_batches(steps):
    model = sequential(Noisy())
    options = {} if steps == 1 else {"gradient_accumulation_steps": steps}
    optimizer = Descent(0.0, **options)
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    statistics.track_statistics(model, optimizer)
    x, y = np.ones((6, 5, 4), "float32"), np.ones((6, 5, 2), "float32")
    model.fit(x, y, batch_size=6 // steps, shuffle=False, verbose=0)
    (size,) = [v for v in model.trainable_variables if v.name == "batch_size"]
    assert float(ops.convert_to_numpy(size)) == 6.0


@pytest.mark.filterwarnings("ignore:No rule measures")
@pytest.mark.parametrize("sampler", [kl.DOPLangevin, kl.QDOPLangevin])
def test_metric_of_what_is_left_out_has_the_size_of_the_others(sampler):
    """With examples that are all alike B ḡ² is B times an example's g²."""
    model = sequential(Noisy())
    optimizer = sampler(1e-9, num_data=6, seed=1, temperature=0.0)
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    statistics.track_statistics(model, optimizer)
    x, y = np.ones((6, 5, 4), "float32"), np.ones((6, 5, 2), "float32")
    fit_once(model, x, y)
    layout = optimizer.preconditioner.layout
    (position,) = [i for i, name in enumerate(layout.names) if name.endswith("factor")]
    block = [b.kernel for b in layout.blocks].index(position)
    metric = optimizer.preconditioner.current()
    found = metric[position] if sampler is kl.DOPLangevin else metric[block][0]
    found = ops.convert_to_numpy(found)

    kernel = ops.convert_to_numpy(model.get_layer("head").kernel)
    bias = ops.convert_to_numpy(model.get_layer("head").bias)
    factor = ops.convert_to_numpy(model.layers[0].factor)
    delta = 2.0 * (factor @ kernel + bias - 1.0) / 2.0  # of the mean over two outputs
    squares = (delta @ kernel.T) ** 2  # summed over five positions that are alike, over five
    expected = 6 * 0.5 * (squares + squares.mean()) + optimizer.preconditioner.added(position)
    np.testing.assert_allclose(found, expected, rtol=0.1)  # the layer's noise


@pytest.mark.filterwarnings("ignore:No rule measures")
@pytest.mark.parametrize("has_metric", [True, False])
def test_what_is_left_out_does_not_set_the_step_of_all_others(monkeypatch, has_metric):
    """A loss that is steep in an unmeasured weight diverges at this rate with scale 1."""
    if not has_metric:
        monkeypatch.setattr(outer_product, "with_all_parameters", lambda layout: layout)
        monkeypatch.setattr(outer_product, "minibatch_moments", lambda *args: [])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 5, 4)).astype("float32")
    y = rng.normal(size=(64, 5, 2)).astype("float32")
    model = sequential(Noisy(scale=30.0))
    optimizer = kl.QDOPLangevin(0.02, num_data=64, seed=1)
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    statistics.track_statistics(model, optimizer)
    losses = model.fit(x, y, batch_size=16, epochs=8, verbose=0).history["loss"]
    assert (losses[-1] < losses[0]) == has_metric
    assert (losses[-1] > 1e3 * losses[0]) != has_metric


@pytest.mark.skipif(BACKEND != "jax", reason="what Keras compiles is what counts")
@pytest.mark.filterwarnings("ignore:No rule measures")
def test_what_measures_the_batch_size_is_removed():
    model = sequential(Noisy())
    model.compile("sgd", "mse")
    tracked(model)
    statistics.untrack_statistics(model)
    assert "compute_loss" not in model.__dict__
    assert not any(map(is_statistic, model.trainable_variables))
