"""A run that goes on where it was stopped is the run that was never stopped."""

import os

import keras
import pytest
from targets.restartable import restartable
from targets.sampler_runs import (
    NUM_DATA,
    assert_same,
    compiled,
    fit,
    fresh_model,
    network,
    snapshot,
    steps,
    with_adam,
)

from keras_langevin.optimizers import QDOPLangevin
from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.statistics import is_tracked
from keras_langevin.storage.sample_store import SampleStore
from keras_langevin.weights import named_weights


@pytest.fixture(autouse=True)
def fresh_session():
    """Compiled models live on."""
    keras.utils.set_random_seed(0)


def with_random_layers():
    return fresh_model(
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(0.3, seed=1, name="drop"),
    )


# New models, as in a new process, or the same one.
@pytest.mark.parametrize(
    ("unit", "begin"), [("epoch", with_random_layers), ("step", restartable(with_random_layers))]
)
def test_two_epochs_and_two_are_four(tmp_path, unit, begin):
    kinds = {"burn_in": 1, "thinning": 1 if unit == "epoch" else 4, "unit": unit}
    whole = PosteriorSampler(**kinds)
    model = begin()
    fit(model, whole, 4)
    expected = snapshot(model)

    fit(begin(), PosteriorSampler(**kinds, directory=tmp_path / "run"), 2)
    model = begin()
    sampler = PosteriorSampler(**kinds, directory=tmp_path / "run", resume=True)
    assert sampler.epochs_seen == 2
    fit(model, sampler, 4, initial_epoch=sampler.epochs_seen)

    assert sampler.epochs_seen == 4 and steps(sampler) == steps(whole)
    assert_same(snapshot(model), expected, rtol=1e-6, atol=1e-7)
    for one, other in zip(sampler.samples, whole.samples, strict=True):
        assert_same(one, other, rtol=1e-6, atol=1e-7)
    for variable in named_weights(model).values():
        variable.assign(variable * 0)
    fit(model, sampler, 4, initial_epoch=4)  # a second fit restores nothing
    assert not any(array.any() for array in snapshot(model).values())


