"""Several chains as one ensemble: order, labels, other processes, chains that fail."""

import concurrent.futures
import functools
import multiprocessing
import pickle
import threading

import keras
import numpy as np
import pytest
from keras import layers

from keras_langevin import diagnostics
from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.losses import GaussianNLL
from keras_langevin.optimizers import SGLD, DOPLangevin
from keras_langevin.sampling.chains import ChainError, sample_chains
from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.statistics import is_tracked, track_statistics
from keras_langevin.storage.sample import Sample
from keras_langevin.weights import named_weights

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 3)).astype("float32")
Y = np.sin(X[:, :1])


def network(seed):
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "tanh", kernel_initializer=keras.initializers.GlorotUniform(seed)),
            layers.BatchNormalization(),
            layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed)),
        ]
    )


def train(chain):
    """A warm start, then SGLD; safe in threads, as all random numbers have seeds of their own."""
    model = network(seed=chain)
    loss = GaussianNLL(stddev=0.1)
    model.compile("adam", loss, metrics=["mae"])
    stop = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)
    fit = {"verbose": 0, "batch_size": 32, "shuffle": False}
    model.fit(X, Y, epochs=3, validation_data=(X, Y), callbacks=[stop], **fit)
    model.compile(SGLD(1e-4, num_data=len(X), seed=chain), loss, metrics=["mae"])
    sampler = PosteriorSampler(burn_in=2)
    model.fit(X, Y, epochs=5 + chain, callbacks=[sampler], **fit)
    return sampler


trained = functools.cache(train)


def drawn(chain, draws=3, scale=1.0, offset=0.0):
    """A model and samples without training."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile(loss=GaussianNLL(stddev=0.1))
    rng = np.random.default_rng(chain)
    samples = [
        {n: offset + scale * rng.normal(size=v.shape) for n, v in named_weights(model).items()}
        for _ in range(draws)
    ]
    return model, samples


def fails_on_chain_1(chain):
    if chain == 1:
        raise FloatingPointError("loss=nan")
    return drawn(chain)


class Pickling(concurrent.futures.Executor):
    """Sends results as another process would."""

    def submit(self, function, *args):
        future = concurrent.futures.Future()
        try:
            future.set_result(pickle.loads(pickle.dumps(function(*args))))
        except Exception as error:
            future.set_exception(error)
        return future


def apart(train_fn, num_chains):
    """What every chain's own ensemble predicts for its members, by chain."""
    ensembles = []
    for chain in range(num_chains):
        result = train_fn(chain)
        if isinstance(result, PosteriorSampler):
            result = result.model, result.samples
        ensembles.append(BayesianEnsembleModel(*result))
    return [e.predict_members(X, verbose=0) for e in ensembles]


def assert_joined(ensemble, members):
    """Members by chain, then by draw."""
    sizes = [len(chain) for chain in members]
    np.testing.assert_array_equal(ensemble.chains, np.repeat(np.arange(len(sizes)), sizes))
    together = ensemble.predict_members(X, verbose=0)
    np.testing.assert_allclose(together, np.concatenate(members), atol=1e-6)
    for one, expected in zip(ensemble.split_chains(together), members, strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-6)
    average = sum(n * np.mean(m, axis=0) for n, m in zip(sizes, members, strict=True)) / sum(sizes)
    np.testing.assert_allclose(ensemble.predict(X, verbose=0), average, atol=1e-6)


# --------------------------------------------------------------------------- where they run


