"""Posterior samples in memory or in a folder that survives a crash."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from keras_langevin import arguments
from keras_langevin.storage.errors import CorruptSampleError, StorageError, WriteConflictError
from keras_langevin.storage.sample import Sample
from keras_langevin.storage.sample_folder import SampleFolder, listed

__all__ = ["CorruptSampleError", "SampleStore", "StorageError", "WriteConflictError"]


class SampleStore:
    """Posterior samples, in the order they were drawn.

    Without a `directory` the samples are kept in memory. With one, each is a file
    `sample-000000.npz` that NumPy reads alone (`allow_pickle=False`): the weights, named
    `"00000"`, `"00001"` ... in the order of `"weights"` in `manifest.json`. bfloat16 and
    float8 weights are stored as their bits (`uint16`, `uint8`); the manifest has their dtype,
    and reading through the store gives it back. The manifest is replaced last and lists a
    SHA-256 for every file: a sample is on the disk when `append` returns, and a crash
    before that leaves the store as it was. Iteration holds one sample in memory.

    Any number of processes may read a folder, one may write: a store takes a lock (`flock`)
    when it is created or first writes, which the operating system releases when the store is
    deleted or the process ends, however it ends. A second process is refused then. Where a disk
    has no locks, and within a process, a second writer is found because the manifest must be as
    the store last saw it whenever it is replaced; two that write in the very same moment are
    found at the next write of one of them.

    Nothing in a folder is unpickled or run, and no file outside it is read or written, whoever
    wrote it. The checksums tell damage; they are no signature.

    Args:
        directory: Folder for the samples: new, empty, or holding a store without samples.
            `None` keeps them in memory.

    Raises:
        ValueError: If `directory` holds something already: nothing is overwritten.
        StorageError: If it cannot be written (an `OSError`).
        WriteConflictError: If another process writes there.

    Example:

    ```python
    import numpy as np
    import keras_langevin as kl

    store = kl.SampleStore()
    for step in range(3):
        store.append(kl.Sample({"kernel": np.full((2, 2), step)}, step=step))
    len(store), store[-1].step  # (3, 2)
    mean = sum(sample["kernel"] for sample in store) / len(store)
    ```
    """

    def __init__(self, directory: str | os.PathLike | None = None):
        if directory is None:
            self._shelf = _Memory()
        else:
            self._shelf = SampleFolder.create(Path(arguments.path("directory", directory)))

    @classmethod
    def load(cls, path: str | os.PathLike, on_corrupt: str = "raise") -> SampleStore:
        """Opens a folder of samples, to read it or to append to it.

        Every file is compared with its SHA-256, when it is opened and when it is read. Nothing
        in the folder is changed, except that `on_corrupt="drop"` writes a new manifest.

        Args:
            path: The `directory` the samples were written to.
            on_corrupt: What to do about a sample that is missing, truncated or altered:
                `"raise"`; `"skip"` it with a warning, after which the store can only be read;
                or `"drop"` it from the manifest with a warning (its file stays where it is),
                after which the store can be continued.

        Raises:
            CorruptSampleError: If a sample is damaged and `on_corrupt="raise"`.
            ValueError: If the manifest is missing, damaged, or of another format version.
            OSError: If the manifest cannot be read.
        """
        arguments.one_of("on_corrupt", on_corrupt, ("raise", "skip", "drop"))
        store = cls()
        store._shelf = SampleFolder.open(Path(arguments.path("path", path)), on_corrupt)
        return store

    @property
    def directory(self) -> Path | None:
        """The folder of the samples, `None` when they are in memory."""
        return self._shelf.path

    @property
    def weights(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name to (shape, dtype) of the weights of every sample; empty before the first."""
        return {w["name"]: (tuple(w["shape"]), w["dtype"]) for w in self._shelf.weights}

    @property
    def facts(self) -> list[dict]:
        """The facts of each sample (step, learning_rate, temperature, chain, position), without
        reading any weights."""
        keys = ("step", "learning_rate", "temperature", "chain", "position")
        return [{key: entry[key] for key in keys} for entry in self._shelf.entries]

    @property
    def schedule(self) -> dict | None:
        """What the `PosteriorSampler` that fills this store wrote about its schedule."""
        return self._shelf.schedule

    @property
    def optimizer(self) -> str | None:
        """Name of the optimizer class that draws the samples, where it was written down."""
        return self._shelf.optimizer

    def append(self, sample: Sample | Mapping[str, np.ndarray]) -> None:
        """Stores a sample; with a directory it is on the disk when this returns.

        Args:
            sample: A `Sample`, or a mapping from weight name to array.

        Raises:
            ValueError: If the sample holds a NaN or an infinity, or its names, shapes or dtypes
                differ from those of the first sample.
            StorageError: If the disk is full, read-only or gone (an `OSError`). The samples
                stored before are kept; call `append` again when it is repaired.
            WriteConflictError: If another process or store writes into the folder.
        """
        sample = sample if isinstance(sample, Sample) else Sample(sample)
        bad = sample.nonfinite()
        if bad:
            raise ValueError(
                "A stored sample must be finite. "
                f"Received: NaN or infinity in {listed(bad)} (step={sample.step}). "
                "Lower the learning rate, or look for NaN in the training data."
            )
        weights = {name: (array.shape, array.dtype.name) for name, array in sample.items()}
        differences = self.differences(weights)
        if differences:
            raise ValueError(
                "Every sample of a store must have the weights of the first. Received: "
                f"{listed(differences)}. Use one store for one model."
            )
        if self.weights and list(self.weights) != list(sample):
            sample = Sample({name: sample[name] for name in self.weights}, **sample.facts)
        first = [{"name": n, "shape": list(s), "dtype": d} for n, (s, d) in weights.items()]
        self._shelf.append(sample, self._shelf.weights or first)

    def differences(
        self, weights: Mapping[str, tuple[tuple[int, ...], str]], optimizer: str | None = None
    ) -> list[str]:
        """How `weights` (name to shape and dtype) differ from those stored, in words.

        With `optimizer`, the name of a class, so does an optimizer that is not the one written
        down. Empty when they agree, or when nothing is stored yet.
        """
        stored = self.weights
        if not stored:
            return []
        words = [f"'{name}' is missing" for name in stored if name not in weights]
        words += [f"'{name}' is not in the store" for name in weights if name not in stored]
        for name, (shape, dtype) in stored.items():
            if name in weights and tuple(weights[name]) != (shape, dtype):
                new_shape, new_dtype = weights[name]
                words.append(f"'{name}' is {new_shape} {new_dtype}, stored is {shape} {dtype}")
        if None not in (optimizer, self.optimizer) and optimizer != self.optimizer:
            words.append(f"the optimizer is {optimizer}, stored is {self.optimizer}")
        return words

    def thin(self, keep: Iterable[int] | None = None, schedule: dict | None = None) -> None:
        """Drops samples for good.

        In a directory the manifest without them is written first and their files are removed
        after it, so that a crash between leaves a valid store.

        Args:
            keep: Indices of the samples to keep. Defaults to every other one, from the second.
            schedule: A new value of `schedule` (a dict of numbers and strings), written in the
                same moment.

        Raises:
            ValueError: If an index is that of no sample, or `schedule` is no such dict.
        """
        keep = _checked_indices(range(1, len(self), 2) if keep is None else keep, len(self))
        if schedule is not None:
            _check_schedule(schedule)
        entries = [entry for i, entry in enumerate(self._shelf.entries) if i in keep]
        self._shelf.keep(entries, schedule)

    def set_schedule(self, schedule: dict) -> None:
        """Writes down how the store is filled (a dict of numbers and strings)."""
        _check_schedule(schedule)
        self._shelf.keep(self._shelf.entries, schedule)

    def set_optimizer(self, name: str) -> None:
        """Writes down the name of the optimizer class that draws the samples.

        Raises:
            ValueError: If there are samples of another one.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"`name` must be the name of a class. Received: name={arguments.shorten(name)}."
            )
        if len(self) and self.optimizer not in (None, name):
            raise ValueError(
                "The samples of a store must be of one optimizer. "
                f"Received: {name}, stored is {self.optimizer}. Use another store."
            )
        if name != self.optimizer:
            self._shelf.keep(self._shelf.entries, optimizer=name)

    def __len__(self) -> int:
        return len(self._shelf.entries)

    def __iter__(self) -> Iterator[Sample]:
        for entry in list(self._shelf.entries):
            yield self._shelf.read(entry)

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._shelf.read(entry) for entry in self._shelf.entries[index]]
        return self._shelf.read(self._shelf.entries[operator.index(index)])

    def __repr__(self) -> str:
        place = "memory" if self.directory is None else f"'{self.directory}'"
        return f"<SampleStore of {len(self)} samples in {place}>"


def _checked_indices(keep, length):
    found = set()
    for index in arguments.iterator("keep", keep, "indices of samples"):
        if not length or arguments.integer("keep", index) >= length:
            raise ValueError(
                f"`keep` must hold indices from 0 to {length - 1}. Received: "
                f"keep={arguments.shorten(index)}."
            )
        found.add(int(index))
    return found


def _check_schedule(schedule):
    arguments.instance("schedule", schedule, Mapping, "a dict of numbers and strings")
    for key, value in schedule.items():
        is_number = isinstance(value, (int, float)) and abs(value) < math.inf
        if not isinstance(key, str) or not (value is None or isinstance(value, str) or is_number):
            raise ValueError(
                "`schedule` must be a dict of numbers and strings. Received: "
                f"schedule={arguments.shorten(schedule)}"
            )


class _Memory:
    """The memory side of a `SampleStore`: what `SampleFolder` is for a folder."""

    path = None

    def __init__(self):
        self.weights = []
        self.entries = []
        self.schedule = None
        self.optimizer = None

    def append(self, sample, weights):
        self.weights = weights
        self.entries.append({**sample.facts, "sample": sample})

    def keep(self, entries, schedule=None, optimizer=None):
        self.entries = list(entries)
        self.schedule = self.schedule if schedule is None else dict(schedule)
        self.optimizer = self.optimizer if optimizer is None else optimizer

    def read(self, entry):
        return entry["sample"]
