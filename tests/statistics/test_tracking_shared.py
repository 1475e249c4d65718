"""Models that share layers, tracked and trained in turns: each is measured by probes of its own."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers, ops
from targets.statistics_cases import Descent, measured

import keras_langevin as kl
from keras_langevin.statistics.reference import per_example_statistics
from keras_langevin.weights import is_statistic, own_statistics, parameters

N = 16


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 1.0, (N, 3)).astype("float32")
    return x, rng.normal(size=(N, 2)).astype("float32")


def compiled(model, optimizer=None):
    optimizer = Descent(0.0) if optimizer is None else optimizer
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    return model


def one_layer():
    """An autoencoder and a regressor on one encoding layer."""
    inputs = keras.Input((3,))
    hidden = layers.Dense(4, "tanh", name="encoder")(inputs)
    return (
        keras.Model(inputs, layers.Dense(3, name="decoder")(hidden)),
        keras.Model(inputs, layers.Dense(2, name="regressor")(hidden)),
    )


def one_model():
    """The same on an encoder that is a model by itself."""
    inputs = keras.Input((3,))
    encoder = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh")], name="encoder")
    return (
        keras.Model(inputs, layers.Dense(3, name="decoder")(encoder(inputs))),
        keras.Model(inputs, layers.Dense(2, name="regressor")(encoder(inputs))),
    )


def inner_and_outer():
    """A model, and another that begins with it."""
    inputs = keras.Input((3,))
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(3)], name="inner"
    )
    return inner, keras.Model(inputs, layers.Dense(2, name="regressor")(inner(inputs)))


PAIRS = {"layer": one_layer, "model": one_model, "nested": inner_and_outer}


def assert_as_reference(model, x, y):
    expected = per_example_statistics(model, x, y)
    found = measured(_Own(own_statistics(model.trainable_variables)))
    assert found.keys() == expected.keys()
    for path, kinds in expected.items():
        for kind, value in kinds.items():
            np.testing.assert_allclose(found[path][kind], value, rtol=1e-4, atol=1e-6)


class _Own:
    """Shows `measured` the variables of one model alone."""

    def __init__(self, variables):
        self.trainable_variables = variables


@pytest.mark.parametrize("pair", PAIRS)
def test_both_are_measured_in_turns(pair):
    first, second = PAIRS[pair]()
    x, y = make_data()
    for model in (second, first):
        kl.track_statistics(compiled(model), model.optimizer)
    for _ in range(2):
        first.train_on_batch(x, x)
        second.train_on_batch(x, y)
    assert_as_reference(second, x, y)
    first.train_on_batch(x, x)
    assert_as_reference(first, x, x)


@pytest.mark.parametrize("pair", PAIRS)
def test_untracking_one_leaves_the_other(pair):
    first, second = PAIRS[pair]()
    x, y = make_data()
    for model in (first, second):
        kl.track_statistics(compiled(model), model.optimizer)
    kl.untrack_statistics(first)
    assert not kl.statistics.is_tracked(first)
    second.train_on_batch(x, y)
    assert_as_reference(second, x, y)
    kl.untrack_statistics(second)
    layer = first.layers[1] if hasattr(first.layers[1], "kernel") else first.layers[1].layers[0]
    assert "call" not in layer.__dict__
    first.train_on_batch(x, x)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("learning_rate", [0.01, pytest.param("auto", marks=pytest.mark.law)])
def test_fits_in_turns(pair, learning_rate):
    first, second = PAIRS[pair]()
    x, y = make_data()
    targets = {id(first): x, id(second): y}
    samplers = {}
    for model in (first, second):
        compiled(model, kl.QDOPLangevin(learning_rate, num_data=N, seed=1))
        samplers[id(model)] = None
    for _ in range(2):
        for model in (first, second):
            sampler = kl.PosteriorSampler(burn_in=0)
            before = [ops.convert_to_numpy(v) for v in parameters(model)]
            model.fit(x, targets[id(model)], batch_size=N, epochs=3, verbose=0, callbacks=[sampler])
            after = [ops.convert_to_numpy(v) for v in parameters(model)]
            assert all(np.abs(a - b).max() > 0 for a, b in zip(after, before, strict=True))
            assert len(sampler.samples) == 3
            ensemble = sampler.ensemble()
            assert np.isfinite(ensemble.predict(x, verbose=0)).all()


def test_an_adversarial_pair():
    """A generator through a discriminator that is frozen in its turn."""
    discriminator = keras.Sequential(
        [keras.Input((2,)), layers.Dense(4, "tanh"), layers.Dense(1)], name="discriminator"
    )
    generator = keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="generator")
    inputs = keras.Input((3,))
    both = keras.Model(inputs, discriminator(generator(inputs)))
    x, real = make_data()
    ones = np.ones((N, 1), "float32")
    compiled(discriminator, kl.QDOPLangevin(0.01, num_data=N, seed=1))
    kl.track_statistics(discriminator, discriminator.optimizer)
    discriminator.trainable = False
    compiled(both, kl.QDOPLangevin(0.01, num_data=N, seed=1))
    kl.track_statistics(both, both.optimizer)
    for step in range(3):  # the first fills the metric
        before = _values(generator.weights), _values(discriminator.layers[0].weights)
        both.train_on_batch(x, ones)
        assert _moved(before[0], generator.weights) == (step > 0)
        assert not _moved(before[1], discriminator.layers[0].weights)
        discriminator.trainable = True
        discriminator.train_on_batch(real, ones)
        discriminator.trainable = False
        assert _moved(before[1], discriminator.layers[0].weights) == (step > 0)
    discriminator.trainable = True
    moments = [v for v in discriminator.trainable_variables if "moment" in v.name]
    assert len(moments) == 6
    assert all(np.abs(ops.convert_to_numpy(v)).max() > 0 for v in moments)


def test_a_model_inside_is_hidden_with_the_model():
    inner, outer = inner_and_outer()
    x, y = make_data()
    kl.track_statistics(compiled(inner), inner.optimizer)
    compiled(outer, kl.SGLD("auto", num_data=N, seed=1))  # differentiates twice, without probes
    sampler = kl.PosteriorSampler(burn_in=0)
    outer.fit(x, y, batch_size=N, epochs=2, verbose=0, callbacks=[sampler])
    with kl.statistics.untracked(outer):
        assert not any(map(is_statistic, outer.trainable_variables))
        assert all("call" not in layer.__dict__ for layer in inner.layers)
    assert any(map(is_statistic, outer.trainable_variables))
    inner.train_on_batch(x, x)
    assert_as_reference(inner, x, x)


def _moved(before, variables):
    pairs = zip(before, _values(variables), strict=True)
    return any(np.abs(a - b).max() > 0 for a, b in pairs)


def _values(variables):
    return [ops.convert_to_numpy(v) for v in variables]
