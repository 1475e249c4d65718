"""Where chains run: what is refused, what is tried again, and processes that die."""

import collections
import concurrent.futures
import multiprocessing
import os
import pickle
import threading
from concurrent.futures.process import BrokenProcessPool

import keras
import numpy as np
import pytest
from targets.chain_runs import Dying, Fitted, mark_and_processes, set_mark

from keras_langevin.sampling import chain_executors
from keras_langevin.sampling.chain_executors import OneProcessEach, checked_executor, run_chains
from keras_langevin.sampling.chain_progress import ChainProgress
from keras_langevin.sampling.chains import ChainError, sample_chains
from keras_langevin.storage.sample_store import SampleStore

BACKEND = keras.backend.backend()
QUIET = ChainProgress(0, None, verbose=0)


def processes(number, method="spawn", **kwargs):
    context = multiprocessing.get_context(method)
    return concurrent.futures.ProcessPoolExecutor(number, mp_context=context, **kwargs)


def drawn(chain, context=None):
    """A model and samples without training."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    return model, [[np.full((3, 1), chain), np.zeros(1)]] * 2


class Failing:
    """A `train_fn` that fails in the first tries of some chains.

    Args:
        times: From the number of a chain to how many.
    """

    def __init__(self, times):
        self.times, self.tries, self.lock = times, collections.Counter(), threading.Lock()

    def __call__(self, chain):
        with self.lock:
            self.tries[chain] += 1
        if self.tries[chain] <= self.times.get(chain, 0):
            raise OSError(f"failure {self.tries[chain]} of chain {chain}")
        return drawn(chain)


# ------------------------------------------------------------------------- chains that fail


@pytest.mark.neutral
@pytest.mark.parametrize("threads", [None, 3])
def test_a_chain_that_fails_is_tried_again(threads, capsys):
    executor = threads and concurrent.futures.ThreadPoolExecutor(threads)
    train_fn = Failing({1: 2, 2: 1})
    ensemble = sample_chains(train_fn, 4, executor, retries=2, output="logits")
    np.testing.assert_array_equal(ensemble.chains, [0, 0, 1, 1, 2, 2, 3, 3])
    assert train_fn.tries == {0: 1, 1: 3, 2: 2, 3: 1}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    failed = "Chain 1: failed, OSError: failure {} of chain 1; tried again ({} of 2 retries)"
    assert failed.format(1, 1) in lines and failed.format(2, 2) in lines
    assert lines[-1].endswith("(4 of 4 chains)")


@pytest.mark.neutral
@pytest.mark.parametrize("threads", [None, 3])
def test_a_chain_is_tried_no_more_often_than_said(threads):
    executor = threads and concurrent.futures.ThreadPoolExecutor(threads)
    train_fn = Failing({1: 3})
    with pytest.raises(ChainError, match="- chain 1: OSError: failure 3 of chain 1") as caught:
        sample_chains(train_fn, 3, executor, retries=2, verbose=0)
    assert train_fn.tries == {0: 1, 1: 3, 2: 1} and caught.value.chains == [0, 0, 2, 2]


@pytest.mark.neutral
def test_an_executor_that_takes_nothing_fails_the_chains_it_does_not_run():
    class Closing(concurrent.futures.ThreadPoolExecutor):
        def submit(self, function, *args):
            future = super().submit(function, *args)
            if args[0] == 1:
                self.shutdown()
            return future

    with pytest.raises(ChainError, match="- chain 2: RuntimeError: cannot schedule") as caught:
        sample_chains(drawn, 3, Closing(1), retries=1, verbose=0)
    assert caught.value.chains == [0, 0, 1, 1]


# ----------------------------------------------------------------------- processes that die


@pytest.mark.neutral
def test_a_death_ends_no_healthy_chain(tmp_path):
    """Of four chains in two processes one dies whenever it is run."""
    run = Dying(tmp_path, 1, deaths=9, others=(0,))
    with processes(2) as executor:
        results, errors = run_chains(run, 4, executor, retries=2, progress=QUIET)
    assert sorted(results) == [0, 2, 3] and list(errors) == [1]
    assert isinstance(errors[1], BrokenProcessPool)
    tries = collections.Counter(int(file.name[0]) for file in tmp_path.iterdir())
    assert tries[1] == 3  # as said: the break of the shared pool is the first
    assert max(tries[number] for number in (0, 2, 3)) <= 2  # and the only one for the others


@pytest.mark.neutral
def test_a_chain_whose_process_died_is_tried_again(tmp_path):
    with processes(1) as executor:
        results, errors = run_chains(Dying(tmp_path, 1, deaths=1), 3, executor, 1, QUIET)
    assert sorted(results) == [0, 1, 2] and not errors
    assert len({result.value for result in results.values()} | {os.getpid()}) == 4


@pytest.mark.neutral
def test_without_retries_what_has_finished_is_kept(tmp_path):
    with processes(1) as executor:
        results, errors = run_chains(Dying(tmp_path, 1, deaths=1), 3, executor, 0, QUIET)
        assert list(results) == [0] and sorted(errors) == [1, 2]
        # It is broken now, and replaced where that is asked for.
        assert len(run_chains(Dying(tmp_path, 0, 0), 2, executor, 0, QUIET)[1]) == 2
        assert not run_chains(Dying(tmp_path, 0, 0), 2, executor, 1, QUIET)[1]


@pytest.mark.neutral
def test_a_replaced_pool_is_of_the_same_kind():
    like = processes(2, initializer=set_mark, initargs=("set",))
    with OneProcessEach(like) as executor:
        found = [future.result() for future in [executor.submit(mark_and_processes) for _ in "ab"]]
    assert {(mark, parent) for mark, _, parent in found} == {("set", os.getpid())}
    assert len({pid for _, pid, _ in found}) == 2
    with OneProcessEach(processes(3)) as executor:
        assert executor._threads._max_workers == 3
        assert executor._options["mp_context"].get_start_method() == "spawn"


@pytest.mark.slow
def test_a_chain_whose_worker_was_killed_goes_on_from_its_folder(tmp_path):
    """Without retries, then by the same call; and in one call."""
    words = r"With `retries=1` they are run again\.\nWhat .* is kept in '.*run'"
    with processes(1) as executor, pytest.raises(ChainError, match=words) as caught:
        sample_chains(Fitted(kills=(1,)), 3, executor, directory=tmp_path / "run", verbose=0)
    assert caught.value.chains == [0] * 4
    assert all(isinstance(caught.value.errors[n], BrokenProcessPool) for n in (1, 2))
    assert len(SampleStore.load(tmp_path / "run" / "chain-1")) == 2

    kills = Fitted(kills=(1,))
    with processes(1) as executor:
        ensemble = sample_chains(
            kills, 3, executor, directory=tmp_path / "retried", retries=1, verbose=0
        )
    np.testing.assert_array_equal(ensemble.chains, np.repeat([0, 1, 2], 4))
    expected = sample_chains(Fitted(), 3, directory=tmp_path / "run", verbose=0)
    x = np.eye(3)
    np.testing.assert_allclose(
        ensemble.predict_members(x, verbose=0), expected.predict_members(x, verbose=0), atol=1e-6
    )


# ------------------------------------------------------------------------- what is accepted


@pytest.mark.skipif(BACKEND == "torch", reason="torch survives a fork")
def test_a_fork_after_a_backend_has_run_is_refused():
    keras.layers.Dense(1).build((None, 1))
    name = {"jax": "JAX", "tensorflow": "TensorFlow"}[BACKEND]
    with (
        processes(1, "fork") as executor,
        pytest.raises(ValueError, match=rf"Received: .*'fork', after .*{name}.*Use .*spawn"),
    ):
        sample_chains(drawn, 2, executor)
    for method in ("spawn", "forkserver"):
        with processes(1, method) as executor:
            assert checked_executor(executor) is executor


@pytest.mark.neutral
def test_a_fork_before_any_backend_has_run_is_accepted(monkeypatch):
    monkeypatch.setattr(chain_executors, "_backends_with_threads", list)
    with processes(1, "fork") as executor:
        assert checked_executor(executor) is executor


class Memory(concurrent.futures.Executor):
    """As Dask's: a call that it takes for pure is run once."""

    def __init__(self, pure=True):
        self.pure, self.known = pure, {}

    def submit(self, function, *args):
        key = pickle.dumps(args) if self.pure else object()
        if key not in self.known:
            self.known[key] = concurrent.futures.Future()
            try:
                self.known[key].set_result(function(*args))
            except Exception as error:
                self.known[key].set_exception(error)
        return self.known[key]


