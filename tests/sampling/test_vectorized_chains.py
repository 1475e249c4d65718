"""Chains as one program: each is the chain that it would be alone."""

import functools
import itertools
import warnings

import keras
import numpy as np
import pytest
from cases import WITH_VARIANTS, each
from keras import layers

import keras_langevin as kl
from keras_langevin.noise import seeds_of_chains, standard_normal

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="chains as one program: JAX")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Minibatches of about"),
    pytest.mark.filterwarnings("ignore:`num_data` must be the number"),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3)).astype("float32")
Y = np.sin(X[:, :1]) + 0.1 * RNG.normal(size=(50, 1)).astype("float32")
FIT = {"batch_size": 10, "shuffle": False, "verbose": 0}
LOSS = kl.losses.GaussianNLL(stddev=0.3)


def network():
    return keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(1)])


def with_states():
    """Moving averages, and a state of random numbers."""
    dense = layers.Dense(4, use_bias=False)
    hidden = [dense, layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.3)]
    return keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(1)])


def chains(optimizer, build=network, epochs=6, callbacks=(), found=None, **arguments):
    """A `train_fn`."""
    data = arguments.pop("data", (X, Y))
    fit = FIT | {"batch_size": arguments.pop("batch_size", FIT["batch_size"])}

    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        model = build()
        model.compile(optimizer(chain), LOSS, metrics=["mae"], **arguments)
        sampler = kl.PosteriorSampler(burn_in=2, chain=chain)
        own = [make(chain) for make in callbacks]
        history = model.fit(*data, epochs=epochs, callbacks=[sampler, *own], **fit)
        if found is not None:
            found.append((chain, history.history, model))
        return sampler

    return train_fn


def sampled(train_fn, num_chains=3, **arguments):
    ensemble = kl.sample_chains(train_fn, num_chains, verbose=0, **arguments)
    return list(ensemble.chains), list(ensemble.weights_by_name().values())


def assert_each_is_the_chain_alone(train_fn, num_chains=3):
    labels, together = sampled(train_fn, num_chains, vectorized=True)
    expected_labels, alone = sampled(train_fn, num_chains)
    assert labels == expected_labels
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    first, last = alone[0][0], alone[0][-1]
    assert np.abs(first - last).max() > 0.1  # the chains differ


def sgld(chain):
    return kl.SGLD(1e-3, num_data=50, seed=chain)


@on_jax
@each(WITH_VARIANTS, quick=("SMILE", "SGHMC"))
def test_each_chain_is_the_one_alone(case):
    rate = min(case.learning_rate, 1e-3)  # what grows would grow apart
    data = (kl.RandomBatches(X, Y, 10, seed=0),)
    make = functools.partial(case.make, rate, 50)
    assert_each_is_the_chain_alone(chains(lambda chain: make(seed=7 + chain), data=data))


@on_jax
def test_each_chain_finds_its_own_rate():
    found = []
    train_fn = chains(lambda chain: kl.QDOPLangevin(num_data=50, seed=chain), found=found)
    assert_each_is_the_chain_alone(train_fn)
    rates = [history["learning_rate"] for _, history, _ in found]
    np.testing.assert_allclose(rates[:3], rates[3:], rtol=1e-3)
    assert len({round(rate[0], 4) for rate in rates}) == 3


@on_jax
def test_histories_and_models_are_those_of_each_chain():
    """With moving averages, random states, and validation that ends the chains at their times."""
    found = []

    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        model = with_states()
        model.compile(keras.optimizers.Adam(0.1), LOSS, metrics=["mae"])
        stop = keras.callbacks.EarlyStopping("val_mae", patience=1, restore_best_weights=True)
        fit = {**FIT, "validation_split": 0.3}
        history = model.fit(X, Y, epochs=12, callbacks=[stop], **fit).history
        found.append((history, model.get_weights(), model.optimizer.iterations.numpy()))
        return model, [[v.numpy() for v in model.trainable_variables]]

    assert_each_is_the_chain_alone(train_fn, 4)
    lengths = [len(history["loss"]) for history, _, _ in found[:4]]
    assert len(set(lengths)) > 1 and min(lengths) < 12
    for mine, theirs in zip(found[:4], found[4:], strict=True):
        keras.tree.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), mine, theirs
        )


@on_jax
def test_a_batch_of_another_size_and_several_steps_an_execution():
    arguments = {"steps_per_execution": 2, "batch_size": 12}
    assert_each_is_the_chain_alone(chains(sgld, with_states, **arguments))


