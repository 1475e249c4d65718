"""Layers without a product: what is measured of them is what a loop over examples finds."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers, ops
from targets.statistics_cases import (
    BACKEND,
    Descent,
    errors,
    fit_once,
    make_branches,
    make_data,
    measure,
    measured,
    randomize,
)
from targets.whole_layer_cases import CASES, PositionEmbedding, with_lora, with_mask

from keras_langevin import statistics
from keras_langevin.statistics import layer_call, whole_layer
from keras_langevin.statistics.reference import per_example_statistics
from keras_langevin.weights import is_statistic

QUICK = {"lstm", "gru_masked", "dense", "words", "positions", "prelu", "block"}


def rows():
    """The quick cases of each family, and its others, each as the branches of one model."""
    for family, (_, cases) in CASES.items():
        quick = [case for case in cases if case in QUICK and family != "lora"]
        for chosen, marks in ((quick, ()), ([c for c in cases if c not in quick], pytest.mark.law)):
            if chosen:
                yield pytest.param(family, chosen, marks=marks, id=f"{family}-{'-'.join(chosen)}")


def make_case(family, *chosen):
    shape, cases = CASES[family]
    model = make_branches(shape, {case: cases[case] for case in chosen})
    model.compile(loss="mse")
    x, y = make_data(model)
    if family == "lora_embedding":
        x = np.random.default_rng(2).integers(0, 6, x.shape)
    elif x.ndim == 3:
        x[1, -2:] = x[2, 0] = 0.0  # what a mask leaves out
    return model, x, y


def largest_error(model, x, y, **options):
    value = measure(model, x, y, steps=1, **options)
    return max(errors(value, per_example_statistics(model, x, y, spatial="exact")).values())


@pytest.mark.parametrize(("family", "chosen"), rows())
def test_measures_what_the_reference_finds(family, chosen):
    model, x, y = make_case(family, *chosen)
    expected = per_example_statistics(model, x, y, spatial="exact")
    found = errors(measure(model, x, y, "exact", steps=1), expected)
    assert {path: error for path, error in found.items() if not error < 1e-5} == {}


def test_one_example_after_another_measures_the_same(monkeypatch):
    monkeypatch.setattr(whole_layer, "MOST_NUMBERS", 0)
    assert largest_error(*make_case("recurrent", "lstm_masked"), spatial="exact") < 1e-5


def sequential(shape, *more):
    model = keras.Sequential([keras.Input(shape), *more])
    randomize(model)
    return model


def test_kernel_is_paired_with_its_bias():
    model = sequential((3, 2), layers.LSTM(2))
    kinds, cell = measure(model, *make_data(model), steps=1), model.layers[0].cell
    paired = {"second_moment", "bias_second_moment", "cross_moment"}
    assert kinds[cell.kernel.path].keys() == paired
    assert kinds[cell.recurrent_kernel.path].keys() == {"second_moment"}


def test_frozen_weights_of_a_whole_layer_are_not_measured():
    model = sequential((3, 2), layers.LSTM(2))
    cell = model.layers[0].cell
    cell.recurrent_kernel.trainable = cell.bias.trainable = False
    kinds = measure(model, *make_data(model), steps=1)
    assert {path: set(kinds[path]) for path in kinds} == {cell.kernel.path: {"second_moment"}}


class Gradients(Descent):
    """Keeps the gradients of its steps, in place of the weights."""

    def step(self, parameters, gradients, learning_rate):
        for variable, gradient in zip(parameters, gradients, strict=True):
            if not is_statistic(variable):
                yield variable, gradient


def test_spectral_normalization_measures_the_gradients_of_its_training():
    """It sets its kernel in the call, and backends differ in whether they differentiate that."""

    def make():
        inner = layers.Dense(3, activation="tanh")
        model = sequential((4,), layers.SpectralNormalization(inner))
        model.layers[0].vector_u.assign([[0.3, -0.2, 0.5]])
        return model, inner

    model, inner = make()
    x, y = make_data(model)
    value = measure(model, x, y, steps=1)[inner.kernel.path]
    kernels, biases = [], []
    for n in range(len(x)):
        model, inner = make()
        model.compile(Gradients(0.0), loss="mse", jit_compile=JIT_IF_NEEDED)
        fit_once(model, x[n : n + 1], y[n : n + 1])
        kernels.append(ops.convert_to_numpy(inner.kernel))
        biases.append(ops.convert_to_numpy(inner.bias))
    kernels, biases = np.array(kernels), np.array(biases)
    expected = {
        "second_moment": np.mean(kernels**2, axis=0),
        "bias_second_moment": np.mean(biases**2, axis=0),
        "cross_moment": np.mean(kernels * biases[:, None], axis=0),
    }
    assert max(errors({"kernel": value}, {"kernel": expected}).values()) < 1e-5


def test_dropout_is_left_out_of_the_measurement():
    model = sequential((3, 2), layers.LSTM(2, dropout=0.5, recurrent_dropout=0.5))
    kinds = measure(model, *make_data(model), steps=1)
    moment = kinds[model.layers[0].cell.kernel.path]["second_moment"]
    assert np.isfinite(moment).all()
    assert (moment > 0).all()


def test_a_stride_measures_some_of_the_examples():
    model = sequential((3, 2), layers.GRU(2))
    x, y = make_data(model, batch=6)
    optimizer = Descent(0.0)
    optimizer.statistics_stride = 2
    model.compile(optimizer, loss="mse", jit_compile=JIT_IF_NEEDED)
    statistics.track_statistics(model, optimizer)
    fit_once(model, x, y)
    expected = per_example_statistics(model, x[::2], y[::2], spatial="exact")
    assert max(errors(measured(model), expected).values()) < 1e-5


@pytest.mark.backend
@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA is how TensorFlow compiles")
def test_compiled_by_xla():
    model = sequential((3, 2), layers.LSTM(2), layers.Dense(2))
    x, y = make_data(model)
    optimizer = Descent(0.0)
    model.compile(optimizer, loss="mse", jit_compile=True)
    statistics.track_statistics(model, optimizer)
    fit_once(model, x, y)
    expected = per_example_statistics(model, x, y, spatial="exact")
    assert max(errors(measured(model), expected).values()) < 1e-5


# ------------------------------------------------------------- KerasHub's embeddings, by stand-ins


class TokenAndPositionEmbedding(layers.Layer):
    def __init__(self, vocabulary, length, dim, tie_weights=True):
        super().__init__()
        self.token_embedding = layers.ReversibleEmbedding(
            vocabulary, dim, tie_weights=tie_weights, mask_zero=True
        )
        self.position_embedding = PositionEmbedding(length)
        self.supports_masking = True

    def build(self, input_shape):
        self.token_embedding.build(input_shape)
        self.position_embedding.build((*input_shape, self.token_embedding.output_dim))

    def call(self, inputs):
        embedded = self.token_embedding(inputs)
        return embedded + self.position_embedding(embedded)


@pytest.mark.parametrize("spatial", ["independent", "exact"])
@pytest.mark.parametrize("soft_cap", [None, 1.5])
def test_embeddings_of_a_language_model(spatial, soft_cap):
    inputs = keras.Input((5,), dtype="int32")
    embedding = TokenAndPositionEmbedding(7, 6, 3, tie_weights=False)
    embedding.token_embedding.logit_soft_cap = soft_cap
    hidden = layers.LayerNormalization()(embedding(inputs))
    model = keras.Model(inputs, embedding.token_embedding(hidden, reverse=True))
    randomize(model)
    x = np.random.default_rng(0).integers(0, 7, (4, 5))
    y = np.random.default_rng(1).normal(size=(4, 5, 7)).astype("float32")
    value = measure(model, x, y, spatial)
    assert len(value) == 4
    assert max(errors(value, per_example_statistics(model, x, y, spatial=spatial)).values()) < 1e-5


def test_tied_table_adds_up_its_two_directions():
    inputs = keras.Input((5,), dtype="int32")
    table = layers.ReversibleEmbedding(7, 3)
    hidden = layers.Activation("tanh")(table(inputs))
    model = keras.Model(inputs, table(hidden, reverse=True))
    randomize(model)
    x = np.random.default_rng(0).integers(0, 7, (4, 5))
    y = np.random.default_rng(1).normal(size=(4, 5, 7)).astype("float32")
    assert max(errors(measure(model, x, y), per_example_statistics(model, x, y)).values()) < 1e-5


class ReversibleEmbedding(layers.Embedding):
    """As KerasHub's of before Keras had it."""

    tie_weights, logit_soft_cap = True, None

    def call(self, inputs, reverse=False):
        if reverse:
            return ops.matmul(inputs, ops.transpose(self.embeddings))
        return super().call(inputs)

    def compute_output_spec(self, inputs, reverse=False):
        shape = inputs.shape
        shape = (*shape[:-1], self.input_dim) if reverse else (*shape, self.output_dim)
        return keras.KerasTensor(shape, self.compute_dtype)


