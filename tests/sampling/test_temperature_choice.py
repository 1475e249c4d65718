"""`kl.choose_temperature`: the highest temperature that held-out data do not speak against."""

import keras
import numpy as np
import pytest

import keras_langevin as kl

X = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
Y = X @ np.float32([[1.0], [-1.0]])


def fitted(spread, seed=1):
    """A sampler whose members spread so widely about the right weights."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(kl.SGLD(1e-9, num_data=40, seed=1), kl.losses.GaussianNLL(stddev=0.1))
    sampler = kl.PosteriorSampler(burn_in=0)
    rng = np.random.default_rng(seed)

    class Place(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            offset = spread * rng.normal(size=(2, 1))
            self.model.set_weights([np.float32([[1.0], [-1.0]]) + offset])

    model.fit(X, Y, 40, 8, verbose=0, callbacks=[Place(), sampler])
    return sampler


def test_the_best_temperature_wins_and_trying_ends_where_it_gets_worse(capsys):
    tried = []

    def train_fn(temperature):
        tried.append(temperature)
        return fitted({1.0: 2.0, 0.3: 0.01, 0.1: 5.0, 0.03: 0.01}[temperature])

    found = kl.choose_temperature(train_fn, (X, Y))
    assert found.temperature == 0.3 and tried == [1.0, 0.3, 0.1] == list(found.losses)
    assert found.losses[0.3] == min(found.losses.values())
    assert found.standard_errors[0.3] == 0 < found.standard_errors[1.0]
    loss = found.ensemble.evaluate(X, Y, verbose=0)
    assert found.losses[0.3] == pytest.approx(loss, rel=1e-4)
    assert capsys.readouterr().out.count("held-out NLL") == 3
    assert str(found).splitlines()[1].endswith("chosen")


def test_the_posterior_stays_where_nothing_speaks_against_it():
    """Two draws of the same spread differ by chance, here in favour of the lower temperature."""
    y = Y + 0.1 * np.random.default_rng(2).normal(size=Y.shape)
    seeds = {1.0: 5, 0.1: 7}
    found = kl.choose_temperature(lambda t: fitted(0.02, seeds[t]), (X, y), (1.0, 0.1), verbose=0)
    assert 0 < found.losses[1.0] - found.losses[0.1] < found.standard_errors[1.0]
    assert found.temperature == 1.0


def test_a_chain_that_diverges_is_no_choice():
    def train_fn(temperature):
        if temperature == 1.0:
            raise FloatingPointError("The loss is NaN.")
        return fitted(0.01)

    with pytest.warns(UserWarning, match="T = 1 diverged"):
        found = kl.choose_temperature(train_fn, (X, Y), (1.0, 0.1), verbose=0)
    assert found.temperature == 0.1 and found.losses[1.0] == np.inf
    with pytest.warns(UserWarning), pytest.raises(FloatingPointError, match="all temperatures"):
        kl.choose_temperature(train_fn, (X, Y), (1.0,), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, (X, Y)), "train_fn"),
        ((fitted, X), "pair of held-out"),
        ((fitted, (X, Y), (0.1, 1.0)), "from the highest to the lowest"),
        ((fitted, (X, Y), 1.0), "from the highest to the lowest"),
        ((fitted, (X, Y), (0.0,)), "temperatures"),
        ((lambda temperature: None, (X, Y)), "PosteriorSampler"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kl.choose_temperature(*arguments)