@on_jax
def test_samples_of_steps():
    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        model = network()
        model.compile(sgld(chain), LOSS)
        sampler = kl.PosteriorSampler(burn_in=4, thinning=2, unit="step")
        model.fit(X, Y, epochs=4, callbacks=[sampler], **FIT)
        return sampler

    assert_each_is_the_chain_alone(train_fn)


@on_jax
def test_a_second_fit_goes_on():
    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        model = network()
        model.compile(kl.QDOPLangevin(0.01, num_data=50, seed=chain), LOSS)
        sampler = kl.PosteriorSampler(burn_in=2)
        model.fit(X, Y, epochs=3, callbacks=[sampler], **FIT)
        if chain == 0:  # another is the first from here on
            return sampler
        model.fit(X, Y, epochs=3, callbacks=[sampler], **FIT)
        return sampler

    assert_each_is_the_chain_alone(train_fn)


@on_jax
def test_a_run_goes_on_from_its_folders(tmp_path):
    def train_fn(chain, context, epochs):
        keras.utils.set_random_seed(chain)
        model = network()
        model.compile(kl.QDOPLangevin(0.01, num_data=50, fisher="model", seed=chain), LOSS)
        sampler = context.sampler(burn_in=2)
        start = sampler.epochs_seen
        model.fit(X, Y, initial_epoch=start, epochs=epochs, callbacks=[sampler], **FIT)
        return sampler

    def run(epochs, folder):
        function = functools.partial(train_fn, epochs=epochs)
        return sampled(function, directory=tmp_path / folder, vectorized=True)[1]

    run(4, "stopped")
    for mine, theirs in zip(run(8, "stopped"), run(8, "whole"), strict=True):
        assert mine.shape[0] == theirs.shape[0] == 18
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3)


class Fails(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 3:
            raise FloatingPointError("loss=nan")


@on_jax
def test_the_others_go_on_where_a_chain_fails():
    def maybe(chain):
        return Fails() if chain == 1 else keras.callbacks.Callback()

    train_fn = chains(sgld, callbacks=[maybe])
    with pytest.raises(kl.ChainError, match="1 of 3 chains have failed") as caught:
        kl.sample_chains(train_fn, 3, vectorized=True, verbose=0)
    assert isinstance(caught.value.errors[1], FloatingPointError)
    assert caught.value.chains == [0] * 4 + [2] * 4
    _, expected = sampled(chains(sgld))
    found = [next(iter(sample.values())) for sample in caught.value.samples]
    np.testing.assert_allclose(found, expected[0][[0, 1, 2, 3, 8, 9, 10, 11]], atol=1e-4)


@on_jax
def test_a_chain_that_failed_is_tried_again():
    tries = []

    class FailsOnce(Fails):
        def on_epoch_end(self, epoch, logs=None):
            if len(tries) < 1:
                tries.append(epoch)
                raise FloatingPointError("loss=nan")

    def maybe(chain):
        return FailsOnce() if chain == 1 else keras.callbacks.Callback()

    _, found = sampled(chains(sgld, callbacks=[maybe]), vectorized=True, retries=1)
    np.testing.assert_allclose(found[0], sampled(chains(sgld))[1][0], atol=1e-4)


@on_jax
def test_all_chains_may_fail():
    with pytest.raises(kl.ChainError, match="2 of 2 chains have failed"):
        kl.sample_chains(chains(sgld, callbacks=[lambda _: Fails()]), 2, vectorized=True, verbose=0)


@on_jax
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": lambda chain: ["tanh", "relu"][chain]}, "other outputs for the same"),
        ({"units": lambda chain: 4 + chain}, "weights of shapes"),
        ({"stddev": lambda chain: 0.3 + chain}, "another loss for the same outputs"),
        ({"temperature": lambda chain: 1.0 - chain / 2}, "'temperature': 0.5"),
    ],
)
def test_another_network_in_a_chain_is_refused(change, words):
    chosen = {"activation": "tanh", "units": 4, "stddev": 0.3, "temperature": 1.0}

    def train_fn(chain):
        own = chosen | {name: of_chain(chain) for name, of_chain in change.items()}
        hidden = layers.Dense(own["units"], own["activation"])
        model = keras.Sequential([keras.Input((3,)), hidden, layers.Dense(1)])
        optimizer = kl.SGLD(1e-3, num_data=50, temperature=own["temperature"])
        model.compile(optimizer, kl.losses.GaussianNLL(own["stddev"]))
        sampler = kl.PosteriorSampler(burn_in=0)
        model.fit(X, Y, callbacks=[sampler], **FIT)
        return sampler

    with pytest.raises(kl.ChainError, match=words) as caught:
        kl.sample_chains(train_fn, 2, vectorized=True, verbose=0)
    assert list(caught.value.errors) == [1] and set(caught.value.chains) == {0}


