"""Chains with folders: a run that was stopped goes on, and samples come back by their path."""

import concurrent.futures
import pickle
from pathlib import Path

import keras
import numpy as np
import pytest
from targets.chain_runs import Fitted
from targets.store_cases import is_locked

import keras_langevin as kl
from keras_langevin.sampling.chain_folders import ChainContext, ChainFolders
from keras_langevin.sampling.chains import ChainError, sample_chains
from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.storage.sample_store import CorruptSampleError, SampleStore

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]


class Pickling(concurrent.futures.Executor):
    """Sends results as another process would."""

    def __init__(self):
        self.sizes, self.folders = [], []

    def submit(self, function, *args):
        future = concurrent.futures.Future()
        try:
            sent = pickle.dumps(function(*args))
            self.sizes.append(len(sent))
            future.set_result(pickle.loads(sent))
            self.folders.append(future.result().folder)
        except Exception as error:
            future.set_exception(error)
        return future


def interrupt():
    raise OSError("power cut")


def drawn(chain, context=None):
    """A model and samples without training."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    return model, [model.get_weights()] * 2


def samples(directory, chain):
    """Of a chain, as in its folder: an array `(draws, weights)`."""
    store = SampleStore.load(directory / f"chain-{chain}")
    return np.stack([np.concatenate([a.ravel() for a in one.values()]) for one in store])


def members(ensemble):
    """The same of each chain of an ensemble."""
    return ensemble.split_chains(ensemble.predict_members(np.eye(3), verbose=0))


@pytest.mark.neutral
def test_every_chain_has_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contexts = []

    def train_fn(chain, context):
        contexts.append(context)
        return drawn(chain)

    ensemble = sample_chains(train_fn, 2, directory="run", verbose=0, output="logits")
    np.testing.assert_array_equal(ensemble.chains, [0, 0, 1, 1])
    assert [c.number for c in contexts] == [0, 1]
    expected = [tmp_path / "run" / f"chain-{number}" for number in range(2)]
    assert [c.directory for c in contexts] == expected  # also for workers that stand elsewhere
    assert not list((tmp_path / "run").iterdir())  # nothing but what `train_fn` writes


@pytest.mark.neutral
def test_the_context_makes_the_sampler(tmp_path):
    context = ChainContext(3, tmp_path / "chain-3")
    sampler = context.sampler(5, thinning=2, max_samples=4)
    assert isinstance(sampler, PosteriorSampler)
    assert (sampler.burn_in, sampler.thinning, sampler.max_samples) == (5, 2, 4)
    assert sampler.chain == 3 and sampler.samples.directory == tmp_path / "chain-3"
    for wrong in ({"number": -1, "directory": "x"}, {"number": 0, "directory": 3}):
        with pytest.raises(ValueError, match="Received"):
            ChainContext(**wrong)


def test_the_same_program_goes_on_where_it_was_stopped(tmp_path):
    whole = sample_chains(Fitted(), 3, directory=tmp_path / "whole", verbose=0)
    run = tmp_path / "run"
    stopped = Fitted(kills=(1,), end=interrupt)
    with pytest.raises(ChainError, match="power cut\nWhat these have stored is kept in") as caught:
        sample_chains(stopped, 3, directory=run, verbose=0)
    assert caught.value.chains == [0] * 4 + [2] * 4 and len(samples(run, 1)) == 2
    assert not is_locked(run / "chain-1")  # another process may go on with it
    again = Fitted(kills=(1,), end=interrupt)
    ensemble = sample_chains(again, 3, directory=run, verbose=0)
    assert [seen[:3] for seen in again.seen] == [(0, 4, 4), (1, 2, 4), (2, 4, 4)]
    for chain in range(3):
        np.testing.assert_array_equal(samples(run, chain), samples(tmp_path / "whole", chain))
    np.testing.assert_array_equal(members(ensemble), members(whole))


def test_a_chain_that_was_complete_goes_on_when_more_is_asked_for(tmp_path):
    sample_chains(Fitted(2), 1, directory=tmp_path, verbose=0)
    longer = Fitted(3)
    ensemble = sample_chains(longer, 1, directory=tmp_path, verbose=0)
    assert longer.seen[0][:3] == (0, 2, 3) and len(ensemble.chains) == 3


def test_other_networks_of_the_process_do_not_change_the_names_that_are_stored(tmp_path):
    sample_chains(Fitted(2), 1, directory=tmp_path, verbose=0)
    before = keras.layers.Dense(1).name
    sample_chains(Fitted(3), 1, directory=tmp_path, verbose=0)
    assert keras.layers.Dense(1).name not in (before, "dense")  # its own names go on


def test_another_process_may_go_on_while_this_one_has_the_sampler(tmp_path):
    fitted = Fitted(2)
    sample_chains(fitted, 1, directory=tmp_path, verbose=0)
    sampler = fitted.seen[0][-1]
    assert not is_locked(tmp_path / "chain-0")
    sampler.samples.append(sampler.samples[0])  # it may write as well
    assert is_locked(tmp_path / "chain-0") and len(samples(tmp_path, 0)) == 3


def test_samples_come_back_by_path_where_the_disk_is_shared(tmp_path, monkeypatch):
    shared = Pickling()
    by_path = sample_chains(Fitted(40), 2, shared, directory=tmp_path, verbose=0)
    monkeypatch.setattr(ChainFolders, "are_shared", lambda folders: False)
    sent = Pickling()
    by_arrays = sample_chains(Fitted(40), 2, sent, directory=tmp_path, verbose=0)
    np.testing.assert_array_equal(members(by_path), members(by_arrays))
    assert all(a + 40 * 4 * 4 < b for a, b in zip(shared.sizes, sent.sizes, strict=True))
    monkeypatch.undo()
    folders = ChainFolders(tmp_path, "another")
    assert not folders.are_shared()
    (tmp_path / "another").touch()
    assert folders.are_shared()


class Spoiling(Pickling):
    """Changes the folder of chain 0 between the worker and this process."""

    def __init__(self, spoil):
        super().__init__()
        self.spoil = spoil

    def submit(self, function, *args):
        future = super().submit(function, *args)
        if args[0] == 0 and future.exception() is None:
            self.spoil(future.result().folder)
        return future


def _damage(folder):
    next(folder.glob("sample-*.npz")).write_bytes(b"")


def _thin(folder):
    SampleStore.load(folder).thin()


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [(_damage, CorruptSampleError, "as they were"), (_thin, ValueError, "2 samples. Received: 1")],
)
def test_a_folder_that_is_not_as_the_chain_left_it_is_the_failure_of_that_chain(
    spoil, kind, words, tmp_path
):
    with pytest.raises(ChainError, match=words) as caught:
        sample_chains(Fitted(2), 2, Spoiling(spoil), directory=tmp_path, verbose=0)
    assert type(caught.value.errors[0]) is kind and list(caught.value.errors) == [0]
    assert caught.value.chains == [1, 1]


def test_samples_elsewhere_and_pairs_are_sent(tmp_path):
    def train_fn(chain, context):
        if chain == 2:
            return Fitted(2)(chain, context)
        sampler = Fitted(2)(chain, ChainContext(chain, tmp_path / f"other-{chain}"))
        return sampler if chain == 0 else (sampler.model, sampler.samples)

    executor = Pickling()
    ensemble = sample_chains(train_fn, 3, executor, directory=tmp_path / "run", verbose=0)
    assert executor.folders == [None, None, tmp_path / "run" / "chain-2"]
    np.testing.assert_array_equal(ensemble.chains, [0, 0, 1, 1, 2, 2])


@pytest.mark.neutral
def test_what_cannot_be_run_is_refused_before_any_chain(tmp_path):
    with pytest.raises(ValueError, match=r"and a `kl\.ChainContext`.*train_fn\(chain\)"):
        sample_chains(lambda chain: 1 / 0, 1, directory=tmp_path)
    with pytest.raises(ValueError, match=r"train_fn\(chain, context\) with directory=None"):
        sample_chains(lambda chain, context: 1 / 0, 1)
    with pytest.raises(ValueError, match="directory=3"):
        sample_chains(drawn, 1, directory=3)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="Received the file: directory="):
        sample_chains(drawn, 1, directory=file)
    with pytest.raises(kl.StorageError, match="The folder of the chains must be written"):
        sample_chains(drawn, 1, directory=file / "run")


@pytest.mark.neutral
def test_marks_that_a_kill_has_left_are_removed(tmp_path):
    (tmp_path / ".shared-0").touch()
    found = []

    def train_fn(chain, context):
        found.extend(Path(tmp_path).glob(".shared-*"))
        return drawn(chain)

    sample_chains(train_fn, 1, directory=tmp_path, verbose=0, output="logits")
    assert len(found) == 1 and found[0].name != ".shared-0"
    assert not list(tmp_path.iterdir())
