"""Samples in a folder: one file each, and a manifest written last that says which count."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from pathlib import Path

from keras_langevin.storage.array_file import (
    TEMPORARY,
    find_damage,
    read_arrays,
    write_arrays,
    write_atomically,
)
from keras_langevin.storage.errors import (
    CorruptSampleError,
    WriteConflictError,
    explain_write_errors,
)
from keras_langevin.storage.folder_lock import LOCK, lock_folder
from keras_langevin.storage.manifest import MANIFEST, manifest_bytes, read_manifest
from keras_langevin.storage.sample import Sample


class SampleFolder:
    """The disk side of a `SampleStore`.

    `entries` has one dict a sample, as in the manifest: its file, SHA-256 and facts. A file
    counts once the manifest lists it; the name of a file that counted is never used again.

    Two writers are found in two ways. Whoever writes holds a `FolderLock`, where the disk has
    such locks. And the manifest must be the one that was last read or written here when it is
    replaced: this works on every disk and needs no cleaning up after a kill.
    """

    def __init__(self, path: Path):
        self.path = path
        self.weights = []
        self.entries = []
        self.schedule = None
        self.optimizer = None
        self._next_number = 0
        self._dropped_files = []  # out of the manifest already, perhaps not yet off the disk
        self._skipped_files = []  # damaged ones that `on_corrupt="skip"` passed over
        self._digests = set()  # of the manifest; two after a write that failed at its very end
        self._lock = None

    @classmethod
    def create(cls, path: Path) -> SampleFolder:
        """Starts a folder that is absent, empty, or a store with no samples."""
        folder = cls(path)
        with explain_write_errors(path, "A new store", lambda: "Nothing is stored yet."):
            refuse_folder_in_use(path)
            path.mkdir(parents=True, exist_ok=True)
            folder._lock = lock_folder(path)
            refuse_folder_in_use(path)  # now that no other process can begin
            folder._commit()
        return folder

    @classmethod
    def open(cls, path: Path, on_corrupt: str) -> SampleFolder:
        """Opens what was written; see `SampleStore.load`."""
        folder = cls(path)
        damage = folder._read_manifest()
        while damage and not folder._is_one_of(folder._digests):  # thinned by a writer meanwhile
            damage = folder._read_manifest()
        if damage and on_corrupt == "raise":
            raise next(iter(damage.values()))
        for error in damage.values():
            warnings.warn(f"Left out of the store: {error}", stacklevel=3)
        folder.entries = [entry for entry in folder.entries if entry["file"] not in damage]
        if damage and on_corrupt == "drop":
            with folder._writing("The manifest without the damaged samples"):
                folder._commit()
        elif damage:
            folder._skipped_files = list(damage)
        return folder

    def append(self, sample: Sample, weights: list[dict]) -> None:
        """Writes the sample's file, then the manifest that lists it."""
        self._refuse_writing_past_damage()
        what = "A sample" if sample.step is None else f"The sample of step {sample.step}"
        with self._writing(what):
            file = f"sample-{self._next_number:06d}.npz"
            self._next_number += 1
            before = set(self._digests)
            try:
                arrays = [sample[weight["name"]] for weight in weights]
                digest = write_arrays(self.path / file, arrays)
                entry = {"file": file, "sha256": digest, **sample.facts}
                self._commit(weights=weights, entries=[*self.entries, entry])
            except BaseException:
                with contextlib.suppress(OSError):
                    if self._is_one_of(before):  # and not the manifest that lists the file
                        (self.path / file).unlink(missing_ok=True)
                raise

    def keep(
        self, entries: list[dict], schedule: dict | None = None, optimizer: str | None = None
    ) -> None:
        """Writes the manifest with only these entries, then removes the files of the others."""
        self._refuse_writing_past_damage()
        kept = {entry["file"] for entry in entries}
        dropped = [entry["file"] for entry in self.entries if entry["file"] not in kept]
        with self._writing("The manifest"):
            self._commit(
                entries=entries, schedule=schedule, optimizer=optimizer, dropped_files=dropped
            )
            self._remove_dropped()

    def read(self, entry: dict) -> Sample:
        """The sample of an entry, from its file."""
        self._verify(entry)
        dtypes = [weight["dtype"] for weight in self.weights]
        shapes = [weight["shape"] for weight in self.weights]
        try:
            arrays = read_arrays(self.path / entry["file"], dtypes, shapes)
        except ValueError as error:
            raise self._corrupt(entry, str(error)) from error
        except OSError as error:
            raise self._corrupt(entry, f"it cannot be read ({error})") from error
        named = {w["name"]: array for w, array in zip(self.weights, arrays, strict=True)}
        facts = {key: value for key, value in entry.items() if key not in ("file", "sha256")}
        return Sample(named, **facts, copy=False)

    def __getstate__(self):
        return {**self.__dict__, "_lock": None}

    @contextlib.contextmanager
    def _writing(self, what):
        with explain_write_errors(self.path, what, self._describe_kept):
            self._lock = lock_folder(self.path)
            self._refuse_other_writer()
            yield

    def _commit(self, weights=None, entries=None, schedule=None, optimizer=None, dropped_files=()):
        """Makes this the content of the folder: on the disk first, then here."""
        self._remove_dropped()  # left by a crash
        content = {
            "weights": self.weights if weights is None else weights,
            "samples": self.entries if entries is None else entries,
            "optimizer": self.optimizer if optimizer is None else optimizer,
            "schedule": self.schedule if schedule is None else dict(schedule),
            "next_number": self._next_number,
            "dropped_files": [*self._dropped_files, *dropped_files],
        }
        data = manifest_bytes(content)
        digest = hashlib.sha256(data).hexdigest()
        self._refuse_other_writer()
        self._digests.add(digest)
        write_atomically(self.path / MANIFEST, lambda file: file.write(data))
        self._digests = {digest}
        self.weights, self.entries = content["weights"], content["samples"]
        self.schedule, self.optimizer = content["schedule"], content["optimizer"]
        self._dropped_files = content["dropped_files"]

    def _read_manifest(self):
        """Takes the content over; returns the errors of the damaged files."""
        self._take_manifest()
        damage = {}
        for entry in self.entries:
            try:
                self._verify(entry)
            except CorruptSampleError as error:
                damage[entry["file"]] = error
        return damage

    def _take_manifest(self):
        content, digest = read_manifest(self.path)
        self._digests = {digest}
        self.weights, self.entries = content["weights"], content["samples"]
        self.schedule, self.optimizer = content["schedule"], content["optimizer"]
        self._next_number = content["next_number"]
        self._dropped_files = content["dropped_files"]

    def _is_one_of(self, digests):
        """Whether the manifest on the disk has one of these SHA-256."""
        with open(self.path / MANIFEST, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() in digests

    def _refuse_other_writer(self):
        if not self._digests or self._is_one_of(self._digests):
            return
        raise WriteConflictError(
            "One store at a time may write into a folder. Received: "
            f"directory='{self.path}', whose {MANIFEST} was replaced by another process, or by "
            "another `SampleStore` of this one, since this store was opened or last wrote. "
            "Nothing was written now. Stop the other writer, or this one; to go on here, open "
            f"the folder again with `SampleStore.load('{self.path}')`."
        )

    def _remove_dropped(self):
        """Takes files off the disk that are listed no more; what cannot be removed stays noted."""
        left = []
        for file in self._dropped_files:
            try:
                (self.path / file).unlink(missing_ok=True)
            except OSError:
                left.append(file)
        self._dropped_files = left

    def _describe_kept(self):
        if not (self.path / MANIFEST).exists():
            return f"The folder with the {len(self.entries)} samples stored before is not there."
        return f"The {len(self.entries)} samples stored before are kept and can be loaded."

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


def refuse_folder_in_use(path: Path) -> None:
    """Raises where a new run would overwrite something."""
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
    names = [p.name for p in path.iterdir()]
    found = [name for name in names if name != LOCK and not name.endswith(TEMPORARY)]
    return not found or (found == [MANIFEST] and not read_manifest(path)[0]["samples"])