@on_jax
def test_chains_differ_without_seeds():
    def train_fn(chain):
        model = network()
        model.compile(kl.SGLD(1e-3, num_data=50), LOSS)
        sampler = kl.PosteriorSampler(burn_in=0)
        model.fit(X, Y, epochs=2, callbacks=[sampler], **FIT)
        return sampler

    _, (kernels, *_) = sampled(train_fn, vectorized=True)
    first = kernels.reshape(3, 2, -1)[:, 0]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(first, 2)) > 0.1
    _, (again, *_) = sampled(train_fn, vectorized=True)
    assert np.abs(again - kernels).max() > 0.1


@on_jax
def test_one_seed_in_all_chains_is_said():
    with pytest.warns(UserWarning, match="optimizers with the same seed 3 in all"):
        sampled(chains(lambda chain: kl.SGLD(1e-3, num_data=50, seed=3)), vectorized=True)


@on_jax
@pytest.mark.parametrize("what", ["a model", "a callback"])
def test_what_chains_share_is_refused(what):
    model, stop = network(), keras.callbacks.EarlyStopping("loss")

    def train_fn(chain):
        own = model if what == "a model" else network()
        own.compile(sgld(chain), LOSS)
        sampler = kl.PosteriorSampler(burn_in=0)
        own.fit(X, Y, callbacks=[sampler, *[stop] * (what == "a callback")], **FIT)
        return sampler

    with pytest.raises(kl.ChainError, match=f"Received: {what} that several chains share"):
        kl.sample_chains(train_fn, 2, vectorized=True, verbose=0)


@on_jax
def test_chains_may_share_what_is_not_trained():
    scale = layers.Normalization()
    scale.adapt(X)

    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        model = keras.Sequential([keras.Input((3,)), scale, layers.Dense(1)])
        model.compile(keras.optimizers.SGD(1e-3), LOSS)
        model.fit(X, Y, epochs=2, **FIT)
        return model, [[v.numpy() for v in model.trainable_variables]]

    assert_each_is_the_chain_alone(train_fn)


@on_jax
def test_callbacks_may_hold_the_model_of_their_chain():
    """They read it, set its rate, and stop it, within an epoch too."""
    found = []

    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        model, read = network(), []
        model.compile(keras.optimizers.SGD(0.05), LOSS)

        def epoch_end(epoch, logs):
            read.append(float(np.sum(model.get_weights()[0])))
            model.optimizer.learning_rate = 0.05 / (1 + epoch)
            model.stop_training = epoch == 1 + chain

        class StopsWithinTheEpoch(keras.callbacks.Callback):
            epoch = 0

            def on_epoch_begin(self, epoch, logs=None):
                self.epoch = epoch

            def on_train_batch_end(self, batch, logs=None):
                if chain == 2 and self.epoch == 1 and batch == 2:
                    self.model.stop_training = True

        own = [keras.callbacks.LambdaCallback(on_epoch_end=epoch_end), StopsWithinTheEpoch()]
        history = model.fit(X, Y, epochs=6, callbacks=own, **FIT).history
        found.append((read, history, model.get_weights()))
        return model, [model.get_weights()]

    assert_each_is_the_chain_alone(train_fn)
    for mine, theirs in zip(found[:3], found[3:], strict=True):
        keras.tree.map_structure(
            functools.partial(np.testing.assert_allclose, rtol=1e-3), mine, theirs
        )


@on_jax
def test_what_layers_and_losses_add_and_draw_is_theirs():
    """Losses that layers add, dropout that Keras draws in inference too, and metrics of vectors."""
    found = []

    class Draws(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed_generator = keras.random.SeedGenerator(1)

        def call(self, x):
            self.add_loss(0.1 * keras.ops.mean(x**2))
            return x + 0.1 * keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)

    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        hidden = layers.Dense(4, "tanh", activity_regularizer="l2")
        inside = [layers.Reshape((3, 1)), layers.GRU(4, dropout=0.2), hidden, Draws()]
        model = keras.Sequential([keras.Input((3,)), *inside, layers.Dense(2)])
        metrics = [keras.metrics.F1Score(average=None)]
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.05), loss, metrics=metrics)
        targets = np.eye(2, dtype="float32")[(Y[:, 0] > 0).astype(int)]
        history = model.fit(X, targets, epochs=3, **FIT).history
        found.append(history["f1_score"])
        return model, [[v.numpy() for v in model.trainable_variables]]

    assert_each_is_the_chain_alone(train_fn)
    np.testing.assert_allclose(found[:3], found[3:], rtol=1e-3)


