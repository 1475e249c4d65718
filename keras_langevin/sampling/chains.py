"""Several chains, one after another or through an executor, as one ensemble."""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import os
import re
import warnings
from collections.abc import Callable

import keras

from keras_langevin import arguments, keras_arguments
from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.ensemble.options import checked_options
from keras_langevin.sampling.chain_executors import (
    check_vectorized,
    checked_executor,
    in_words,
    run_chains,
)
from keras_langevin.sampling.chain_folders import chain_folders
from keras_langevin.sampling.chain_progress import ChainProgress
from keras_langevin.sampling.chain_results import run_chain
from keras_langevin.weights import named_weights


def sample_chains(
    train_fn: Callable,
    num_chains: int,
    executor: concurrent.futures.Executor | None = None,
    *,
    directory: str | os.PathLike | None = None,
    retries: int = 0,
    model: keras.Model | None = None,
    on_error: str = "raise",
    vectorized: bool = False,
    verbose: int = 1,
    **kwargs,
) -> BayesianEnsembleModel:
    """Samples several chains of one posterior and joins them into one ensemble.

    `train_fn(chain)` builds a network, trains it to a start with any optimizer, samples from
    there, and returns its `kl.PosteriorSampler`. Networks that are trained apart and then
    sampled are a Bayesian deep ensemble (Sommer et al. 2024): between chains it knows several
    modes, within a chain one mode's width. With `kl.SMILE` and `batch_size=num_data` as the
    sampler these are microcanonical Langevin ensembles (MILE; Sommer et al. 2025).

    All chains are run, also after one has failed. In the ensemble all samples have the same
    weight, so chains count by their numbers of samples; members stand by chain, then by draw,
    whatever finished first.

    Args:
        train_fn: Function of the number of the chain, 0 to `num_chains - 1`; with `directory`
            also of a `kl.ChainContext`. Returns its `kl.PosteriorSampler`, or a pair
            `(model, samples)` as `kl.BayesianEnsembleModel` takes them. It must build the same
            network for every chain: weights are matched by their order, since automatic names
            differ (`dense_1` for `dense`), and shapes are compared.
        num_chains: Number of chains, >= 1.
        executor: Any `concurrent.futures.Executor`, or a `dask.distributed.Client`, which you
            shut down; `None` runs one chain after another in this process. See below.
        directory: Folder in which chain c has the folder `chain-<c>`, where the same call goes on
            when it was stopped. See below.
        retries: How often a chain is tried again that has failed, or whose process has died,
            >= 0. See below.
        model: A built model to put the samples into. Needed only where chains run in other
            processes and the network cannot be rebuilt from its Keras config. It must be
            compiled with the loss, or `output=` passed.
        on_error: What to do when chains fail: `"raise"` a `ChainError`, which has the samples
            of the others; or `"skip"` them with a warning.
        vectorized: Whether all chains are advanced by one compiled program, instead of one after
            another; see below. On JAX.
        verbose: 1 prints a line when a chain has finished; with `directory` and `executor` also
            how far all are that run, in a line that is replaced in a terminal, and elsewhere
            printed once a minute. 0 prints nothing.
        **kwargs: Passed on to `kl.BayesianEnsembleModel`.

    Returns:
        A `kl.BayesianEnsembleModel`. Its `chains` has the number of each member's chain, and
        `split_chains` parts predictions by chain, for `kl.diagnostics.r_hat`.

    Raises:
        ChainError: If a chain fails (with `on_error="skip"`: all of them), or the samples cannot
            be made an ensemble. A chain that diverged is one that failed; to keep what it
            stored before, catch its `FloatingPointError` in `train_fn` and return the sampler.
        ValueError: If an argument is not what is said above, or processes would be forked from
            one in which JAX or TensorFlow has run, which hangs.
        StorageError: If `directory` cannot be written (an `OSError`).

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype("float32")
    y = np.tanh(x[:, :1]) + 0.1 * rng.normal(size=(200, 1)).astype("float32")

    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)]
        )
        loss = kl.losses.GaussianNLL(stddev=0.1)
        model.compile("adam", loss)
        stop = keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)
        model.fit(x, y, epochs=100, validation_split=0.1, callbacks=[stop], verbose=0)
        model.compile(kl.SGLD("auto", num_data=len(x)), loss)
        sampler = kl.PosteriorSampler(burn_in=20, thinning=4)
        model.fit(x, y, epochs=60, callbacks=[sampler], verbose=0)
        return sampler

    ensemble = kl.sample_chains(train_fn, num_chains=2)
    ensemble.chains  # [0 0 ... 1 1], 10 of each
    draws = ensemble.split_chains(ensemble.predict_members(x[:50]))
    kl.diagnostics.r_hat(draws).max()  # near 1: as functions the chains have one law
    ```

    Seeds. `keras.utils.set_random_seed(chain)` at the top of `train_fn` makes initial weights,
    the order of the data and the sampler's noise those of the chain. A sampler with a `seed` of
    its own must get another for each chain: with equal seeds all chains have the same noise.

    Executors. In other processes chains are independent of each other; there `train_fn` must be
    a function of a module, and a script needs `if __name__ == "__main__":`. Start processes by
    `"spawn"`: a backend does not survive a fork.

    ```python
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as executor:
        ensemble = kl.sample_chains(train_fn, 8, executor)

    ensemble = kl.sample_chains(train_fn, 8, dask_client)  # workers with one thread each
    ensemble = kl.sample_chains(train_fn, 8, joblib.externals.loky.get_reusable_executor(4))
    ```

    Threads share what is global: random numbers, of which all must come from seeds that
    `train_fn` gives to initializers, layers and the sampler, and `keras.utils.clear_session`,
    which takes away the state of chains that run. Call neither it nor `set_random_seed` there.

    One program. With `vectorized=True` each call of `train_fn` runs until its `model.fit`. When
    all have come that far, one `fit` trains all their models, each from its own weights, with its
    own callbacks, optimizer state, noise and end (`EarlyStopping`), and the calls go on. Each
    chain is the one it would be alone, but that data come to all in the order that chain 0 draws.
    It is compiled once, and small networks cost little more for sixteen chains than for one.
    Without a sampler it trains a deep ensemble. Networks, losses and optimizers must be the same
    but for weights and seeds, which is checked; chains whose `fit` has other data or arguments run
    after one another. Make models and callbacks inside of `train_fn`, data sets outside. With
    `steps_per_execution=100` in `compile`, 100 steps are one call. Where the process has several
    devices that divide the number of chains, each advances its share of them.

    ```python
    ensemble = kl.sample_chains(train_fn, 16, vectorized=True)
    ```

    Folders. With `directory` long chains are safe on disk: each stores its samples, and a
    checkpoint after every epoch, in a folder of its own. The same program started again goes on
    where it was stopped. Every chain is called again, since only `fit` knows whether more epochs
    are asked for than it has seen: one that was complete has nothing left to do there, if
    `train_fn` leaves out the start that is over. Automatic names begin anew in every chain, so
    that they are those stored. Where this process reads the folder that the chain has written,
    samples come back by its path; else (a worker without a common disk) they are sent.

    ```python
    def train_fn(chain, context):
        keras.utils.set_random_seed(chain)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        loss = kl.losses.GaussianNLL(stddev=0.1)
        sampler = context.sampler(burn_in=20, thinning=4)
        if not sampler.epochs_seen:
            model.compile("adam", loss)
            model.fit(x, y, epochs=10, verbose=0)
        model.compile(kl.SGLD("auto", num_data=len(x)), loss)
        first = sampler.epochs_seen
        model.fit(x, y, epochs=60, initial_epoch=first, callbacks=[sampler], verbose=0)
        return sampler

    ensemble = kl.sample_chains(train_fn, num_chains=2, directory="run", retries=1)
    ```

    Retries. A chain is tried again, up to `retries` times, whatever it failed of, and with
    `directory` it goes on from its last whole epoch. When a process of a `ProcessPoolExecutor`
    dies, Python ends the others, and does not say which chain was in it: that counts as one try
    of every chain that had not finished. From then on each has a new process of its own, with
    the start method and the initializer of your executor and as many at a time as it had, so
    that another death counts for that chain alone; your executor stays broken. Dask starts
    workers again itself, and gives up (`KilledWorker`) a chain that several have died of: that
    is one try. Executors of other kinds that break, such as loky's, are not replaced.

    References:
        E. Sommer, L. Wimmer, T. Papamarkou, L. Bothmann, B. Bischl, D. Rügamer, "Connecting the
        Dots: Is Mode-Connectedness the Key to Feasible Sample-Based Inference in Bayesian
        Neural Networks?", ICML 2024, https://arxiv.org/abs/2402.01484.

        E. Sommer, J. Robnik, G. Nozadze, U. Seljak, D. Rügamer, "Microcanonical Langevin
        Ensembles: Advancing the Sampling of Bayesian Neural Networks", ICLR 2025,
        https://arxiv.org/abs/2502.06335.
    """
    arguments.function("train_fn", train_fn)
    num_chains = arguments.integer("num_chains", num_chains, at_least=1)
    executor = checked_executor(executor)
    if directory is not None:
        arguments.path("directory", directory)
    _check_takes_context(train_fn, directory)
    retries = arguments.integer("retries", retries)
    if model is not None:
        keras_arguments.built_model("model", model)
    arguments.one_of("on_error", on_error, ("raise", "skip"))
    if arguments.boolean("vectorized", vectorized):
        check_vectorized(executor)
    arguments.verbosity("verbose", verbose)
    checked_options(**kwargs)  # before hours of training
    with chain_folders(directory) as folders:
        run = functools.partial(run_chain, train_fn, folders)
        progress = ChainProgress(num_chains, folders, verbose)
        chains, errors = run_chains(run, num_chains, executor, retries, progress, vectorized)
    errors |= _misfits(chains, model)
    chains = {number: chains[number] for number in sorted(chains) if number not in errors}
    labels = [number for number, chain in chains.items() for _ in range(chain.num_samples)]
    if errors:
        message = _message(errors, num_chains, folders, retries)
        if on_error == "raise" or not chains:
            raise ChainError(message, errors, _samples(chains), labels) from errors[min(errors)]
        warnings.warn(message, stacklevel=2)
    try:
        if model is None:
            model = chains[labels[0]].network()
        samples = _samples(chains, named_weights(model))
        return BayesianEnsembleModel(model, samples, chains=labels, **kwargs)
    except Exception as error:  # none may cost the samples
        message = f"The samples of the chains cannot be made an ensemble. {error}"
        raise ChainError(message, errors, _samples(chains), labels) from error