def test_reversible_embedding_is_known_by_its_name():
    inputs = keras.Input((5, 3))
    table = ReversibleEmbedding(7, 3)
    table.build((None, 5))
    model = keras.Model(inputs, table(inputs, reverse=True))
    randomize(model)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    y = np.random.default_rng(1).normal(size=(4, 5, 7)).astype("float32")
    assert max(errors(measure(model, x, y), per_example_statistics(model, x, y)).values()) < 1e-5


def test_mask_of_a_reversible_embedding_is_kept():
    inputs = keras.Input((5,), dtype="int32")
    hidden = layers.ReversibleEmbedding(7, 3, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.LSTM(2)(hidden))
    randomize(model)
    x = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0], [1, 1, 1, 1, 1], [2, 0, 3, 0, 0]])
    y = np.ones((4, 2), "float32")
    assert largest_error(model, x, y, spatial="exact") < 1e-5


# ---------------------------------------------------------------------- these tests can fail


@pytest.mark.neutral
def test_wrong_direction_of_time_is_noticed(monkeypatch):
    plain = layer_call.LayerCall.run

    def backwards(self, values, examples):
        self.layer.go_backwards = not self.layer.go_backwards
        try:
            return plain(self, values, examples)
        finally:
            self.layer.go_backwards = not self.layer.go_backwards

    model, x, y = make_case("recurrent", "gru")
    expected = per_example_statistics(model, x, y, spatial="exact")
    monkeypatch.setattr(layer_call.LayerCall, "run", backwards)
    assert max(errors(measure(model, x, y, "exact", steps=1), expected).values()) > 0.01


