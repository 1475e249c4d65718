"""A run that diverges stops, and nothing of it is stored."""

import keras
import numpy as np
import pytest
from targets.sampler_runs import NUM_DATA, compiled, fit, plain, steps

from keras_langevin.optimizers import QDOPLangevin
from keras_langevin.sampling.divergence import DivergenceGuard
from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.storage.sample_store import SampleStore


@pytest.fixture(autouse=True)
def fresh_session():
    """Compiled models live on."""
    keras.utils.set_random_seed(0)


def test_nonfinite_loss_stops_training_also_in_burn_in():
    model = plain()
    sampler = PosteriorSampler(2)
    fit(model, sampler, 3)
    with pytest.raises(FloatingPointError, match=r"loss=nan, at step 20.*1 samples stored before"):
        fit(model, sampler, 1, poison=True)
    assert len(sampler.samples) == 1
    with pytest.raises(FloatingPointError, match="learning_rate"):
        fit(plain(), PosteriorSampler(10), 1, poison=True)


def test_who_uses_auto_is_not_told_to_use_it():
    sampler = PosteriorSampler(1)
    fit(compiled(optimizer=QDOPLangevin(num_data=NUM_DATA)), sampler, 1)
    with pytest.raises(FloatingPointError, match=r'"auto" found it.*`fisher="model"`') as raised:
        DivergenceGuard(sampler).check(float("nan"))
    assert 'use `learning_rate="auto"`' not in str(raised.value)


def test_a_nonfinite_sample_is_never_stored(tmp_path):
    """The last batch makes the weights NaN: unit="step" meets them before the epoch ends."""
    sampler = PosteriorSampler(0, unit="step", directory=tmp_path / "run")
    with pytest.raises(
        FloatingPointError, match=r"NaN or infinity in net/out/kernel, net/out/bias"
    ):
        fit(plain(), sampler, 1, poison=True)
    assert steps(sampler) == [1, 2, 3, 4]
    assert len(SampleStore.load(tmp_path / "run")) == 4


def test_nonfinite_weights_with_a_finite_loss_are_not_checkpointed(tmp_path):
    class Broken(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            self.assign(variable, variable * np.float32("nan"))

    sampler = PosteriorSampler(5, directory=tmp_path / "run")
    with pytest.raises(FloatingPointError, match="net/out/kernel"):
        fit(compiled(optimizer=Broken(0.1)), sampler, 1, batch_size=NUM_DATA)
    assert not (tmp_path / "run" / "checkpoint.json").exists()
