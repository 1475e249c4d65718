"""What is said of chains that are right, stand still, drift, disagree, or are a point."""

import functools

import keras
import numpy as np
import pytest
from targets.restartable import restartable
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin.diagnostics import chain_health


@pytest.fixture(autouse=True)
def fresh_session():
    """Compiled models live on."""
    keras.utils.set_random_seed(0)


# --------------------------------------------------------------------- chains with a known law


def latent(length, rho, generator, dimension=5):
    """An autoregressive chain, or with rho = 1 a random walk."""
    scale = np.sqrt(1 - rho**2) if rho < 1 else 0.02
    z = [generator.normal(size=dimension)]
    for _ in range(length - 1):
        z.append(rho * z[-1] + scale * generator.normal(size=dimension))
    return np.array(z)


def predictions(length=50, rho=0.5, seed=0, num_chains=2, examples=100):
    """Of which five independent quantities decide."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(5, examples))
    return [latent(length, rho, generator) @ mixing for _ in range(num_chains)]


def words(draws):
    """The first words of each finding."""
    kinds = {
        "has not moved": "unmoved",
        "on its way": "drift",
        "disagree": "disagree",
        "is a point": "point",
        "too short": "short",
    }
    found = chain_health(draws).findings
    return [kind for finding in found for phrase, kind in kinds.items() if phrase in finding]


@pytest.mark.law
@every_row("length, rho", [(20, 0.0), (50, 0.0), (50, 0.6), (200, 0.9)])
def test_right_chains_raise_few_alarms(length, rho):
    alarms = [words(predictions(length, rho, seed)) for seed in range(50)]
    assert sum(map(bool, alarms)) <= 1


@pytest.mark.law
@every_row("length", [20, 50, 400])
def test_random_walks_have_not_moved(length):
    found = [words(predictions(length, 1.0, seed)) for seed in range(50)]
    assert sum("unmoved" in kinds for kinds in found) >= 48
    assert sum("disagree" in kinds for kinds in found) >= 48
    assert not chain_health(predictions(length, 1.0)).has_moved


def test_the_order_of_the_draws_tells_a_random_walk():
    """What a mutant that counts distinct draws would do, by taking the order away."""
    walk = predictions(50, 1.0, num_chains=1)
    assert words(walk)[0] == "unmoved"
    shuffled = [np.random.default_rng(1).permutation(walk[0])]
    assert words(shuffled) == []


def test_a_chain_on_its_way_drifts():
    chains = predictions(50, 0.0)
    chains[1] = chains[1] + 10 * np.linspace(0, 1, 50)[:, None]
    assert "drift" in words(chains) and not chain_health(chains).has_moved
    (finding,) = (f for f in chain_health(chains).findings if "on its way" in f)
    assert finding.startswith("Chain 1") and "Lengthen `burn_in`" in finding


def test_chains_at_different_modes_disagree():
    first, second = predictions(50, 0.0)
    assert words([first, second + 5.0]) == ["disagree"]
    assert words([first, first[:, ::-1] + 5.0]) == ["disagree"]
    assert chain_health([first, second + 5.0]).has_moved
    assert words([first]) == []


def test_members_that_say_the_same_are_a_point():
    signal = np.sin(np.arange(100.0))
    close, apart = (
        [signal + width * chain for chain in predictions(50, 0.0)] for width in (1e-4, 1e-2)
    )
    assert words(close) == ["point"] and chain_health(close).is_point
    assert words(apart) == [] and not chain_health(apart).is_point
    scaled = [1e-3 * chain for chain in apart]
    assert chain_health(scaled).spread == pytest.approx(chain_health(apart).spread)


def test_identical_members_are_a_point_that_has_not_moved():
    for copy in (np.full((30, 10, 3), 0.1), np.repeat(predictions(1)[0], 30, axis=0)):
        found = chain_health([copy, copy])
        assert words([copy, copy]) == ["unmoved", "unmoved", "point"]
        assert found.spread < 1e-12 and found.worth == (1.0, 1.0) and np.isnan(found.r_hat)


def test_predictions_that_never_change_do_not_count():
    chains = predictions()
    sure = [np.c_[chain, np.ones((50, 300))] for chain in chains]
    found, expected = chain_health(sure), chain_health(chains)
    assert found.worth == expected.worth and found.r_hat == expected.r_hat
    assert found.effective_sample_size_min == expected.effective_sample_size_min


def test_the_numbers():
    chains = predictions(200, 0.5, num_chains=3, examples=60)
    found = chain_health([chain.reshape(200, 20, 3) for chain in chains])
    assert (found.num_chains, found.num_draws) == (3, 200)
    sizes, reductions = kl.diagnostics.effective_sample_size(chains), kl.diagnostics.r_hat(chains)
    assert found.effective_sample_size == pytest.approx(np.median(sizes))
    assert found.effective_sample_size_min == pytest.approx(np.min(sizes))
    assert found.r_hat == pytest.approx(np.median(reductions))
    assert found.r_hat_max == pytest.approx(np.max(reductions))
    pooled = np.concatenate(chains)
    assert found.spread == pytest.approx(pooled.std(axis=0).mean() / np.ptp(pooled))
    assert found.worth == pytest.approx([200 / 3] * 3, rel=0.25)
    assert found == chain_health(chains)
    line = np.arange(200.0)
    explained = [np.corrcoef(line, column)[0, 1] ** 2 for column in chains[0].T]
    assert found.drift[0] == pytest.approx(np.median(explained))


def test_few_draws_say_little():
    assert words(predictions(19, 1.0)) == ["short"]
    with pytest.raises(ValueError, match="at least 4 draws"):
        chain_health(predictions(3))


def test_bad_draws():
    with pytest.raises(ValueError, match=r"\(draws, examples, ...\). Received: shape \(50,\)"):
        chain_health(np.zeros(50))
    wrong = predictions()
    wrong[1][3, 4] = np.nan
    with pytest.raises(ValueError, match="nan in draw 3 of chain 1"):
        chain_health(wrong)


# ------------------------------------------------------------------------ a small network

RNG = np.random.default_rng(0)
N = 200
X = RNG.uniform(-2, 2, size=(N, 2)).astype("float32")
Y = (np.sin(2 * X[:, 0]) + 0.5 * X[:, 1] + 0.5 * RNG.normal(size=N) > 0.3).astype("int32")
PROBE = RNG.uniform(-2.5, 2.5, size=(60, 2)).astype("float32")


class Minibatches(keras.utils.PyDataset):
    def __init__(self, steps, size):
        super().__init__()
        self.steps, self.size, self.generator = steps, size, np.random.default_rng(0)

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        rows = self.generator.permutation(N)[: self.size]
        return X[rows], Y[rows]


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network():
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((2,)), dense(16, "tanh"), dense(2)])


@functools.cache
def mode():
    """The weights that Adam ends at."""
    model = network()
    model.compile(keras.optimizers.Adam(1e-2), LOSS)
    model.fit(Minibatches(400, 50), verbose=0)
    return model.get_weights()


@restartable
def compiled(cls, **arguments):
    model = network()
    model.set_weights(mode())
    model.compile(
        cls(0.0, num_data=N, seed=1, **arguments),
        LOSS,
        jit_compile=keras.backend.backend() != "torch",
    )
    return kl.track_statistics(model, model.optimizer)


def sampled(cls, learning_rate, batch_size=50, thinning=20, **arguments):
    """Predictions of a chain that begins where Adam ends."""
    model = compiled(cls, **arguments)
    model.optimizer.learning_rate = learning_rate
    sampler = kl.PosteriorSampler(burn_in=200, thinning=thinning, unit="step")
    data = Minibatches(200 + 30 * thinning, batch_size)
    model.fit(data, verbose=0, callbacks=[sampler])
    return sampler.ensemble().predict_members(PROBE, verbose=0)


# A single long epoch hides the size of its batches from the sampler.
one_epoch = pytest.mark.filterwarnings("ignore:Minibatches of about")


@one_epoch
def test_a_right_run_of_a_network():
    assert words(sampled(kl.QDOPLangevin, 0.02)) == []


@pytest.mark.neutral
@one_epoch
def test_a_ten_thousandth_of_the_learning_rate_does_not_move():
    # At a thousandth seven seeds of eight were said to be unmoved.
    assert words(sampled(kl.QDOPLangevin, 0.02 / 10_000))[0] == "unmoved"


@pytest.mark.neutral
@one_epoch
def test_at_temperature_zero_on_all_data_a_network_is_a_point():
    members = sampled(kl.SGLD, 0.1, batch_size=N, thinning=2, temperature=0.0)
    assert "point" in words(members)
