"""What a block says of itself, and what it refuses."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_langevin as kl
from keras_langevin.statistics import Block, find_rule
from keras_langevin.statistics.block import KINDS, SETS
from keras_langevin.statistics.registry import _RULES, blocks_of


def variable(*shape):
    return keras.Variable(np.ones(shape, "float32"))


def other(features, kernel):
    return ops.matmul(features, kernel)


def shapes(block):
    return block.bias_shape, block.bias_axes, block.shift_shape


def test_all_shapes_of_a_matrix_product_are_derived():
    block = Block(variable(3, 5), ops.matmul, variable(5))
    assert shapes(block) == ((1, 5), (-1,), (3, 1))
    features, cotangent = np.random.default_rng(0).normal(size=(2, 7, 4, 5)).astype("float32")
    found = block.adjoint(features[..., :3], cotangent)
    expected = np.einsum("bpi,bpo->io", features[..., :3], cotangent)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-4, atol=1e-4)
    assert shapes(Block(variable(3, 5), ops.matmul)) == ((1, 5), None, (3, 1))
    assert shapes(Block(variable(1, 1), ops.matmul)) == ((1, 1), None, (1, 1))


def test_what_shapes_do_not_tell_is_not_derived():
    """An `op` may mask the kernel, look rows up or see groups alone, whatever its shapes."""
    for op in (other, functools.partial(ops.matmul)):
        block = Block(variable(3, 5), op, variable(5))
        assert shapes(block) == ((1, 5), (-1,), None)
        assert block.adjoint is None
    assert shapes(Block(variable(2, 3, 5), ops.matmul, variable(5))) == ((1, 1, 5), (-1,), None)
    assert shapes(Block(variable(2, 3), other, variable(2, 3))) == ((2, 3), (-2, -1), None)
    assert shapes(Block(variable(4, 3), other)) == (None, None, None)


def test_units_without_a_bias_are_what_the_shift_leaves():
    block = Block(variable(3, 3, 4, 6), other, shift_shape=(1, 1, 4, 1))
    assert block.bias_shape == (3, 3, 1, 6)
    assert Block(variable(4, 6), other, shift_shape=(4, 1)).bias_shape == (1, 6)


def test_what_is_given_is_kept():
    given = {"bias_shape": (5, 1), "bias_axes": (-2,), "shift_shape": (1, 3)}
    block = Block(variable(5, 3), ops.matmul, variable(5), **given, adjoint=other)
    assert shapes(block) == tuple(given.values())
    assert block.adjoint is other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"kernel": variable(5, 3), "bias": variable(5)},
            r"`bias_shape` cannot be derived.*a kernel of shape \(5, 3\) and a bias of shape "
            r"\(5,\). Pass the shape under which the bias broadcasts",
        ),
        ({"bias": variable(1, 3, 5)}, "`bias_shape` cannot be derived"),
        ({"bias": variable(5), "bias_shape": (5,)}, r"`bias_shape` must have one number for each"),
        (
            {"bias": variable(5), "bias_shape": (5, 1)},
            r"Received: bias_shape=\(5, 1\) for a kernel",
        ),
        ({"bias": variable(5), "bias_shape": (3, 1)}, "`bias_shape` must hold as many numbers"),
        ({"shift_shape": (3,)}, r"`shift_shape` must have one number.*shift_shape=\(3,\)"),
        ({"shift_shape": (4, 1)}, r"`shift_shape` must have one number"),
        ({"shift_shape": [3, 1]}, r"`shift_shape` must be a tuple of integers, or None"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Block(**{"kernel": variable(3, 5), "op": other, **arguments})


def test_rules_of_keras_layers_agree_with_what_is_derived():
    """Where a rule states a shape and the derivation gives one, both are the same."""
    x = keras.Input((8, 8, 4))
    for layer in (
        layers.Dense(3),
        layers.Conv2D(3, 3),
        layers.EinsumDense("abcd,de->abce", (None, None, 3), bias_axes="e"),
        layers.LayerNormalization(),
    ):
        layer(x)
        (block,) = find_rule(layer).blocks(layer)
        derived = Block(block.kernel, block.op, block.bias)
        assert derived.bias_shape == block.bias_shape
        assert [a % 4 for a in derived.bias_axes] == [a % 4 for a in block.bias_axes]


def test_sets_are_made_of_kinds():
    assert set(SETS) == {"diagonal", "quasi_diagonal", "inputs", "loss"}
    assert all(set(kinds) <= set(KINDS) for kinds in SETS.values())


# ---------------------------------------------------------------------------------- rules


class Own(layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel)


@pytest.fixture
def own_rule():
    """Registers a rule for `Own`, for one test."""
    yield lambda rule: kl.statistics.register_rule(Own, replace=True)(rule)
    _RULES.pop(Own, None)


def tracked():
    model = keras.Sequential([keras.Input((3,)), Own()])
    model.compile(kl.DOPLangevin(0.1, num_data=8), "mse")
    return kl.track_statistics(model, model.optimizer)


def test_a_rule_without_blocks(own_rule):
    own_rule(type("Nothing", (kl.statistics.LayerRule,), {}))
    with pytest.raises(NotImplementedError, match=r"`Nothing` must implement `blocks\(layer\)`"):
        tracked()


def test_a_rule_that_returns_one_block_and_no_list(own_rule):
    class One(kl.statistics.LayerRule):
        def blocks(self, layer):
            return Block(layer.kernel, ops.matmul)

    own_rule(One)
    with pytest.raises(ValueError, match=r"`One.blocks` must return a list of .*Received: Block"):
        tracked()


def test_a_rule_whose_pairs_are_not_one_a_block(own_rule):
    class Two(kl.statistics.LayerRule):
        def blocks(self, layer):
            return [Block(layer.kernel, ops.matmul)]

        def features(self, layer, inputs, deltas):
            return [(inputs, deltas), (inputs, deltas)]

    own_rule(Two)
    model = tracked()
    with pytest.raises(ValueError, match=r"`Two.features` must return a pair.*2 pairs for 1 block"):
        model.fit(np.ones((8, 3)), np.ones((8, 2)), verbose=0)


def test_blocks_of_a_rule():
    layer = layers.Dense(2)
    layer.build((None, 3))
    (block,) = blocks_of(find_rule(layer), layer)
    assert block.kernel is layer.kernel and block.bias is layer.bias


@pytest.mark.parametrize("wanted", [None, "diagonal"])
def test_an_optimizer_of_keras_may_ask_for_statistics(wanted):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.statistics = wanted
    kl.track_statistics(model, optimizer)
    assert kl.statistics.is_tracked(model) == (wanted is not None)