def test_resume_after_a_crash_within_an_epoch_stores_no_position_twice(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 8:
                raise KeyboardInterrupt

    arguments = {"burn_in": 0, "thinning": 2, "unit": "step", "directory": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        fit(with_adam(), PosteriorSampler(**arguments), 2, callbacks=[Interrupt()])
    assert len(SampleStore.load(tmp_path / "run")) == 4
    sampler = PosteriorSampler(**arguments, resume=True)
    assert (sampler.epochs_seen, sampler.steps_seen) == (1, 5)
    fit(with_adam(), sampler, 2, initial_epoch=1)
    assert steps(sampler) == [2, 4, 6, 8, 10]


def test_resume_keeps_the_doubled_thinning(tmp_path):
    arguments = {"burn_in": 0, "max_samples": 2, "directory": tmp_path / "run"}
    fit(with_adam(), PosteriorSampler(**arguments), 3)
    sampler = PosteriorSampler(**arguments, resume=True)
    assert sampler.thinning == 2
    fit(with_adam(), sampler, 4, initial_epoch=3)
    assert steps(sampler) == [10, 20]


def test_resume_of_nothing_starts_a_run(tmp_path):
    for _ in range(2):
        sampler = PosteriorSampler(0, directory=tmp_path / "run", resume=True)
        assert sampler.epochs_seen == 0
    fit(with_adam(), sampler, 1)
    assert len(sampler.samples) == 1
    with pytest.raises(ValueError, match="`resume=True` must come with"):
        PosteriorSampler(0, resume=True)


def test_a_run_is_not_overwritten(tmp_path):
    fit(with_adam(), PosteriorSampler(9, directory=tmp_path / "run"), 1)  # burn-in only
    with pytest.raises(ValueError, match="resume=True"):
        PosteriorSampler(9, directory=tmp_path / "run")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "file").touch()
    with pytest.raises(ValueError, match=r"must hold a manifest\.json"):
        PosteriorSampler(9, directory=tmp_path / "notes", resume=True)


def test_resume_refuses_what_does_not_fit(tmp_path):
    fit(with_adam(), PosteriorSampler(0, 1, directory=tmp_path / "run"), 1)
    with pytest.raises(ValueError, match="burn_in=1, stored 0, thinning=2, stored 1"):
        PosteriorSampler(1, 2, directory=tmp_path / "run", resume=True)

    def resume(model):
        fit(model, PosteriorSampler(0, directory=tmp_path / "run", resume=True), 1)

    with pytest.raises(
        ValueError, match=r"'net/out/kernel' is \(3, 2\) float32, stored is \(3, 1\)"
    ):
        resume(compiled(model=network(units=2)))
    with pytest.raises(ValueError, match="'net/other/kernel' is not in the store"):
        resume(fresh_model(keras.layers.Dense(3, name="other")))
    with pytest.raises(ValueError, match="the optimizer is SGD, stored is Adam"):
        resume(compiled(optimizer=keras.optimizers.SGD(0.1, momentum=0.9)))
    with pytest.raises(ValueError, match="the optimizer must have the variables"):
        resume(compiled(optimizer=keras.optimizers.Adam(0.1, amsgrad=True)))


def test_a_damaged_checkpoint_is_refused(tmp_path):
    fit(with_adam(), PosteriorSampler(0, directory=tmp_path / "run"), 1)
    for file in ("checkpoint.json", "checkpoint-000001.npz"):
        assert_refused_when_damaged(tmp_path, file)


def assert_refused_when_damaged(tmp_path, file):
    path = tmp_path / "run" / file
    good = path.read_bytes()
    for damaged in (good[:-9], good[:300] + bytes([good[300] ^ 1]) + good[301:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{file}', and it"):
            PosteriorSampler(0, directory=tmp_path / "run", resume=True)
    path.write_bytes(good)
    assert PosteriorSampler(0, directory=tmp_path / "run", resume=True).epochs_seen == 1


def test_a_crash_while_the_checkpoint_is_written(tmp_path, monkeypatch):
    """The state of the epoch before is found, and only files that count remain afterwards."""
    run = tmp_path / "run"
    fit(with_adam(), PosteriorSampler(0, directory=run), 1)
    replace = os.replace

    def crash(source, target):
        if "checkpoint.json" in str(target):
            raise KeyboardInterrupt
        replace(source, target)

    sampler = PosteriorSampler(0, directory=run, resume=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.replace", crash)
        fit(with_adam(), sampler, 2, initial_epoch=1)
    assert (run / "checkpoint-000002.npz").exists()
    sampler = PosteriorSampler(0, directory=run, resume=True)
    assert sampler.epochs_seen == 1
    fit(with_adam(), sampler, 3, initial_epoch=1)
    assert steps(sampler) == [5, 10, 15]
    assert sorted(p.name for p in run.iterdir()) == [
        "checkpoint-000003.npz",
        "checkpoint.json",
        "manifest.json",
        "sample-000000.npz",
        "sample-000001.npz",
        "sample-000002.npz",
    ]


def test_probes_and_resume_with_a_sampling_optimizer(tmp_path):
    """The probes' values, the metric and the noise go on where they were."""

    def run(epochs, initial_epoch=0, **kwargs):
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        model = compiled(optimizer=QDOPLangevin(1e-3, num_data=NUM_DATA, seed=3))
        sampler = PosteriorSampler(0, **kwargs)
        fit(model, sampler, epochs, initial_epoch=initial_epoch)
        assert is_tracked(model) and list(sampler.samples[0]) == ["net/out/kernel", "net/out/bias"]
        return sampler.samples

    whole = run(3)
    run(1, directory=tmp_path / "run")
    resumed = run(3, 1, directory=tmp_path / "run", resume=True)
    assert [s.step for s in resumed] == [5, 10, 15]
    for one, other in zip(resumed, whole, strict=True):
        assert_same(one, other, rtol=1e-6, atol=1e-7)
