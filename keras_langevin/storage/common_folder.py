"""A folder of samples that several processes have in common."""

from __future__ import annotations

from pathlib import Path

from keras_langevin.distribution import barrier, num_processes, one_process_writes
from keras_langevin.storage.manifest import MANIFEST
from keras_langevin.storage.sample_folder import SampleFolder, refuse_folder_in_use
from keras_langevin.storage.sample_store import SampleStore


class CommonFolder(SampleFolder):
    """A `SampleFolder` that the first process writes and all read. All make the same calls, and
    leave each of them together."""

    @classmethod
    def create(cls, path: Path) -> CommonFolder:
        refuse_folder_in_use(path)  # by all, before the first makes it
        barrier()
        with one_process_writes() as is_mine:
            folder = super().create(path) if is_mine else cls(path)
        folder._follow(is_mine)
        return folder

    def append(self, *args, **kwargs):
        with one_process_writes() as is_mine:
            if is_mine:
                super().append(*args, **kwargs)
        self._follow(is_mine)

    def keep(self, *args, **kwargs):
        with one_process_writes() as is_mine:
            if is_mine:
                super().keep(*args, **kwargs)
        self._follow(is_mine)

    def _follow(self, is_mine):
        if is_mine:
            return
        if not (self.path / MANIFEST).exists():
            raise ValueError(
                "In several processes `directory` must be one folder that all of them see; the "
                f"first writes there. Received: directory='{self.path}', where the first has "
                "written nothing. Pass the same path on a common disk in every process."
            )
        self._take_manifest()


def samples_of_run(directory, resume) -> SampleStore:
    """The samples of a run: new ones, or those in the directory."""
    if directory is None or num_processes() == 1:
        return SampleStore.load(directory) if resume else SampleStore(directory)
    path = Path(directory)
    store = SampleStore()
    store._shelf = CommonFolder.open(path, "raise") if resume else CommonFolder.create(path)
    return store
