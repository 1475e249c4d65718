"""`fit` ends when more samples would not help, and not before."""

import keras
import numpy as np
import pytest

import keras_langevin as kl
from keras_langevin.sampling.held_out_scores import HeldOutScores, SampleScores
from keras_langevin.sampling.stopping_rule import gain_left

TRAIN, HELD_OUT = 60, 40
NAMES = ("val_r_hat", "val_effective_samples", "val_gain_left")
EASY = {"min_gain": 0.3, "min_effective_samples": 2, "max_r_hat": 3.0}
on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="chains as one program: JAX")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(TRAIN + HELD_OUT, 4)).astype("float32")
CLASSES = RNG.integers(0, 3, TRAIN + HELD_OUT)
NUMBERS = (X[:, :1] + 0.3 * RNG.normal(size=(TRAIN + HELD_OUT, 1))).astype("float32")
HELD = X[TRAIN:], CLASSES[TRAIN:]


def classifier(rate=0.3):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kl.SGLD(rate, num_data=TRAIN), loss)
    return model


def run(sampler, model=None, y=CLASSES, epochs=40, more=(), verbose=0, held_out=None, **kwargs):
    """The epochs run."""
    model = model or classifier()
    held_out = held_out or (X[TRAIN:], keras.tree.map_structure(lambda a: a[TRAIN:], y))
    enough = kl.StopWhenEnough(sampler, held_out, **kwargs)
    callbacks = [sampler, enough, *more]
    labels = keras.tree.map_structure(lambda a: a[:TRAIN], y)
    fit = {"epochs": epochs, "batch_size": 20, "callbacks": callbacks, "verbose": verbose}
    return model.fit(X[:TRAIN], labels, **fit).history


def test_it_stops_and_says_so_once(capsys):
    sampler = kl.PosteriorSampler(burn_in=2)
    history = run(sampler, verbose=2, **EASY)
    assert len(history["loss"]) == 2 + len(sampler.samples) == 18
    printed = capsys.readouterr().out
    assert printed.count("StopWhenEnough") == 1
    assert "stops with 16 samples: R-hat" in printed and "min_gain=0.3" in printed
    assert np.isnan(history["val_gain_left"][:-1]).all() and history["val_gain_left"][-1] < 0.3
    assert np.isnan(history["val_r_hat"][:5]).all() and np.isfinite(history["val_r_hat"][5:]).all()


@pytest.mark.neutral
def test_a_run_that_stops_is_the_beginning_of_one_that_does_not():
    found = []
    for stops in (True, False):
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        sampler, model = kl.PosteriorSampler(burn_in=2), classifier()
        callbacks = [sampler, *[kl.StopWhenEnough(sampler, HELD, **EASY)] * stops]
        model.fit(X[:TRAIN], CLASSES[:TRAIN], 20, 22, callbacks=callbacks, verbose=0)
        found.append([next(iter(sample.values())) for sample in sampler.samples])
    assert len(found[0]) == 16 and len(found[1]) == 20
    np.testing.assert_array_equal(found[0], found[1][:16])


@pytest.mark.neutral
@pytest.mark.parametrize(
    "change", [{"min_gain": 1e-4}, {"min_effective_samples": 1000}, {"max_r_hat": 1.0}]
)
def test_it_goes_on_while_one_of_the_three_says_so(change):
    sampler = kl.PosteriorSampler(burn_in=2)
    history = run(sampler, epochs=25, **{**EASY, **change})
    assert len(history["loss"]) == 25