@on_jax
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda chain: layers.Dropout(0.1 + 0.3 * chain), "other outputs for the same"),
        (lambda chain: layers.BatchNormalization(momentum=0.5 + 0.2 * chain), "other outputs"),
        (lambda chain: layers.Dense(3, trainable=chain == 0), "weights of shapes"),
    ],
)
def test_what_differs_in_training_alone_is_refused(layer, words):
    def train_fn(chain):
        model = keras.Sequential([keras.Input((3,)), layer(chain), layers.Dense(1)])
        model.compile("sgd", LOSS)
        model.fit(X, Y, **FIT)
        return model, [[v.numpy() for v in model.trainable_variables]]

    with pytest.raises(kl.ChainError, match=words) as caught:
        kl.sample_chains(train_fn, 2, vectorized=True, verbose=0)
    assert list(caught.value.errors) == [1]


@on_jax
def test_the_settings_of_the_caller_hold():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = []

        def train_fn(chain):
            model = network()
            found.append(model.layers[0].compute_dtype)
            return model, [model.get_weights()]

        kl.sample_chains(train_fn, 2, vectorized=True, verbose=0, output="values")
    finally:
        keras.config.set_dtype_policy("float32")
    assert found == ["bfloat16", "bfloat16"]


@on_jax
def test_fit_is_put_back(monkeypatch):
    plain = keras.Model.fit

    def patched(self, *args, **kwargs):
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", patched, raising=False)
    sampled(chains(sgld, epochs=3), vectorized=True)
    assert keras.Model.fit is patched
    monkeypatch.undo()
    sampled(chains(sgld, epochs=3), vectorized=True)
    assert keras.Model.fit is plain and "fit" not in vars(keras.Model)


@on_jax
def test_chains_with_other_data_run_after_one_another():
    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        model = network()
        model.compile(sgld(chain), LOSS)
        sampler = kl.PosteriorSampler(burn_in=1)
        rows = slice(10 * (chain == 2), None)
        model.fit(X[rows], Y[rows], epochs=3, callbacks=[sampler], **FIT)
        return sampler

    with pytest.warns(UserWarning, match="other `x` in some. Chains 0, 1 and 2 run after"):
        _, together = sampled(train_fn, vectorized=True)
    for a, b in zip(together, sampled(train_fn)[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@on_jax
def test_a_step_is_traced_once_for_all_chains():
    def traces(num_chains):
        count = []

        class Loss(type(LOSS)):
            def call(self, y_true, y_pred):
                count.append(1)
                return super().call(y_true, y_pred)

        def train_fn(chain):
            model = network()
            model.compile(sgld(chain), Loss(stddev=0.3))
            sampler = kl.PosteriorSampler(burn_in=0)
            model.fit(X[:40], Y[:40], epochs=3, callbacks=[sampler], **FIT)
            return sampler

        meaning = {"output": "mean", "noise_stddev": 0.3}
        kl.sample_chains(train_fn, num_chains, vectorized=True, verbose=0, **meaning)
        return len(count) - 2 * (num_chains - 1)  # networks are compared before

    assert traces(2) == traces(5)


def test_the_noise_of_a_chain_is_that_of_its_seed():
    expected = [np.array(standard_normal((5,), seed, 3, 1)) for seed in (4, 9)]
    with seeds_of_chains({4: [4, 9]}, 0):
        np.testing.assert_array_equal(standard_normal((5,), 4, 3, 1), expected[0])
    if keras.backend.backend() == "jax":
        with seeds_of_chains({4: [4, 9]}, 1):
            np.testing.assert_array_equal(standard_normal((5,), 4, 3, 1), expected[1])


def test_other_backends_and_executors_are_refused():
    if keras.backend.backend() != "jax":
        with pytest.raises(ValueError, match="JAX backend"):
            kl.sample_chains(chains(sgld), 2, vectorized=True)
        return
    with warnings.catch_warnings(), pytest.raises(ValueError, match="without an executor"):
        from concurrent.futures import ThreadPoolExecutor

        kl.sample_chains(chains(sgld), 2, ThreadPoolExecutor(1), vectorized=True)
