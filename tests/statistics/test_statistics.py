"""What the probes measure inside `fit` is what a slow loop over examples finds."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops
from targets.statistics_cases import (
    BACKEND,
    CASES,
    Descent,
    errors,
    family_errors,
    fit_once,
    make_data,
    measure,
    measured,
    randomize,
    runs_here,
)

from keras_langevin import statistics
from keras_langevin.statistics import convolution, probe, registry
from keras_langevin.statistics.block import Block
from keras_langevin.statistics.reference import per_example_statistics

FAST = [("each_rule", "independent"), ("dense", "independent"), ("dense", "exact")]
FAMILIES = [
    # That of all rules is also the one that TensorFlow runs in `make test`.
    pytest.param(
        *case,
        marks=[pytest.mark.backend] * (case == FAST[0]) if case in FAST else pytest.mark.law,
    )
    for case in itertools.product(CASES, ["independent", "exact"])
]


def sequential(shape, *more):
    model = keras.Sequential([keras.Input(shape), *more])
    randomize(model)
    return model


@pytest.mark.parametrize(("family", "spatial"), FAMILIES)
def test_measures_what_the_reference_finds(family, spatial, capfd):
    if not runs_here(family):
        pytest.skip("TensorFlow has no channels_first convolution on the CPU")
    if family == "separable" and spatial == "independent":
        pytest.skip("see test_separable_convolution_is_two_layers")
    for path, error in family_errors(family, spatial).items():
        assert error < 1e-5, path
    assert "WARNING:tensorflow" not in capfd.readouterr().err  # vectorized without a loop


def test_diagonal_has_no_cross_moments():
    model = sequential((4,), layers.Dense(3, activation="relu"), layers.Dense(2))
    x, y = make_data(model)
    value = measure(model, x, y, wanted="diagonal")
    expected = per_example_statistics(model, x, y)
    for path, kinds in value.items():
        assert kinds.keys() == {"second_moment", "bias_second_moment"}
        expected[path].pop("cross_moment")
    assert max(errors(value, expected).values()) < 1e-5


def test_sample_weights_scale_the_gradients():
    model = sequential((4,), layers.Dense(3, activation="tanh"), layers.Dense(2))
    x, y = make_data(model)
    weights = np.array([0.0, 1.0, 2.0, 0.5], "float32")
    value = measure(model, x, y, sample_weight=weights)
    expected = per_example_statistics(model, x, y, sample_weight=weights)
    assert max(errors(value, expected).values()) < 1e-5


@pytest.mark.law
def test_separable_convolution_is_two_layers():
    """The reference cannot look inside the layer, so it looks at the two layers it is."""
    options = {"strides": 2, "padding": "same", "depth_multiplier": 2}
    one = sequential(
        (5, 4, 2), layers.SeparableConv2D(3, 3, activation="tanh", **options), layers.Flatten()
    )
    two = sequential(
        (5, 4, 2),
        layers.DepthwiseConv2D(3, use_bias=False, **options),
        layers.Conv2D(3, 1, activation="tanh"),
        layers.Flatten(),
    )
    two.set_weights(one.get_weights())
    two.compile(loss="mse")
    x, y = make_data(one)
    expected = per_example_statistics(two, x, y)
    value = dict(zip(expected, measure(one, x, y).values(), strict=True))
    result = errors(value, expected)
    assert max(result.values()) < 1e-5


def test_shared_layer_adds_up_its_calls():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, activation="tanh")
    model = keras.Model(inputs, shared(shared(inputs)))
    randomize(model)
    x, y = make_data(model)
    value = measure(model, x, y)
    assert max(errors(value, per_example_statistics(model, x, y)).values()) < 1e-5


def test_activation_that_is_a_layer():
    model = sequential((4,), layers.Dense(3, activation=layers.LeakyReLU(0.1)), layers.Dense(2))
    x, y = make_data(model)
    value = measure(model, x, y)
    assert max(errors(value, per_example_statistics(model, x, y)).values()) < 1e-5


def test_frozen_weights_are_not_measured():
    model = sequential(
        (5, 2),
        layers.SeparableConv1D(3, 2, name="separable"),
        layers.Flatten(),
        layers.Dense(3, name="frozen"),
        layers.Dense(2, name="half_frozen"),
    )
    separable, frozen, half = (model.get_layer(n) for n in ("separable", "frozen", "half_frozen"))
    separable.depthwise_kernel.trainable = False
    frozen.trainable = False
    half.bias.trainable = False
    x, y = make_data(model)
    value = measure(model, x, y, "exact")
    assert {separable.pointwise_kernel.path, half.kernel.path} == value.keys()
    assert value[half.kernel.path].keys() == {"second_moment"}
    half.bias.trainable = separable.depthwise_kernel.trainable = True
    expected = per_example_statistics(model, x, y, spatial="exact")
    expected = {path: {k: expected[path][k] for k in value[path]} for path in value}
    assert max(errors(value, expected).values()) < 1e-5


def test_spatial_size_may_be_unknown():
    model = sequential(
        (None, None, 2),
        layers.Conv2D(3, 3, strides=2, padding="same", activation="tanh"),
        layers.DepthwiseConv2D(2),
        layers.GlobalAveragePooling2D(),
    )
    x = np.random.default_rng(0).normal(size=(4, 6, 5, 2)).astype("float32")
    y = np.ones((4, 3), "float32")
    for spatial in ("independent", "exact"):
        optimizer = Descent(0.0)
        model.compile(optimizer, loss="mse", jit_compile=False if BACKEND != "jax" else "auto")
        statistics.track_statistics(model, optimizer, spatial=spatial)
        fit_once(model, x, y)
        expected = per_example_statistics(model, x, y, spatial=spatial)
        assert max(errors(measured(model), expected).values()) < 1e-5


# ------------------------------------------------------------- these tests can fail


@pytest.mark.neutral
def test_forgotten_batch_factor_is_noticed(monkeypatch):
    monkeypatch.setattr(probe, "num_loss_shares", lambda: 1 / 4)  # as if B were 1
    result = family_errors("dense", "independent")
    assert min(result.values()) > 0.5


@pytest.mark.neutral
@pytest.mark.parametrize("spatial", ["independent", "exact"])
def test_wrong_padding_is_noticed(monkeypatch, spatial):
    plain = convolution._padding
    monkeypatch.setattr(convolution, "_padding", lambda *args: plain(*args)[::-1])
    model = sequential((4, 2), layers.Conv1D(3, 2, padding="same"), layers.Flatten())
    model.compile(loss="mse")
    x, y = make_data(model)
    expected = per_example_statistics(model, x, y, spatial=spatial)
    assert max(errors(measure(model, x, y, spatial), expected).values()) > 0.01


@pytest.mark.neutral
def test_exact_and_independent_differ():
    model = sequential((4, 2), layers.Conv1D(3, 2, padding="same"), layers.Flatten())
    model.compile(loss="mse")
    x, y = make_data(model)
    expected = per_example_statistics(model, x, y, spatial="exact")
    assert max(errors(measure(model, x, y, "independent"), expected).values()) > 0.1


# ------------------------------------------------------------------ refused layers


def test_batch_normalization_in_training_mode_is_refused():
    model = sequential((4,), layers.Dense(3), layers.BatchNormalization(name="norm"))
    x, y = make_data(model)
    with pytest.raises(ValueError, match=r"(?s)'norm'.*depends on all others.*LayerNorm"):
        measure(model, x, y)


def test_batch_normalization_without_weights_is_refused():
    norm = layers.BatchNormalization(center=False, scale=False, name="norm")
    model = sequential((4,), layers.Dense(3), norm)
    x, y = make_data(model)
    with pytest.raises(ValueError, match=r"(?s)'norm'.*depends on all others"):
        measure(model, x, y)


def test_batch_normalization_that_is_frozen_is_no_obstacle():
    model = sequential((4,), layers.Dense(3), layers.BatchNormalization(trainable=False))
    x, y = make_data(model)
    value = measure(model, x, y)
    assert max(errors(value, per_example_statistics(model, x, y)).values()) < 1e-5


def test_examples_that_are_not_first_have_no_rule():
    layer = layers.EinsumDense("ab,ac->ac", 3, name="odd")
    model = keras.Sequential([keras.Input((4,), batch_size=5), layer])
    optimizer = Descent(0.1)
    optimizer.statistics = "diagonal"
    with pytest.warns(UserWarning, match="EinsumDense 'odd'"):
        statistics.track_statistics(model, optimizer)


# -------------------------------------------------------------------- the registry


@pytest.fixture
def own_rules(monkeypatch):
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))


class OwnDense(layers.Dense):
    pass


class Scale(layers.Layer):
    def build(self, input_shape):
        self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.factor


class ScaleRule(statistics.LayerRule):
    def blocks(self, layer):
        return [Block(layer.factor, op=ops.multiply)]


def test_subclass_uses_the_rule_of_its_parent():
    layer = OwnDense(3)
    assert statistics.find_rule(layer) is statistics.find_rule(layers.Dense(3))
    assert statistics.find_rule(layers.Dropout(0.1)) is None


def test_own_rule_measures_own_layer(own_rules):
    statistics.register_rule(Scale)(ScaleRule)
    model = sequential((4,), Scale(), layers.Dense(2))
    x, y = make_data(model)
    value = measure(model, x, y)
    assert max(errors(value, per_example_statistics(model, x, y)).values()) < 1e-5


def test_registering_twice_is_an_error_unless_asked_for(own_rules):
    with pytest.raises(ValueError, match=r"Dense is registered already: DenseRule.*ScaleRule"):
        statistics.register_rule(layers.Dense)(ScaleRule)
    statistics.register_rule(layers.Dense, replace=True)(ScaleRule)
    assert isinstance(statistics.find_rule(OwnDense(3)), ScaleRule)


def test_reference_refuses_regularizers():
    model = sequential((4,), layers.Dense(2, kernel_regularizer="l2"))
    model.compile(loss="mse")
    x, y = make_data(model)
    with pytest.raises(ValueError, match="without regularizers"):
        per_example_statistics(model, x, y)
