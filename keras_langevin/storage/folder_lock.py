"""One process at a time may write into a folder, where the disk can see to that."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from keras_langevin.storage.errors import WriteConflictError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = "writer.lock"

_held = weakref.WeakValueDictionary()


class FolderLock:
    """A folder is locked by this process while an instance lives.

    It is an advisory lock (`flock`), which the operating system releases when the process ends,
    by SIGKILL too: none is ever stale. It is on the folder itself, and leaves no file; on NFS,
    which cannot lock folders, on an empty file `writer.lock` in it.
    """

    def __init__(self, descriptor: int):
        self.release = weakref.finalize(self, os.close, descriptor)


def lock_folder(path: Path) -> FolderLock | None:
    """The lock of this process on a folder, `None` where nothing can be locked.

    Raises:
        OSError: If the folder cannot be opened.
        WriteConflictError: If another process holds the lock.
    """
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    status = os.fstat(descriptor)
    identity = status.st_dev, status.st_ino
    held = _held.get(identity)
    if held is not None:
        os.close(descriptor)
        return held
    lock = _locked(descriptor, path)
    if lock is None:
        lock = _locked(os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW), path)
    if lock is not None:
        _held[identity] = lock
    return lock


def unlock_folder(path: Path) -> None:
    """Lets other processes write into a folder again, where stores of this one are done with it. A
    store that writes once more takes the lock anew."""
    if fcntl is None or not path.exists():
        return
    status = path.stat()
    held = _held.pop((status.st_dev, status.st_ino), None)
    if held is not None:
        held.release()


def _locked(descriptor, path):
    lock = FolderLock(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WriteConflictError(
            "One process at a time may write into a folder of samples. Received: "
            f"directory='{path}', which another process writes into (on Linux "
            f"`fuser '{path}'` names it). Let it end, or choose another directory. Reading with "
            "`SampleStore.load` is possible at any time."
        ) from None
    except OSError:  # not possible on this disk
        return None
    return lock


def _release_in_child():
    """A forked child would keep the lock after its parent has died."""
    for lock in list(_held.values()):
        lock.release()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