@pytest.mark.parametrize("kind", ["classes", "numbers", "both"])
def test_what_it_logs_is_that_of_the_ensemble(kind):
    labels = {"a": CLASSES, "b": NUMBERS}
    losses = {"a": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "b": "mse"}
    chosen = {"classes": ["a"], "numbers": ["b"], "both": ["a", "b"]}[kind]
    inputs = keras.Input((4,))
    heads = {"a": keras.layers.Dense(3)(inputs), "b": keras.layers.Dense(1)(inputs)}
    model = keras.Model(inputs, {name: heads[name] for name in chosen})
    model.compile(kl.SGLD(0.05, num_data=TRAIN), {name: losses[name] for name in chosen})
    y = {name: labels[name] for name in chosen}
    sampler = kl.PosteriorSampler(burn_in=2)
    history = run(sampler, model, y, epochs=22, min_gain=1e-4)
    ensemble, x = sampler.ensemble(), X[TRAIN:]
    held = {name: value[TRAIN:] for name, value in y.items()}
    members = keras.tree.flatten(ensemble.predict_members(x, verbose=0))
    flat = np.concatenate([m.reshape(20, -1) for m in members], axis=1)
    draws = flat[:, np.linspace(0, flat.shape[1] - 1, min(100, flat.shape[1])).astype(int)]
    sizes = kl.diagnostics.effective_sample_size(draws, kind="bulk")
    densities = keras.tree.flatten(ensemble.log_likelihood(x, held, verbose=0))
    gains = [np.mean(gain_left(d[None], [np.median(sizes)])) for d in densities]
    expected = [np.median(kl.diagnostics.r_hat(draws)), np.median(sizes), sum(gains)]
    np.testing.assert_allclose([history[name][-1] for name in NAMES], expected, rtol=1e-3)


@pytest.mark.neutral
@pytest.mark.parametrize("arguments", [{"max_samples": 20}, {"unit": "step", "thinning": 2}])
def test_other_schedules(arguments):
    sampler = kl.PosteriorSampler(burn_in=3, **arguments)
    history = run(sampler, epochs=60, **EASY | {"min_effective_samples": 6})
    assert len(history["loss"]) < 60 and np.isfinite(history["val_gain_left"][-1])


@pytest.mark.neutral
def test_every_sample_is_evaluated_once_also_after_a_resumption(tmp_path, monkeypatch):
    calls = []
    evaluate = HeldOutScores.evaluate
    monkeypatch.setattr(
        HeldOutScores, "evaluate", lambda self, w: (calls.append(1), evaluate(self, w))[1]
    )
    first = kl.PosteriorSampler(burn_in=2, directory=tmp_path / "run")
    run(first, epochs=10, **EASY)
    assert len(calls) == 8
    keras.utils.clear_session()
    second = kl.PosteriorSampler(burn_in=2, directory=tmp_path / "run", resume=True)
    model, enough = classifier(), kl.StopWhenEnough(second, HELD, **EASY)
    fit = {"epochs": 40, "initial_epoch": 10, "callbacks": [second, enough], "verbose": 0}
    model.fit(X[:TRAIN], CLASSES[:TRAIN], 20, **fit)
    assert len(second.samples) == 16 and len(calls) == 8 + 16


@pytest.mark.neutral
def test_burn_in_by_default_and_the_data_of_fit():
    sampler = kl.PosteriorSampler()
    callbacks = [sampler, kl.StopWhenEnough(sampler, **EASY)]
    fit = {"epochs": 60, "validation_data": HELD, "callbacks": callbacks, "verbose": 0}
    classifier().fit(X[:TRAIN], CLASSES[:TRAIN], 20, **fit)
    assert sampler.epochs_seen == 30 + 16


@pytest.mark.neutral
def test_some_of_many_examples():

    class Batches(keras.utils.PyDataset):
        """With a last batch that is smaller."""

        def __len__(self):
            return 3

        def __getitem__(self, index):
            rows = slice(40 * index, 40 * index + 40)
            return X[rows], CLASSES[rows]

    enough = kl.StopWhenEnough(kl.PosteriorSampler(1), Batches(), num_examples=50)
    model = classifier()
    held_out = HeldOutScores(model, enough.batches, enough.num_examples)
    scores = held_out.evaluate({v.path: np.array(v) for v in model.trainable_variables})
    seen = [d.shape for batch in scores.log_densities for d in batch]
    assert held_out.num_examples == 50 and seen == [(50,)] and scores.predictions.shape == (100,)


# -------------------------------------------------------------------------------- several chains


class NothingLeft:
    """Held-out scores by which nothing is left to gain."""

    weights = (1.0,)

    def gains_left(self, chains, effective_samples):
        return np.zeros(100)


class Chain:
    """What `StopTogether` asks of a callback, without a network."""

    model, max_r_hat, min_effective_samples, min_gain, alpha = None, 1.05, 20, 0.01, 0.05

    def __init__(self, together, centre=0.0):
        self.together, self.scores, self.centre = together, {}, centre
        self.rng = np.random.default_rng(int(10 * centre))
        together.begin(self)
        together._held_out = [(None, NothingLeft())]

    def age(self, position):
        return position

    def epoch(self, epoch):
        predictions = self.centre + self.rng.normal(size=50)
        self.scores[epoch + 1] = SampleScores(predictions, [])
        return self.together.look(self, epoch)