@pytest.mark.slow
def test_chains_one_after_another(capsys):
    ensemble = sample_chains(trained, 2)
    first, second = (list(named_weights(trained(chain).model)) for chain in range(2))
    assert first != second  # automatic names
    members = apart(trained, 2)
    assert [len(chain) for chain in members] == [3, 4]
    assert np.abs(members[0].mean(0) - members[1].mean(0)).max() > 0.01
    assert_joined(ensemble, members)
    with pytest.raises(AssertionError):
        assert_joined(ensemble, members[::-1])
    result = ensemble.evaluate(X, Y, verbose=0, return_dict=True)
    assert set(result) == {"loss", "mae"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Chain 0: 3 samples in ") and lines[1].endswith("(2 of 2 chains)")


@pytest.mark.slow
def test_chains_in_threads():
    with concurrent.futures.ThreadPoolExecutor(3) as executor:
        ensemble = sample_chains(train, 3, executor, verbose=0)
    assert_joined(ensemble, apart(trained, 3))


@pytest.mark.slow
def test_chains_in_processes():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        ensemble = sample_chains(train, 2, executor, verbose=0)
    assert_joined(ensemble, apart(trained, 2))


def test_a_chain_from_another_process_is_built_from_its_config():
    ensemble = sample_chains(trained, 2, Pickling(), verbose=0)
    assert_joined(ensemble, apart(trained, 2))
    assert "mae" in ensemble.evaluate(X, Y, verbose=0, return_dict=True)


@pytest.mark.neutral
def test_the_order_is_that_of_chains_whatever_finishes_first():
    done = [threading.Event() for _ in range(3)]
    order = []

    def backwards(chain):
        if chain < 2:
            assert done[chain + 1].wait(timeout=60)
        order.append(chain)
        done[chain].set()
        return drawn(chain, draws=2 + chain)

    with concurrent.futures.ThreadPoolExecutor(3) as executor:
        ensemble = sample_chains(backwards, 3, executor, verbose=0)
    assert order == [2, 1, 0]
    assert_joined(ensemble, apart(lambda chain: drawn(chain, draws=2 + chain), 3))


# ----------------------------------------------------------------------------- the network


class NoConfig(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        raise NotImplementedError("no config")


class Vocabulary(layers.Layer):
    def call(self, x):
        return x

    def save_assets(self, inner_path):
        pass


def no_config():
    model = NoConfig(1)
    model(X)
    model.compile(loss=GaussianNLL(stddev=0.1))
    return model


def with_assets():
    model = keras.Sequential([keras.Input((3,)), Vocabulary(), layers.Dense(1)])
    model.compile(loss=GaussianNLL(stddev=0.1))
    return model


@pytest.mark.parametrize(
    ("build", "reason"), [(no_config, "config cannot be written"), (with_assets, "vocabularies")]
)
def test_a_network_that_cannot_be_sent_is_passed(build, reason):
    def draw(chain):
        model = build()
        rng = np.random.default_rng(chain)
        return model, [[rng.normal(size=v.shape) for v in model.weights] for _ in range(3)]

    assert_joined(sample_chains(draw, 2, verbose=0), apart(draw, 2))
    assert_joined(sample_chains(draw, 2, Pickling(), model=build(), verbose=0), apart(draw, 2))
    with pytest.raises(ChainError, match=f"{reason}.*Pass `model=`") as caught:
        sample_chains(draw, 2, Pickling(), verbose=0)
    error = caught.value
    assert not error.errors and error.chains == [0, 0, 0, 1, 1, 1]
    samples = [list(sample.values()) for sample in error.samples]
    ensemble = BayesianEnsembleModel(build(), samples, chains=error.chains)
    assert_joined(ensemble, apart(draw, 2))


@pytest.mark.parametrize("executor", [None, Pickling()])
def test_a_network_is_sent_without_its_statistics_and_optimizer(executor):
    class Optimizer(DOPLangevin):  # cannot be found by its name
        pass

    def tracked(chain):
        model, samples = drawn(chain)
        model.compile(Optimizer(0.1, num_data=64), loss=GaussianNLL(stddev=0.1))
        track_statistics(model, model.optimizer)
        assert is_tracked(model)
        return model, samples

    assert_joined(sample_chains(tracked, 2, executor, verbose=0), apart(drawn, 2))


@pytest.mark.neutral
def test_what_the_outputs_mean_can_be_said():
    def draw(chain):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
        return model, [[np.ones((3, 2)), np.zeros(2)]] * 2

    ensemble = sample_chains(draw, 2, verbose=0, output="logits", member_batch_size=1)
    assert ensemble.predict(X, verbose=0).shape == (64, 2) and ensemble.member_batch_size == 1
    with pytest.raises(ChainError, match="Pass `output=`") as caught:
        sample_chains(draw, 2, verbose=0)
    assert len(caught.value.samples) == 4


@pytest.mark.neutral
def test_chains_of_other_networks_are_refused():
    def other_shape(chain):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(1 + chain)])
        return model, [model.get_weights()]

    def other_weight(chain):
        norm = layers.LayerNormalization(center=chain == 0, scale=chain == 1)
        model = keras.Sequential([keras.Input((3,)), norm])
        return model, [model.get_weights()]

    for draw in (other_shape, other_weight):
        with pytest.raises(ChainError, match=r"weights in the same order: .* in chain 1"):
            sample_chains(draw, 2, verbose=0, output="logits")
    with pytest.raises(ChainError, match="2 of 2 chains have failed"):
        sample_chains(other_weight, 2, model=drawn(0)[0], on_error="skip", verbose=0)


# ------------------------------------------------------------------------ chains that fail


