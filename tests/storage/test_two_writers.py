"""Two stores of one folder, in this process and in others."""

import copy
import errno
import fcntl
import os
import pickle
import shutil

import pytest
from targets.rows import every_row
from targets.store_cases import CHANGES, check, draw, is_locked, lock

from keras_langevin.storage import folder_lock, sample_folder
from keras_langevin.storage.errors import WriteConflictError
from keras_langevin.storage.sample_store import SampleStore


def test_a_second_process_is_refused_and_may_read(folder, tmp_path):
    with lock(folder):
        store = SampleStore.load(folder)
        check(store, [0, 1, 2])
        for change, _ in CHANGES.values():
            with pytest.raises(WriteConflictError, match="which another process writes into"):
                change(store)
    store.append(draw(3))
    check(SampleStore.load(folder), [0, 1, 2, 3])
    (tmp_path / "empty").mkdir()
    with lock(tmp_path / "empty"), pytest.raises(WriteConflictError):
        SampleStore(tmp_path / "empty")


def test_a_store_locks_its_folder_while_it_lives(tmp_path):
    store = SampleStore(tmp_path / "run")
    assert is_locked(tmp_path / "run")
    del store
    assert not is_locked(tmp_path / "run")
    store = SampleStore.load(tmp_path / "run")
    assert not is_locked(tmp_path / "run")  # readers lock nothing
    store.append(draw(0))
    assert is_locked(tmp_path / "run")


def test_a_disk_that_cannot_lock_folders(tmp_path, monkeypatch):
    """As NFS: `flock` needs a file that is open for writing."""
    flock = fcntl.flock

    def refuse_folders(file, operation):
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    monkeypatch.setattr(folder_lock.fcntl, "flock", refuse_folders)
    store = SampleStore(tmp_path / "run")
    store.append(draw(0))
    assert (tmp_path / "run" / "writer.lock").exists()
    assert is_locked(tmp_path / "run" / "writer.lock")
    del store
    with lock(tmp_path / "run" / "writer.lock"), pytest.raises(WriteConflictError):
        SampleStore.load(tmp_path / "run").append(draw(1))
    SampleStore.load(tmp_path / "run").append(draw(1))
    SampleStore(tmp_path / "other")
    SampleStore(tmp_path / "other").append(draw(0))  # the lock file alone is no content


@pytest.mark.parametrize("locks", [True, False])
@every_row("second", CHANGES)
@every_row("first", CHANGES)
def test_two_stores_of_one_folder(folder, tmp_path, monkeypatch, first, second, locks):
    """Nothing of the first is lost, whatever the second has tried."""
    if not locks:
        monkeypatch.setattr(sample_folder, "lock_folder", lambda path: None)
    folder = shutil.copytree(folder, tmp_path / f"{first}, {second}")
    one, other = SampleStore.load(folder), SampleStore.load(folder)
    change, after = CHANGES[first]
    change(one)
    for _ in range(2):
        with pytest.raises(WriteConflictError, match=r"manifest\.json was replaced"):
            CHANGES[second][0](other)
    check(one, after)
    one.append(draw(7))
    again = SampleStore.load(folder)
    check(again, [*after, 7])
    again.append(draw(8))
    with pytest.raises(WriteConflictError):
        one.append(draw(9))
    check(SampleStore.load(folder), [*after, 7, 8])


def test_a_reader_while_the_store_is_thinned(folder, monkeypatch):
    """Files that are gone because they do not count any more are no damage."""
    writer, read = SampleStore.load(folder), sample_folder.read_manifest

    def read_then_thin(path):
        result = read(path)
        if len(writer) == 3:
            writer.thin()
        return result

    monkeypatch.setattr(sample_folder, "read_manifest", read_then_thin)
    check(SampleStore.load(folder), [1])


def test_copies_of_a_store_can_write(folder):
    store = SampleStore.load(folder)
    store.append(draw(3))
    for duplicate in (copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))):
        store = duplicate(store)
        check(store, range(len(store)))
        store.append(draw(len(store)))
    check(SampleStore.load(folder), range(6))