@pytest.mark.neutral
@pytest.mark.parametrize("hanging", [False, True])
def test_forgotten_mask_is_noticed(monkeypatch, hanging):
    plain = layer_call.LayerCall.__init__

    def without_mask(self, layer, call, args, kwargs, in_inference=False):
        if not hanging:
            kwargs = {**kwargs, "mask": None}
        plain(self, layer, call, args, kwargs, in_inference)
        self.examples, self.masked = self.examples[: len(self.places)], []

    family, case = ("wrapper", "own_masked") if hanging else ("recurrent", "lstm_masked")
    model, x, y = make_case(family, case)
    expected = per_example_statistics(model, x, y, spatial="exact")
    monkeypatch.setattr(layer_call.LayerCall, "__init__", without_mask)
    assert max(errors(measure(model, x, y, "exact", steps=1), expected).values()) > 0.01


@pytest.mark.neutral
def test_mean_over_the_batch_is_noticed(monkeypatch):
    plain = whole_layer.ExampleGradients.at_once

    def averaged(self):
        return [ops.mean(g, axis=0, keepdims=True) + 0 * g for g in plain(self)]

    model, x, y = make_case("wrapper", "dense")
    expected = per_example_statistics(model, x, y, spatial="exact")
    monkeypatch.setattr(whole_layer.ExampleGradients, "at_once", averaged)
    assert max(errors(measure(model, x, y, "exact", steps=1), expected).values()) > 0.1


def test_lora_beside_a_masked_layer():
    inputs = keras.Input((5, 4))
    hidden = with_lora(layers.Dense(3, activation="tanh"))(inputs)
    model = keras.Model(inputs, with_mask(layers.LSTM(2))(hidden))
    randomize(model)
    assert largest_error(model, *make_data(model), spatial="exact") < 1e-5
