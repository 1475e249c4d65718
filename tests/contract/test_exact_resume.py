"""A run that was stopped, at any moment, goes on to the same samples, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from targets import resume_run
from targets.resume_run import EPOCHS, assert_same, fresh, interrupted

import keras_langevin as kl

TESTS = Path(__file__).parents[1]
BACKEND = keras.backend.backend()
QUICK = ("QDOPLangevin",)


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.law) for n in resume_run.RESUMING],
)
def test_a_run_stopped_inside_epochs(tmp_path, name):
    fresh(seed=0)
    whole = resume_run.run(tmp_path / "whole", EPOCHS, name=name)
    resumed = interrupted(tmp_path / "stopped", [14, 9, 3], name=name)
    assert_same(resumed, whole)
    assert (
        len({s["dense/kernel" if "dense/kernel" in s else next(iter(s))].sum() for s in whole}) > 2
    )


@pytest.mark.skipif(BACKEND == "tensorflow", reason="the order of arrays is in TensorFlow's graph")
def test_shuffled_arrays(tmp_path):
    fresh(seed=0)
    whole = resume_run.run(tmp_path / "whole", EPOCHS, shuffled_arrays=True)
    resumed = interrupted(tmp_path / "stopped", [14, 9], shuffled_arrays=True)
    assert_same(resumed, whole)


def test_samples_at_steps_within_epochs(tmp_path):
    arguments = {"unit": "step", "burn_in": 5, "thinning": 4}
    fresh(seed=0)
    whole = resume_run.run(tmp_path / "whole", EPOCHS, **arguments)
    assert_same(interrupted(tmp_path / "stopped", [14, 9, 3], **arguments), whole)


@pytest.mark.neutral
def test_what_a_run_without_the_generators_states_would_be(tmp_path, monkeypatch):
    """The mutant: noise and order begin anew."""
    from keras_langevin.storage import training_checkpoint

    fresh(seed=0)
    whole = resume_run.run(tmp_path / "whole", EPOCHS)
    monkeypatch.setattr(training_checkpoint, "set_random_state", lambda arrays: None)
    resumed = interrupted(tmp_path / "stopped", [14])
    with pytest.raises(AssertionError):
        assert_same(resumed, whole)


def test_random_batches_go_on_at_an_epoch():
    x, y = resume_run.data()
    one, other = (kl.RandomBatches(x, y, 7, seed=3) for _ in range(2))
    one.on_epoch_end()
    one.on_epoch_end()
    other.set_epoch(2)
    np.testing.assert_array_equal(one[1][0], other[1][0])
    with pytest.raises(ValueError, match="epoch=-1"):
        other.set_epoch(-1)


def kill_and_resume(folder, epochs, kills, generator, name="SGLD"):
    """Starts the run and kills it, again and again, `kills` times in training; then lets it end.
    Returns how many samples had been committed at each kill."""
    committed = []
    while len(committed) < kills:
        # What a checkpoint does not hold yet is the seed's; afterwards another one must not matter.
        with start(folder, epochs, name, seed=len(committed)) as process:
            assert process.stdout.readline().strip() == "ready"
            time.sleep(generator.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
        manifest = Path(folder) / "manifest.json"
        committed.append(len(kl.SampleStore.load(folder)) if manifest.exists() else 0)
    run_to_the_end(folder, epochs, name, seed=1000)
    return committed


def run_to_the_end(folder, epochs, name, seed):
    with start(folder, epochs, name, seed) as process:
        process.communicate()
    assert process.returncode == 0


def start(folder, epochs, name, seed):
    run = [sys.executable, "-m", "targets.resume_run", str(folder), str(epochs), name, str(seed)]
    return subprocess.Popen(run, env=os.environ, cwd=TESTS, stdout=subprocess.PIPE, text=True)


@pytest.mark.law
def test_killed_at_random_moments(tmp_path):
    epochs = 60
    run_to_the_end(tmp_path / "whole", epochs, "QDOPLangevin", seed=0)
    generator = np.random.default_rng(0)
    committed = kill_and_resume(tmp_path / "killed", epochs, 3, generator, "QDOPLangevin")
    assert committed == sorted(committed) and committed[-1] > 0  # nothing is lost
    whole, killed = (kl.SampleStore.load(tmp_path / name) for name in ("whole", "killed"))
    assert_same(killed, whole)
