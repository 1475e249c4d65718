"""One sampler in several trainings: it goes on with its chain, or says that it is another."""

import copy
import pickle

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers
from keras.initializers import Orthogonal

import keras_langevin as kl

N = 24
MUST_FOLLOW = r"must follow one chain.*Received: .*Make a new `kl.PosteriorSampler`"


def make_model(seed=0, num_data=N):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(2, name="hidden", kernel_initializer=Orthogonal(seed=seed)),
            layers.Dense(1, name="out"),
        ],
        name="net",
    )
    optimizer = kl.SGLD(0.01, num_data=num_data, seed=1)
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    return model


def fit(model, sampler, epochs=3):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 3)), rng.normal(size=(N, 1))
    model.fit(x, y, batch_size=N, epochs=epochs, verbose=0, callbacks=[sampler])


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_another_fit_goes_on_with_the_chain(unit):
    sampler, model = kl.PosteriorSampler(burn_in=2, unit=unit), make_model()
    for _ in range(2):
        fit(model, sampler)
    assert len(sampler.samples) == 4
    assert [facts["position"] for facts in sampler.samples.facts] == [3, 4, 5, 6]


@pytest.mark.neutral
@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_another_model_is_refused(unit):
    """A loop over folds with one sampler: layers are named, so that names and shapes agree."""
    sampler, model = kl.PosteriorSampler(burn_in=2, unit=unit), make_model()
    fit(model, sampler)
    with pytest.raises(ValueError, match=MUST_FOLLOW):
        fit(make_model(), sampler)
    assert len(sampler.samples) == 1
    assert sampler.model is model  # whose ensemble it still gives
    assert sampler.ensemble().num_members == 1
    fit(model, sampler)
    assert len(sampler.samples) == 4


@pytest.mark.neutral
def test_the_same_model_begun_again_is_refused():
    sampler, model = kl.PosteriorSampler(burn_in=0), make_model()
    start = model.get_weights()
    fit(model, sampler)
    model.set_weights(start)
    with pytest.raises(ValueError, match=MUST_FOLLOW):
        fit(model, sampler)


@pytest.mark.neutral
def test_another_optimizer_in_between_is_refused():
    sampler, model = kl.PosteriorSampler(burn_in=0), make_model()
    fit(model, sampler)
    langevin = model.optimizer
    model.compile("adam", "mse")
    fit(model, keras.callbacks.Callback())
    model.compile(langevin, "mse")
    with pytest.raises(ValueError, match=MUST_FOLLOW):
        fit(model, sampler)


@pytest.mark.filterwarnings("ignore:`num_data` must be:UserWarning")
@pytest.mark.neutral
def test_other_numbers_of_data_are_refused():
    sampler, model = kl.PosteriorSampler(burn_in=0), make_model()
    fit(model, sampler)
    model.compile(kl.SGLD(0.01, num_data=2 * N), "mse", jit_compile=JIT_IF_NEEDED)
    with pytest.raises(ValueError, match=r"num_data=48, after 3 epochs with num_data=24"):
        fit(model, sampler)


def test_a_chain_goes_on_in_a_model_with_the_same_weights():
    """Compiled anew, or loaded from a file."""
    sampler, model = kl.PosteriorSampler(burn_in=0), make_model()
    fit(model, sampler)
    other = make_model(seed=1)
    other.set_weights(model.get_weights())
    fit(other, sampler)
    other.compile(kl.SGLD(0.01, num_data=N), "mse", jit_compile=JIT_IF_NEEDED)
    fit(other, sampler)
    assert len(sampler.samples) == 9


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_chain_goes_on_after_an_interruption_and_in_no_other_model():
    sampler, model = kl.PosteriorSampler(burn_in=0), make_model()
    with pytest.raises(KeyboardInterrupt):
        fit_with(model, [sampler, Stop()])
    with pytest.raises(ValueError, match=MUST_FOLLOW):
        fit(make_model(), sampler)
    fit(model, sampler)
    assert len(sampler.samples) == 5


def fit_with(model, callbacks):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 3)), rng.normal(size=(N, 1))
    model.fit(x, y, batch_size=N, epochs=3, verbose=0, callbacks=callbacks)


def test_a_sampler_that_has_seen_nothing_takes_any_model():
    sampler = kl.PosteriorSampler(burn_in=0)
    with pytest.raises(RuntimeError, match="at once"):
        fit_with(make_model(), [sampler, AtOnce()])
    fit(make_model(seed=1), sampler)
    assert len(sampler.samples) == 3


class AtOnce(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        raise RuntimeError("at once")


# ------------------------------------------------------------------------------------ copies


@pytest.mark.neutral
@pytest.mark.parametrize("unit", ["epoch", "step"])
@pytest.mark.parametrize("is_used", [False, True])
def test_a_deep_copy_starts_empty(unit, is_used):
    sampler = kl.PosteriorSampler(burn_in=1, thinning=2, unit=unit, max_samples=3, chain=4)
    if is_used:
        fit(make_model(), sampler)
    first, second = copy.deepcopy([sampler, sampler])
    assert first is second
    assert not len(first.samples)
    assert (first.burn_in, first.thinning, first.unit) == (1, 2, unit)
    assert (first.max_samples, first.chain) == (3, 4)
    model = make_model(seed=2)
    fit(model, first)
    assert len(first.samples) == 1
    assert len(sampler.samples) == is_used
    np.testing.assert_array_equal(
        first.ensemble().origin.model.get_weights()[0], model.get_weights()[0]
    )


@pytest.mark.neutral
def test_an_automatic_burn_in_is_chosen_by_each_copy():
    sampler = kl.PosteriorSampler()
    fit(make_model(), sampler, epochs=2)
    copied = copy.deepcopy(sampler)
    fit(make_model(), copied, epochs=4)
    assert (sampler.burn_in, copied.burn_in) == (1, 2)


@pytest.mark.neutral
def test_copies_as_a_tuner_makes_them():
    """For each trial a copy of all callbacks, which belong together."""
    sampler = kl.PosteriorSampler(burn_in=1)
    callbacks = [sampler, kl.EnsembleValidation(sampler)]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 3)), rng.normal(size=(N, 1))
    for seed in range(2):
        model = make_model(seed)
        history = model.fit(
            x,
            y,
            batch_size=N,
            epochs=3,
            verbose=0,
            validation_data=(x, y),
            callbacks=copy.deepcopy(callbacks),
        )
        assert "val_ensemble_loss" in history.history
    with pytest.raises(ValueError, match=r"deep-copied.*HyperModel.fit"):
        sampler.ensemble()


@pytest.mark.neutral
def test_a_sampler_with_a_directory_is_not_copied(tmp_path):
    sampler = kl.PosteriorSampler(burn_in=1, directory=tmp_path / "run")
    with pytest.raises(ValueError, match=r"no deep copies.*directory=.*run.*HyperModel.fit"):
        copy.deepcopy(sampler)


def test_a_pickled_sampler_goes_on():
    sampler, model = kl.PosteriorSampler(burn_in=0), make_model()
    fit(model, sampler)
    loaded = pickle.loads(pickle.dumps(sampler))
    assert len(loaded.samples) == 3
    fit(model, loaded)
    assert len(loaded.samples) == 6
    with pytest.raises(ValueError, match=MUST_FOLLOW):
        fit(make_model(seed=3), loaded)