class KilledWorker(Exception):
    """As Dask raises it."""


class FakeClient:
    def __init__(self):
        self.asked = []

    def get_executor(self, **kwargs):
        self.asked.append(kwargs)
        return Memory(**kwargs)


@pytest.mark.neutral
@pytest.mark.parametrize("executor", [FakeClient(), Memory()])
def test_a_dask_client_is_an_executor(executor):
    tries = collections.Counter()

    def train_fn(chain):
        tries[chain] += 1
        if chain == 1 and tries[chain] == 1:
            raise KilledWorker("the worker has died 4 times")
        return drawn(chain)

    ensemble = sample_chains(train_fn, 3, executor, retries=1, verbose=0, output="logits")
    np.testing.assert_array_equal(ensemble.chains, [0, 0, 1, 1, 2, 2])
    assert tries == {0: 1, 1: 2, 2: 1}
    if isinstance(executor, FakeClient):
        assert executor.asked == [{"pure": False}]


class FailingOnce:
    """A `train_fn` that can be sent: its chain 1 fails where no file tells of a try before."""

    def __init__(self, file):
        self.file = file

    def __call__(self, chain):
        if chain == 1 and not self.file.exists():
            self.file.touch()
            raise OSError("failure of chain 1")
        return drawn(chain)


@pytest.mark.neutral
@pytest.mark.filterwarnings("ignore")  # whatever Dask has to say
def test_a_real_dask_client(tmp_path):
    distributed = pytest.importorskip("dask.distributed")
    cluster = {"processes": False, "n_workers": 1, "threads_per_worker": 1}
    with distributed.Client(**cluster, dashboard_address=None) as client:
        for executor in (client, client.get_executor()):
            train_fn = FailingOnce(tmp_path / type(executor).__name__)
            ensemble = sample_chains(train_fn, 3, executor, retries=1, verbose=0, output="logits")
            np.testing.assert_array_equal(ensemble.chains, [0, 0, 1, 1, 2, 2])
            assert train_fn.file.exists()


@pytest.mark.neutral
def test_what_is_no_executor_is_refused():
    for wrong in (4, "spawn", FakeClient, concurrent.futures.ThreadPoolExecutor):
        with pytest.raises(ValueError, match=r"`dask\.distributed\.Client`.*Received: executor="):
            sample_chains(drawn, 2, wrong)
    for wrong in (-1, 1.5, None, True):
        with pytest.raises(ValueError, match="Received: retries="):
            sample_chains(drawn, 2, retries=wrong)
