"""Samples in a folder: one file each, and a manifest written last that says which count."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

from keras_langevin.storage.array_file import TEMPORARY, find_damage, read_arrays, write_arrays
from keras_langevin.storage.manifest import MANIFEST, read_manifest, write_manifest
from keras_langevin.storage.sample import Sample


class CorruptSampleError(ValueError):
    """A stored sample is missing, truncated or altered. A `ValueError`."""


class SampleFolder:
    """The disk side of a `SampleStore`.

    `entries` has one dict a sample, as in the manifest: its file, SHA-256 and facts. A file
    counts once the manifest lists it; file names are never used twice.
    """

    def __init__(self, path: Path):
        self.path = path
        self.weights = []
        self.entries = []
        self.schedule = None
        self._next_number = 0
        self._dropped_files = []  # out of the manifest already, perhaps not yet off the disk
        self._skipped_files = []  # damaged ones that `on_corrupt="skip"` passed over

    @classmethod
    def create(cls, path: Path) -> SampleFolder:
        """Starts a folder that is absent, empty, or a store with no samples."""
        _refuse_folder_in_use(path)
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        folder._commit()
        return folder

    @classmethod
    def open(cls, path: Path, on_corrupt: str) -> SampleFolder:
        """Opens what was written; see `SampleStore.load`."""
        folder = cls(path)
        content = read_manifest(path)
        folder.weights = content["weights"]
        folder.schedule = content["schedule"]
        folder._next_number = content["next_number"]
        folder._dropped_files = content["dropped_files"]
        for entry in content["samples"]:
            try:
                folder._verify(entry)
                folder.entries.append(entry)
            except CorruptSampleError as error:
                if on_corrupt == "raise":
                    raise
                warnings.warn(f"Left out of the store: {error}", stacklevel=3)
                folder._skipped_files.append(entry["file"])
        if folder._skipped_files and on_corrupt == "drop":
            folder._skipped_files = []
            folder._commit()
        return folder

    def append(self, sample: Sample, weights: list[dict]) -> None:
        """Writes the sample's file, then the manifest that lists it."""
        self._refuse_writing_past_damage()
        name = f"sample-{self._next_number:06d}.npz"
        self._next_number += 1
        digest = write_arrays(self.path / name, [sample[weight["name"]] for weight in weights])
        entry = {"file": name, "sha256": digest, **sample.facts}
        self._commit(weights=weights, entries=[*self.entries, entry])

    def keep(self, entries: list[dict], schedule: dict | None) -> None:
        """Writes the manifest with only these entries, then removes the files of the others."""
        self._refuse_writing_past_damage()
        kept = {entry["file"] for entry in entries}
        dropped = [entry["file"] for entry in self.entries if entry["file"] not in kept]
        self._commit(entries=entries, schedule=schedule, dropped_files=dropped)
        self._remove(dropped)

    def read(self, entry: dict) -> Sample:
        """The sample of an entry, from its file."""
        self._verify(entry)
        dtypes = [weight["dtype"] for weight in self.weights]
        try:
            arrays = read_arrays(self.path / entry["file"], dtypes)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise self._corrupt(entry, f"it cannot be read ({error})") from error
        named = {w["name"]: array for w, array in zip(self.weights, arrays, strict=True)}
        facts = {key: value for key, value in entry.items() if key not in ("file", "sha256")}
        return Sample(named, **facts)

    def _commit(self, weights=None, entries=None, schedule=None, dropped_files=()):
        """Makes this the content of the folder: on the disk first, then here."""
        self._remove(self._dropped_files)  # left by a crash
        content = {
            "weights": self.weights if weights is None else weights,
            "samples": self.entries if entries is None else entries,
            "schedule": self.schedule if schedule is None else dict(schedule),
            "next_number": self._next_number,
            "dropped_files": list(dropped_files),
        }
        write_manifest(self.path, content)
        self.weights, self.entries = content["weights"], content["samples"]
        self.schedule, self._dropped_files = content["schedule"], content["dropped_files"]

    def _remove(self, names):
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def _verify(self, entry):
        damage = find_damage(self.path / entry["file"], entry["sha256"])
        if damage:
            raise self._corrupt(entry, damage)

    def _corrupt(self, entry, what):
        return CorruptSampleError(
            "Stored samples must be as they were written. Received: "
            f"'{self.path / entry['file']}' (step {entry['step']}), and {what}. Restore the "
            "file from a backup, or read the other samples with "
            f"`SampleStore.load('{self.path}', on_corrupt=\"skip\")`; "
            'on_corrupt="drop" forgets this sample, so that the store can be continued.'
        )

    def _refuse_writing_past_damage(self):
        if self._skipped_files:
            raise ValueError(
                'A store loaded with on_corrupt="skip" can only be read while it has damaged '
                f"samples. Received: {listed(self._skipped_files)}. Restore them, or load with "
                'on_corrupt="drop" to continue without them.'
            )


def listed(words: list[str], most: int = 5) -> str:
    """The first few words for an error message."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _refuse_folder_in_use(path):
    if not path.exists():
        return
    if not path.is_dir():
        raise ValueError(f"`directory` must be a folder. Received the file: directory='{path}'.")
    if is_unused(path):
        return
    found = sorted(p.name for p in path.iterdir())
    raise ValueError(
        "`directory` must be new or empty for a new run, so that nothing stored is overwritten. "
        f"Received: directory='{path}', which holds {listed(found)}. To continue the run stored "
        "there use `PosteriorSampler(..., resume=True)`, to read it or append to it "
        "`SampleStore.load(directory)`; otherwise choose another directory."
    )


def is_unused(path: Path) -> bool:
    """True for a folder that is absent or holds nothing yet but an empty store."""
    if not path.exists():
        return True
    found = [p.name for p in path.iterdir() if not p.name.endswith(TEMPORARY)]
    return not found or (found == [MANIFEST] and not read_manifest(path)["samples"])
