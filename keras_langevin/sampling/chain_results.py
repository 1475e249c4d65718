"""What a chain is in the process that runs it, and how its samples come back from there."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from keras_langevin.ensemble.own_copy import has_assets
from keras_langevin.keras_internals.names import names_from_the_start
from keras_langevin.sampling.chain_folders import ChainContext, ChainFolders
from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.statistics import untracked
from keras_langevin.storage.folder_lock import unlock_folder
from keras_langevin.storage.sample_store import SampleStore
from keras_langevin.storage.stack_samples import stack_samples
from keras_langevin.weights import named_weights


@dataclasses.dataclass
class ChainResult:
    """What one chain sampled. In a pickle the model is its config.

    Attributes:
        stacks: From weight name to an array of shape `(draws, *weight.shape)`; `None` where the
            samples lie in the folder.
        folder: Where they lie for every process, or `None`.
        num_samples: How many there are.
        model: The network, or its config, or the reason why it has none.
        seconds: That the chain took.
    """

    stacks: dict | None
    folder: Path | None
    num_samples: int
    model: keras.Model | dict | str
    seconds: float

    def __getstate__(self):
        return {**vars(self), "model": _config(self.model)}

    def read(self):
        """The same with its samples in memory.

        Raises:
            CorruptSampleError, ValueError, OSError: If the folder is not as the chain left it.
        """
        if self.stacks is not None:
            return self
        store = SampleStore.load(self.folder)
        if len(store) != self.num_samples:
            raise ValueError(
                f"The folder of a chain must hold what it stored, {self.num_samples} samples. "
                f"Received: {len(store)} in '{self.folder}'. Let no other program write there; "
                "a network disk may show them later: the same call goes on with them."
            )
        arrays = {name: [] for name in store.weights}
        for sample in store:
            for name, array in sample.items():
                arrays[name].append(array)
        stacks = {name: np.stack(arrays.pop(name)) for name in store.weights}
        return dataclasses.replace(self, stacks=stacks)

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


# ---------------------------------------------------------------------------- in the worker


def run_chain(
    train_fn: Callable, folders: ChainFolders | None, number: int, attempt: int = 0
) -> ChainResult:
    """Runs one chain.

    Args:
        train_fn: As of `kl.sample_chains`.
        folders: Of all chains, or None.
        number: Of this one.
        attempt: Which try it is. Dask takes a call with equal arguments for the same one.
    """
    start = time.perf_counter()
    if folders is None:
        model, samples = _model_and_samples(train_fn(number))
        folder = None
    else:
        model, samples, folder = _run_in_folder(train_fn, folders, number)
    stacks = None
    if folder is None:
        _, stacks = stack_samples(model, samples)
        stacks = dict(zip(named_weights(model), stacks, strict=True))
    num_samples = len(samples) if stacks is None else len(next(iter(stacks.values())))
    return ChainResult(stacks, folder, num_samples, model, time.perf_counter() - start)


def _run_in_folder(train_fn, folders, number):
    """Model and samples, and the folder where the caller finds those."""
    folder = folders.of(number)
    try:
        with names_from_the_start():  # a run is resumed with the names that it has stored
            returned = train_fn(number, ChainContext(number, folder))
    finally:
        unlock_folder(folder)  # this process may live on, and another one resume the chain
    model, samples = _model_and_samples(returned)
    is_found = (
        isinstance(returned, PosteriorSampler)
        and len(samples)
        and samples.directory is not None
        and samples.directory.absolute().is_relative_to(folders.directory)
        and folders.are_shared()
    )
    return model, samples, samples.directory.absolute() if is_found else None


def _model_and_samples(returned):
    if isinstance(returned, PosteriorSampler):
        returned = (returned.model, returned.samples)
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], keras.Model):
        return returned
    raise ValueError(
        "`train_fn` must return the `kl.PosteriorSampler` that it passed to `fit`, or a pair "
        f"`(model, samples)`. Received: {returned!r}."
    )