@pytest.mark.neutral
@pytest.mark.parametrize("executor", [None, Pickling()])
def test_a_chain_that_fails_is_named_and_the_others_are_kept(executor, capsys):
    with pytest.raises(ChainError, match="- chain 1: FloatingPointError: loss=nan") as caught:
        sample_chains(fails_on_chain_1, 3, executor)
    assert "Chain 1: failed, FloatingPointError: loss=nan (" in capsys.readouterr().out
    error = caught.value
    assert error.__cause__ is error.errors[1] and list(error.errors) == [1]
    expected = apart(drawn, 3)[::2]
    ensemble = BayesianEnsembleModel(drawn(0)[0], _lists(error.samples), chains=error.chains)
    np.testing.assert_array_equal(ensemble.chains, [0, 0, 0, 2, 2, 2])
    members = ensemble.predict_members(X, verbose=0)
    np.testing.assert_allclose(members, np.concatenate(expected), atol=1e-6)


@pytest.mark.neutral
def test_chains_that_fail_can_be_skipped():
    with pytest.warns(UserWarning, match="1 of 3 chains have failed:\n- chain 1: FloatingPoint"):
        ensemble = sample_chains(fails_on_chain_1, 3, on_error="skip", verbose=0)
    np.testing.assert_array_equal(ensemble.chains, [0, 0, 0, 2, 2, 2])
    assert [len(part) for part in ensemble.split_chains(np.arange(6))] == [3, 3]


def test_what_train_fn_returns_is_checked():
    def burning_in(chain):
        model = network(chain)
        model.compile(SGLD(1e-4, num_data=64), "mse")
        sampler = PosteriorSampler(burn_in=5)
        model.fit(X, Y, epochs=1, callbacks=[sampler], verbose=0)
        return sampler

    with pytest.raises(ChainError, match="at least one sample"):
        sample_chains(burning_in, 1, on_error="skip", verbose=0)
    for returned in (None, drawn(0)[0], PosteriorSampler(burn_in=0)):
        with pytest.raises(ChainError, match=r"must return the `kl\.PosteriorSampler`"):
            sample_chains(lambda chain, returned=returned: returned, 1, verbose=0)


def test_arguments_that_are_wrong_are_refused():
    with pytest.raises(ValueError, match="num_chains=0"):
        sample_chains(drawn, 0)
    with pytest.raises(ValueError, match="on_error='ignore'"):
        sample_chains(drawn, 2, on_error="ignore")


# ------------------------------------------------------------------------------------ labels


@pytest.mark.neutral
def test_every_sample_gets_the_number_of_its_chain():
    def mislabelled(chain):
        model, samples = drawn(chain)
        return model, [Sample(sample, chain=7) for sample in samples]

    model, samples = mislabelled(0)
    np.testing.assert_array_equal(BayesianEnsembleModel(model, samples).chains, [7, 7, 7])
    ensemble = sample_chains(mislabelled, 2, verbose=0)
    np.testing.assert_array_equal(ensemble.chains, [0, 0, 0, 1, 1, 1])


def test_labels_are_kept(tmp_path):
    ensemble = sample_chains(drawn, 3, verbose=0)
    assert ensemble.get_config()["chains"] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_array_equal(loaded.chains, ensemble.chains)
    assert loaded.chains.dtype.kind == "i"
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), ensemble.predict(X, verbose=0))


@pytest.mark.neutral
def test_samples_without_labels_are_chain_0():
    model, samples = drawn(0)
    np.testing.assert_array_equal(BayesianEnsembleModel(model, samples).chains, [0, 0, 0])
    given = BayesianEnsembleModel(model, samples, chains=(1, 0, 1))
    np.testing.assert_array_equal(given.chains, [1, 0, 1])
    first, second = given.split_chains({"mean": np.array([10, 11, 12])})
    assert first["mean"].tolist() == [11] and second["mean"].tolist() == [10, 12]
    for chains in ([0, 1], [0, 1, -1], [0.0, 1.0, 2.0], 0):
        with pytest.raises(ValueError, match=r"one integer >= 0 for each of the 3 samples"):
            BayesianEnsembleModel(model, samples, chains=chains)


@pytest.mark.neutral
def test_r_hat_tells_chains_of_one_law_from_chains_stuck_apart():
    def members(offset):
        ensemble = sample_chains(lambda c: drawn(c, 200, offset=offset * c), 3, verbose=0)
        return ensemble, ensemble.predict_members(X[:5], verbose=0)

    def r_hat(ensemble, members):
        return diagnostics.r_hat(ensemble.split_chains(members)).max()

    assert r_hat(*members(offset=0)) < 1.03
    stuck, draws = members(offset=3)
    assert r_hat(stuck, draws) > 1.5
    assert r_hat(stuck, RNG.permutation(draws)) < 1.03  # were members not ordered by chain


def _lists(samples):
    return [list(sample.values()) for sample in samples]
