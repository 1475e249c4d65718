"""Where chains run, and which of them are tried again."""

from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool

import keras

from keras_langevin import arguments
from keras_langevin.sampling.chain_progress import ChainProgress
from keras_langevin.sampling.chain_results import ChainResult

# ------------------------------------------------------------------------- what is accepted


def checked_executor(executor):
    """An executor, also of a Dask client, or None; one that would hang is refused."""
    if executor is None:
        return None
    if not isinstance(executor, concurrent.futures.Executor):
        executor = _executor_of_client(executor)
    if isinstance(executor, concurrent.futures.ProcessPoolExecutor):
        _refuse_fork(executor)
    return executor


def _executor_of_client(client):
    """Of a `dask.distributed.Client`, which is known by what it can do."""
    get_executor = getattr(client, "get_executor", None)
    if callable(get_executor) and not isinstance(client, type):
        return get_executor(pure=False)  # or Dask gives a second try the result of the first
    raise ValueError(
        "`executor` must be a `concurrent.futures.Executor`, a `dask.distributed.Client`, or "
        f"None. Received: executor={arguments.shorten(client)}."
    )


def _refuse_fork(executor):
    start_method = executor._mp_context.get_start_method()
    running = _backends_with_threads()
    if start_method == "fork" and running:
        raise ValueError(
            "`executor` must start its processes by 'spawn' or 'forkserver' once a backend has "
            "computed in this process: its threads are missing in a fork, which then waits for "
            f"them for ever. Received: an executor with start method 'fork', after "
            f"{' and '.join(running)} ran here. Use `ProcessPoolExecutor(..., "
            'mp_context=multiprocessing.get_context("spawn"))`.'
        )


def check_vectorized(executor):
    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(
            "`vectorized=True` must come with Keras' JAX backend. Received: "
            f"backend={backend!r}. Set the environment variable KERAS_BACKEND=jax, or pass an "
            "`executor`."
        )
    if executor is not None:
        raise ValueError(
            "`vectorized=True` must come without an executor, since all chains are one program. "
            f"Received: executor={arguments.shorten(executor)}."
        )


def _backends_with_threads():
    """The backends that have run in this process and do not survive a fork of it."""
    found = []
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        found.append("JAX")
    eager = sys.modules.get("tensorflow.python.eager.context")
    context = None if eager is None else eager.context_safe()
    if context is not None and context._initialized:
        found.append("TensorFlow")
    return found


# -------------------------------------------------------------------------- the runs


def run_chains(
    run: Callable,
    num_chains: int,
    executor: concurrent.futures.Executor | None,
    retries: int,
    progress: ChainProgress,
    vectorized: bool = False,
) -> tuple[dict[int, ChainResult], dict[int, Exception]]:
    """The chains that have finished and the last errors of the others, by number.

    Args:
        run: `run(number, attempt)` gives a `ChainResult`.
        num_chains: How many.
        executor: Where they run; `None` for here, one after another.
        retries: How often a chain that has failed is tried again.
        progress: Is told what becomes of them.
        vectorized: Whether they are one program.
    """
    tries = _tries_here if executor is None else _tries_elsewhere
    tries = _tries_together if vectorized else tries
    results, errors = {}, {}
    for number, attempt, result in tries(run, num_chains, executor, retries, progress):
        if not isinstance(result, Exception):
            results[number] = result
            words = f"{result.num_samples} samples in {result.seconds:.1f} s"
        elif attempt < retries:
            again = f"tried again ({attempt + 1} of {retries} retries)"
            progress.say(f"Chain {number}: failed, {in_words(result)}; {again}")
            continue
        else:
            errors[number] = result
            words = f"failed, {in_words(result)}"
        progress.finish(f"Chain {number}: {words}")
    return results, errors


def in_words(error):
    return f"{type(error).__name__}: {error}"


def _tries_here(run, num_chains, executor, retries, progress) -> Iterator:
    """Triples of a number, which try it was, and what became of it."""
    for number in range(num_chains):
        for attempt in range(retries + 1):
            result = _result_or_error(run, number, attempt)
            yield number, attempt, result
            if not isinstance(result, Exception):
                break


def _tries_together(run, num_chains, executor, retries, progress) -> Iterator:
    """The same of chains that are one program."""
    from keras_langevin.sampling.vectorized import run_together  # which imports JAX

    left = list(range(num_chains))
    for attempt in range(retries + 1):
        ended = run_together(lambda number, attempt=attempt: run(number, attempt), left)
        results = [_result_or_error(_given, result) for result in ended]
        yield from ((number, attempt, result) for number, result in zip(left, results, strict=True))
        failed = [isinstance(result, Exception) for result in results]
        left = [number for number, again in zip(left, failed, strict=True) if again]
        if not left:
            return


def _given(result):
    if isinstance(result, Exception):
        raise result
    return result


def _tries_elsewhere(run, num_chains, executor, retries, progress) -> Iterator:
    """The same, in the order in which they end."""
    pool = _Pool(executor, is_replaced=retries > 0)
    try:
        pending = {pool.submit(run, number, 0): (number, 0) for number in range(num_chains)}
        while pending:
            ended, _ = concurrent.futures.wait(
                pending, progress.interval, concurrent.futures.FIRST_COMPLETED
            )
            progress.update()
            for future in ended:
                number, attempt = pending.pop(future)
                result = _result_or_error(future.result)
                yield number, attempt, result
                if isinstance(result, Exception) and attempt < retries:
                    pending[pool.submit(run, number, attempt + 1)] = number, attempt + 1
    finally:
        pool.close()


def _result_or_error(function, *args):
    try:
        return function(*args).read()
    except Exception as error:
        return error


class _Pool:
    """Submits to the executor that was given; to processes of their own, when that is broken."""

    def __init__(self, executor, is_replaced):
        self._executor, self._is_replaced, self._own = executor, is_replaced, None

    def submit(self, function, *args):
        """A future, which has failed already where the executor takes nothing any more."""
        try:
            return (self._own or self._executor).submit(function, *args)
        except Exception as error:
            is_broken_pool = isinstance(error, BrokenProcessPool) and isinstance(
                self._executor, concurrent.futures.ProcessPoolExecutor
            )
            if self._is_replaced and is_broken_pool and self._own is None:
                self._executor.shutdown()  # returns when the last of its processes has ended
                self._own = OneProcessEach(self._executor)
                return self._own.submit(function, *args)
            failed = concurrent.futures.Future()
            failed.set_exception(error)
            return failed

    def close(self):
        if self._own is not None:
            self._own.shutdown(cancel_futures=True)


class OneProcessEach(concurrent.futures.Executor):
    """Runs each call in a new process of its own, so that one that dies takes no other with it.

    Args:
        like: A `ProcessPoolExecutor`. There are as many processes at a time as it has, with its
            start method and initializer.
    """

    def __init__(self, like: concurrent.futures.ProcessPoolExecutor):
        self._options = {
            "max_workers": 1,
            "mp_context": like._mp_context,
            "initializer": like._initializer,
            "initargs": like._initargs,
        }
        self._threads = concurrent.futures.ThreadPoolExecutor(like._max_workers)

    def submit(self, function, /, *args):
        return self._threads.submit(self._call, function, *args)

    def _call(self, function, *args):
        with concurrent.futures.ProcessPoolExecutor(**self._options) as pool:
            return pool.submit(function, *args).result()

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
