"""What can go wrong with stored samples, and the words for it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path


class CorruptSampleError(ValueError):
    """A stored sample is missing, truncated or altered. A `ValueError`."""


class StorageError(OSError):
    """The disk refused to store something: it is full, read-only or gone. An `OSError`.

    `errno` is the cause's. What was stored before is kept, and the same call can be made again.
    """


class WriteConflictError(RuntimeError):
    """Another process, or another store of this one, writes into the same folder."""


ADVICE = {
    errno.ENOSPC: "Free space on that disk",
    errno.EDQUOT: "Free space in your quota of that disk",
    errno.EROFS: "Make that folder writable",
    errno.EACCES: "Make that folder writable",
    errno.EPERM: "Make that folder writable",
    errno.ENOENT: "Put the folder back as it was, with its files",
    errno.ENOTDIR: "Put the folder back as it was, with its files",
}


@contextlib.contextmanager
def explain_write_errors(folder: Path, what: str, kept: Callable[[], str]) -> Iterator[None]:
    """Turns an `OSError` into a `StorageError` that says what is kept and how to go on.

    Args:
        folder: Where something is written.
        what: What is written: "The sample of step 3".
        kept: Called when it fails: a sentence on what is still there.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        advice = ADVICE.get(error.errno, "Repair the disk or choose another")
        raise StorageError(
            error.errno or errno.EIO,
            f"{what} must be written to the disk. Received: '{error.strerror or error}' in "
            f"directory='{folder}'. {kept()} {advice}, then make the same call again, or "
            "continue the run in a new process with `PosteriorSampler(..., resume=True)`.",
        ) from error