def epochs_run(*chains):
    """Of each chain, when they run in step."""
    for epoch in range(60):
        if all([chain.epoch(epoch).is_enough for chain in chains]):
            return epoch + 1
    return None


@pytest.mark.neutral
def test_chains_that_are_apart_go_on():
    together = kl.StopTogether()
    assert epochs_run(Chain(together), Chain(together, 3.0)) is None
    alike = kl.StopTogether()
    alone = epochs_run(Chain(kl.StopTogether()))
    assert epochs_run(Chain(alike), Chain(alike, 0.1)) <= alone < 60
    apart = [Chain(kl.StopTogether()), Chain(kl.StopTogether(), 3.0)]
    assert epochs_run(*apart) < 60  # each by itself sees nothing of it


@pytest.mark.neutral
def test_chains_one_after_another_decide_by_themselves():
    together = kl.StopTogether()
    for centre in (0.0, 3.0, 6.0):
        chain = Chain(together, centre)
        assert epochs_run(chain) < 60
        if centre:
            together.end(chain)  # the first has failed


@pytest.mark.neutral
def test_a_chain_that_failed_is_left_out():
    together = kl.StopTogether()
    chains = [Chain(together), Chain(together, 3.0)]
    chains[1].epoch(0)
    assert epochs_run(chains[0]) < 60


@on_jax
def test_chains_of_one_program_stop_together():
    together, found = kl.StopTogether(), []

    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        sampler = kl.PosteriorSampler(burn_in=2, chain=chain)
        found.append(run(sampler, held_out=HELD, together=together, **EASY))
        return sampler

    ensemble = kl.sample_chains(train_fn, 3, vectorized=True, verbose=0)
    np.testing.assert_array_equal(np.bincount(ensemble.chains), [17] * 3)  # the others' 16
    for name in NAMES:
        assert len({history[name][-1] for history in found}) == 1
    members = ensemble.predict_members(X[TRAIN:], verbose=0)
    draws = [c[:16].reshape(16, -1) for c in ensemble.split_chains(members)]
    chosen = np.linspace(0, draws[0].shape[1] - 1, 100).astype(int)
    expected = np.median(kl.diagnostics.r_hat([d[:, chosen] for d in draws]))
    assert found[0]["val_r_hat"][-1] == pytest.approx(expected, rel=1e-3)


# ------------------------------------------------------------------------------------- misuse


@pytest.mark.neutral
def test_misuse_is_named():
    sampler = kl.PosteriorSampler(burn_in=1)
    with pytest.raises(ValueError, match="sampler=None"):
        kl.StopWhenEnough(None)
    with pytest.raises(ValueError, match=r"`max_r_hat` must be None or >= 1. Received: .*0.9"):
        kl.StopWhenEnough(sampler, max_r_hat=0.9)
    with pytest.raises(ValueError, match=r"`together` must be None or a `kl.StopTogether`"):
        kl.StopWhenEnough(sampler, together=[])
    with pytest.raises(ValueError, match="before its `StopWhenEnough`"):
        callbacks = [kl.StopWhenEnough(sampler, HELD), sampler]
        classifier().fit(X[:TRAIN], CLASSES[:TRAIN], callbacks=callbacks, verbose=0)


@pytest.mark.neutral
def test_too_few_examples_and_no_likelihood_are_named():
    few = tuple(a[:20] for a in HELD)
    with pytest.raises(ValueError, match=r"at least 30 validation examples.*Received: 20"):
        run(kl.PosteriorSampler(burn_in=0), held_out=few)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(kl.SGLD(0.01, num_data=TRAIN), lambda y, p: keras.ops.mean((y - p) ** 4))
    with pytest.raises(ValueError, match="What the outputs of the model mean must be known"):
        run(kl.PosteriorSampler(burn_in=0), model, NUMBERS)
    chain = Chain(kl.StopTogether())
    chain.together.held_out(chain).weights = ()
    with pytest.raises(ValueError, match="a loss whose likelihood is known"):
        epochs_run(chain)