class ChainError(RuntimeError):
    """Chains have failed, or their samples cannot be made an ensemble.

    What was sampled is not lost:

    ```python
    try:
        ensemble = kl.sample_chains(train_fn, 8)
    except kl.ChainError as error:
        print(error.errors)
        ensemble = kl.BayesianEnsembleModel(model, error.samples, chains=error.chains)
    ```

    Attributes:
        errors: From the number of a chain that failed to its exception.
        samples: Of the other chains, by chain, then by draw: mappings from weight name to array,
            with the names of the first of them.
        chains: The number of each sample's chain.
    """

    def __init__(self, message, errors, samples, chains):
        if samples:
            message += (
                f"\nThe {len(samples)} samples of chains that have finished are not lost: "
                "`kl.BayesianEnsembleModel(model, error.samples, chains=error.chains)`."
            )
        super().__init__(message)
        self.errors, self.samples, self.chains = errors, samples, chains


def _check_takes_context(train_fn, directory):
    """Before any chain is run."""
    arguments_of_call, words = (0,), "the number of the chain"
    if directory is not None:
        arguments_of_call, words = (0, None), f"{words} and a `kl.ChainContext`"
    try:
        signature = inspect.signature(train_fn)
    except (TypeError, ValueError):  # of what is written in C
        return
    try:
        signature.bind(*arguments_of_call)
    except TypeError as error:
        raise ValueError(
            f"`train_fn` must take {words}, the second where `directory` is passed and not else. "
            f"Received: train_fn{signature} with directory={arguments.shorten(directory)}."
        ) from error


