"""A chain that diverges in burn-in at the rate of "auto" goes on at a smaller one."""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_langevin as kl
from keras_langevin.learning_rate.limits import StepSize

ROWS, BATCH, EPOCHS, BURN_IN = 240, 12, 8, 5
DIVERGED = r"The chain diverged in burn-in"
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{words}")
    for words in ("Minibatches of about", "The drift was", "The training loss", "No likelihood")
]


@pytest.fixture
def too_large(monkeypatch):
    """Has "auto" take so many times what it finds."""
    right = StepSize.recommended_for

    def multiply_by(factor):
        monkeypatch.setattr(StepSize, "recommended_for", lambda *args: factor * right(*args))

    return multiply_by


def walled(y_true, y_pred):
    """Half the squared error where predictions stay, infinite further out."""
    return 0.5 * (y_true - y_pred) ** 2 * ops.where(ops.abs(y_pred) > 8.0, np.inf, 1.0)


def linear(optimizer=kl.SGLD):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3)).astype("float32")
    y = x.sum(axis=1, keepdims=True) + 0.1 * rng.normal(size=(ROWS, 1)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer(num_data=ROWS), walled)
    return model, x, y


def sampled(sampler, **options):
    model, x, y = linear(**options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = model.fit(x, y, BATCH, EPOCHS, 0, [sampler]).history
    return history, [str(w.message) for w in caught if DIVERGED in str(w.message)]


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_it_goes_on_at_a_tenth(too_large, unit):
    length = 1 if unit == "epoch" else ROWS // BATCH
    _, said = sampled(kl.PosteriorSampler(BURN_IN * length, length, unit))
    assert not said
    too_large(1000.0)
    sampler = kl.PosteriorSampler(BURN_IN * length, length, unit)
    history, said = sampled(sampler)
    assert len(said) == 3
    limit = kl.diagnostics.step_size(sampler.model, *linear()[1:], BATCH).stability_limit
    assert history["learning_rate"][-1] < limit
    assert np.isfinite(history["loss"][-1])
    assert len(sampler.samples) == EPOCHS - BURN_IN
    assert all(np.isfinite(a).all() for sample in sampler.samples for a in sample.values())


def test_it_gives_up_after_the_third_time(too_large):
    too_large(1e9)
    with pytest.raises(FloatingPointError, match="must stay finite"):
        sampled(kl.PosteriorSampler(BURN_IN))


def test_samples_are_never_drawn_on_the_way_back(too_large):
    too_large(1000.0)
    with pytest.raises(FloatingPointError, match="must stay finite"):
        sampled(kl.PosteriorSampler(0))


def test_a_rate_of_ones_own_is_left():
    with pytest.raises(FloatingPointError, match="must stay finite"):
        sampled(kl.PosteriorSampler(BURN_IN), optimizer=functools.partial(kl.SGLD, 30.0))


def test_the_state_is_that_of_the_beginning_of_the_epoch(too_large):
    """Weights, momentum and metric; else it would go on from where it was thrown to."""
    too_large(1e6)
    states = {}

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            variables = [*self.model.trainable_variables, *self.model.optimizer.variables]
            states[epoch] = {v.path: np.array(ops.convert_to_numpy(v)) for v in variables}

    model, x, y = linear(kl.SGHMC)
    with pytest.warns(UserWarning, match=DIVERGED):
        model.fit(x, y, BATCH, 2, 0, [kl.PosteriorSampler(2), Look()])
    for name, value in states[0].items():
        if "learning_rate" not in name:
            np.testing.assert_array_equal(states[1][name], value, err_msg=name)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="chains as one program: JAX")
def test_chains_of_one_program_back_off(too_large):
    too_large(1000.0)

    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        sampler = kl.PosteriorSampler(BURN_IN)
        model, x, y = linear()
        model.fit(x, y, BATCH, EPOCHS, 0, [sampler])
        return sampler

    with pytest.warns(UserWarning, match=DIVERGED):
        ensemble = kl.sample_chains(train_fn, 2, vectorized=True, verbose=0, output="values")
    x, y = linear()[1:]
    assert ensemble.evaluate(x, y, verbose=0, return_dict=True)["loss"] < 0.1
