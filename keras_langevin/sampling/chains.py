"""Several chains, one after another or through an executor, as one ensemble."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
import time
import warnings
from collections.abc import Callable

import keras

from keras_langevin import arguments, keras_arguments
from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.ensemble.members import has_assets
from keras_langevin.ensemble.options import checked_options
from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.statistics import untracked
from keras_langevin.storage.stack_samples import stack_samples
from keras_langevin.weights import named_weights


def sample_chains(
    train_fn: Callable,
    num_chains: int,
    executor: concurrent.futures.Executor | None = None,
    *,
    model: keras.Model | None = None,
    on_error: str = "raise",
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
        train_fn: Function of the number of the chain, 0 to `num_chains - 1`. Returns its
            `kl.PosteriorSampler`, or a pair `(model, samples)` as `kl.BayesianEnsembleModel`
            takes them. It must build the same network for every chain: weights are matched by
            their order, since automatic names differ (`dense_1` for `dense`), and shapes are
            compared.
        num_chains: Number of chains, >= 1.
        executor: Any `concurrent.futures.Executor`, which you shut down; `None` runs one chain
            after another in this process. See below.
        model: A built model to put the samples into. Needed only where chains run in other
            processes and the network cannot be rebuilt from its Keras config. It must be
            compiled with the loss, or `output=` passed.
        on_error: What to do when chains fail: `"raise"` a `ChainError`, which has the samples
            of the others; or `"skip"` them with a warning.
        verbose: 1 prints a line when a chain has finished, 0 does not.
        **kwargs: Passed on to `kl.BayesianEnsembleModel`.

    Returns:
        A `kl.BayesianEnsembleModel`. Its `chains` has the number of each member's chain, and
        `split_chains` parts predictions by chain, for `kl.diagnostics.r_hat`.

    Raises:
        ChainError: If a chain fails (with `on_error="skip"`: all of them), or the samples cannot
            be made an ensemble. A chain that diverged is one that failed; to keep what it
            stored before, catch its `FloatingPointError` in `train_fn` and return the sampler.
        ValueError: If an argument is not what is said above.

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

    ensemble = kl.sample_chains(train_fn, 8, dask_client.get_executor())
    ensemble = kl.sample_chains(train_fn, 8, joblib.externals.loky.get_reusable_executor(4))
    ```

    Threads share what is global: random numbers, of which all must come from seeds that
    `train_fn` gives to initializers, layers and the sampler, and `keras.utils.clear_session`,
    which takes away the state of chains that run. Call neither it nor `set_random_seed` there.

    Long chains are safe on disk: with `kl.PosteriorSampler(..., directory=f"run/{chain}",
    resume=True)` and `fit(..., initial_epoch=sampler.epochs_seen)` the same program goes on where
    it was stopped.

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
    if executor is not None:
        words = "a `concurrent.futures.Executor`, or None"
        arguments.instance("executor", executor, concurrent.futures.Executor, words)
    if model is not None:
        keras_arguments.built_model("model", model)
    arguments.one_of("on_error", on_error, ("raise", "skip"))
    arguments.verbosity("verbose", verbose)
    checked_options(**kwargs)  # before hours of training
    chains, errors = _run(train_fn, num_chains, executor, verbose)
    errors |= _misfits(chains, model)
    chains = {number: chains[number] for number in sorted(chains) if number not in errors}
    labels = [number for number, chain in chains.items() for _ in range(len(chain))]
    if errors:
        message = _message(errors, num_chains)
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


@dataclasses.dataclass
class _Chain:
    """What one chain sampled. In a pickle the model is its config.

    Attributes:
        stacks: From weight name to an array of shape `(draws, *weight.shape)`.
        model: The network, or its config, or the reason why it has none.
        seconds: That the chain took.
    """

    stacks: dict
    model: keras.Model | dict | str
    seconds: float

    def __len__(self):
        return len(next(iter(self.stacks.values())))

    def __getstate__(self):
        return {**vars(self), "model": _config(self.model)}

    def network(self):
        """The model, built again from its config where it comes from another process."""
        if isinstance(self.model, keras.Model):
            return self.model
        if isinstance(self.model, str):
            raise ValueError(_NEEDS_MODEL.format(self.model))
        try:
            network = keras.saving.deserialize_keras_object(self.model, safe_mode=False)
        except Exception as error:  # whatever a `from_config` of the user's may raise
            raise ValueError(_NEEDS_MODEL.format(error)) from error
        if not network.built:
            raise ValueError(_NEEDS_MODEL.format("its config does not say how it is built"))
        return network


_NEEDS_MODEL = (
    "The network of a chain in another process must be one that can be built from its Keras "
    "config. Received: a model of which {}. Pass `model=`, a built model of the same kind, "
    "compiled with the loss."
)


def _config(model):
    if not isinstance(model, keras.Model):  # a pickle of a pickle
        return model
    if has_assets(model):
        return "vocabularies are no part of the config"
    try:
        with untracked(model):
            config = keras.saving.serialize_keras_object(model)
    except Exception as error:  # whatever a `get_config` of the user's may raise
        return f"the config cannot be written ({error})"
    config.get("compile_config", {}).pop("optimizer", None)
    return config


# ---------------------------------------------------------------------------------- training


def _run(train_fn, num_chains, executor, verbose):
    """The chains that have finished and the errors of the others, by number."""
    chains, errors = {}, {}
    for number, result in _results(train_fn, num_chains, executor):
        if isinstance(result, Exception):
            errors[number] = result
            words = f"failed, {_words(result)}"
        else:
            chains[number] = result
            words = f"{len(result)} samples in {result.seconds:.1f} s"
        if verbose:
            done = len(chains) + len(errors)
            print(f"Chain {number}: {words} ({done} of {num_chains} chains)", flush=True)
    return chains, errors


def _results(train_fn, num_chains, executor):
    """Pairs of a number and what became of the chain, in the order in which they finish."""
    if executor is None:
        for number in range(num_chains):
            yield number, _result_or_error(_train, train_fn, number)
        return
    futures = {executor.submit(_train, train_fn, number): number for number in range(num_chains)}
    for future in concurrent.futures.as_completed(futures):
        yield futures[future], _result_or_error(future.result)


def _result_or_error(function, *args):
    try:
        return function(*args)
    except Exception as error:
        return error


def _train(train_fn, number):
    start = time.perf_counter()
    model, samples = _model_and_samples(train_fn(number))
    _, stacks = stack_samples(model, samples)
    stacks = dict(zip(named_weights(model), stacks, strict=True))
    return _Chain(stacks, model, time.perf_counter() - start)


def _model_and_samples(returned):
    if isinstance(returned, PosteriorSampler):
        returned = (returned.model, returned.samples)
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], keras.Model):
        return returned
    raise ValueError(
        "`train_fn` must return the `kl.PosteriorSampler` that it passed to `fit`, or a pair "
        f"`(model, samples)`. Received: {returned!r}."
    )


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


def _message(errors, num_chains):
    reasons = "\n".join(f"- chain {n}: {_words(errors[n])}" for n in sorted(errors))
    return f"{len(errors)} of {num_chains} chains have failed:\n{reasons}"


def _words(error):
    return f"{type(error).__name__}: {error}"