# ----------------------------------------------------------------------------------- joining


def _samples(chains, names=None):
    """One mapping from weight name to array a draw; by default the names of the first chain."""
    if names is None:
        names = next(iter(chains.values())).stacks if chains else ()
    return [
        dict(zip(names, arrays, strict=True))
        for chain in chains.values()
        for arrays in zip(*chain.stacks.values(), strict=True)
    ]


def _misfits(chains, model):
    """Errors, by number, for the chains whose weights are not, in order, those of the model or
    else of the first chain."""
    shapes = {n: {k: s.shape[1:] for k, s in c.stacks.items()} for n, c in chains.items()}
    if model is not None:
        expected = {name: tuple(v.shape) for name, v in named_weights(model).items()}
    else:
        expected = shapes[min(shapes)] if shapes else {}
    return {
        number: ValueError(
            "Every chain must have the same network, its weights in the same order: "
            f"{_listed(expected)}. Received: {_listed(own)} in chain {number}."
        )
        for number, own in shapes.items()
        if _plain(own) != _plain(expected)
    }


def _plain(shapes):
    """The shapes, and the weights' own names (`kernel`) without the numbers of repeats."""
    own_names = [re.sub(r"(_\d+)?(#\d+)?$", "", name.split("/")[-1]) for name in shapes]
    return list(zip(own_names, shapes.values(), strict=True))


def _listed(shapes):
    words = [f"{name} {shape}" for name, shape in shapes.items()]
    return ", ".join(words[:8]) + (" ..." if len(words) > 8 else "")


def _message(errors, num_chains, folders, retries):
    reasons = "\n".join(f"- chain {n}: {in_words(errors[n])}" for n in sorted(errors))
    message = f"{len(errors)} of {num_chains} chains have failed:\n{reasons}"
    if any(isinstance(error, concurrent.futures.BrokenExecutor) for error in errors.values()):
        message += (
            "\nWhere one process of an executor dies, all chains that have not finished fail with "
            "it."
        )
        if not retries:
            message += " With `retries=1` they are run again."
    if folders is not None:
        message += (
            f"\nWhat these have stored is kept in '{folders.directory}': the same call goes on "
            "there."
        )
    return message
