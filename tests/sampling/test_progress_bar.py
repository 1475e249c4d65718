"""What the progress bar of `fit` shows of a sampler: little, and where the run is."""

import re

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers

import keras_langevin as kl

pytestmark = pytest.mark.timeout(120)
ROWS = 40


def fit(optimizer, callbacks=(), verbose=2, burn_in=2, unit="epoch", epochs=4):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3)).astype("float32")
    y = (x[:, :1] + 0.3 * rng.normal(size=(ROWS, 1))).astype("float32")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    sampler = kl.PosteriorSampler(burn_in=burn_in, unit=unit)
    return model.fit(
        x,
        y,
        batch_size=10,
        epochs=epochs,
        callbacks=[sampler, *callbacks],
        verbose=verbose,
    ).history


@pytest.mark.parametrize("own", [False, True])
def test_the_bar_shows_the_phase_and_what_is_not_normal(capsys, own):
    bars = [keras.callbacks.ProgbarLogger()] if own else []
    history = fit(kl.SGLD(0.01, num_data=ROWS), bars)
    printed = capsys.readouterr().out
    assert re.findall(r"Epoch .*", printed) == [
        "Epoch 1/4: burn-in, epoch 1 of 2",
        "Epoch 2/4: burn-in, epoch 2 of 2",
        "Epoch 3/4: sampling",
        "Epoch 4/4: sampling",
    ]
    assert "num_samples: 2.0000" in printed and "loss:" in printed
    hidden = {"learning_rate", "temperature", "nonfinite_steps", "noise_scale"}
    assert hidden < set(history)  # whole
    assert not any(name in printed for name in hidden)


def test_steps_of_burn_in(capsys):
    fit(kl.SGLD(0.01, num_data=ROWS), burn_in=6, unit="step", epochs=3)
    printed = re.findall(r"Epoch .*", capsys.readouterr().out)
    assert printed[1:] == ["Epoch 2/3: burn-in, step 5 of 6", "Epoch 3/3: sampling"]


class Ill(kl.SGLD):
    def sampler_logs(self):
        return {**super().sampler_logs(), "nonfinite_steps": 3.0, "drift_clipped": 0.02}

    def minibatch_noise(self, batch_size):
        return 0.9

    def kinetic_energies(self):
        return [9.0, 9.0]


def test_what_is_abnormal_is_shown(capsys):
    fit(Ill(0.01, num_data=ROWS))
    printed = capsys.readouterr().out
    assert "nonfinite_steps: 3" in printed and "drift_clipped: 0.02" in printed
    assert "kinetic_temperature: 9" in printed
    assert "minibatch_noise" not in printed and "_low" not in printed


def test_what_takes_time_before_the_first_epoch_is_said(capsys):
    fit(kl.SGLD(num_data=ROWS), epochs=2)
    printed = capsys.readouterr().out
    assert printed.index("measuring the learning rate") < printed.index("Epoch 1")
    fit(kl.SGLD(0.01, num_data=ROWS), epochs=2)
    assert "measuring" not in capsys.readouterr().out
    fit(kl.SGLD(num_data=ROWS), epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_fit_without_a_bar():
    assert "temperature" in fit(kl.SGLD(0.01, num_data=ROWS), verbose=0)
