"""Arithmetic that may use up its first argument gives what the plain formulas give."""

import keras
import numpy as np
import pytest
from keras import ops
from targets.rows import every_row

from keras_langevin.arithmetic import at_least, mixed, multiply_add, scaled, with_product

IS_TORCH = keras.backend.backend() == "torch"
SHAPES = [((3, 4), (3, 4)), ((3, 4), (1, 4)), ((3, 4), (4,)), ((3, 4), ()), ((1, 4), (3, 4))]


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def tensors(*values):
    # A copy: torch would share the array's memory, and what is used up here is compared below.
    return [ops.convert_to_tensor(np.array(value)) for value in values]


def equal(found, expected):
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-6, atol=1e-6)


@every_row("number", [-1, 0.3])
@every_row("shapes", SHAPES)
def test_against_numpy(shapes, number):
    (y, x), a = arrays(*shapes), np.float32(0.7)
    for factor in (number, a, x):  # a number, a scalar, an array
        given = factor if factor is number else tensors(factor)[0]
        equal(multiply_add(given, *tensors(x, y)), factor * x + y)
        equal(with_product(*tensors(y), given, *tensors(x)), y + factor * x)
        equal(scaled(*tensors(y), given), factor * y)
    equal(with_product(*tensors(y), 1, 0.25), y + 0.25)
    equal(at_least(*tensors(y), 0.1), np.maximum(y, 0.1))


@every_row("share", [0.0, 0.01, 0.6, 1.0])
def test_mixed(share):
    old, new = arrays((3, 4), (3, 4))
    found = mixed(*tensors(old, new, np.float32(share)))
    equal(found, (1 - np.float32(share)) * old + np.float32(share) * new)
    assert share < 1 or (ops.convert_to_numpy(found) == new).all()


def test_nothing_but_the_first_argument_is_used_up():
    y, x = tensors(*arrays((3, 4), (3, 4)))
    before = ops.convert_to_numpy(x).copy()
    with_product(y, x, x)
    scaled(y, x)
    at_least(y, 0.0)
    np.testing.assert_array_equal(ops.convert_to_numpy(x), before)


@pytest.mark.skipif(not IS_TORCH, reason="the others plan memory themselves")
def test_on_torch_no_array_is_made():
    y, x, row = tensors(*arrays((3, 4), (3, 4), (4,)))
    for found in (scaled(y, 2.0), with_product(y, row, x), with_product(y, -1, x), at_least(y, 0)):
        assert found is y
    wider = with_product(row, 1, x)
    assert wider is not row
    assert tuple(wider.shape) == (3, 4)
