"""Files that are either whole or absent, and arrays in such files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

TEMPORARY = ".tmp"


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Lets `write` fill a temporary file, which then takes the name `path` in one step.

    After a crash at any moment `path` is the old file or the new one, whole. The file and the
    new name are on the disk when this returns.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with open(temporary, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_arrays(path: Path, arrays: Sequence[np.ndarray]) -> str:
    """Writes an uncompressed `.npz` that `numpy.load` reads with `allow_pickle=False`.

    The arrays are named `"00000"`, `"00001"` ... bfloat16 and the float8 types, which NumPy's
    format does not know, are written as their bits: `uint16` for bfloat16.

    Returns:
        The SHA-256 of the file.
    """
    digest = None

    def write(file):
        nonlocal digest
        np.savez(file, **{f"{i:05d}": _plain(array) for i, array in enumerate(arrays)})
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()

    write_atomically(path, write)
    return digest


def find_damage(path: Path, sha256: str) -> str | None:
    """What is wrong with a file that had this SHA-256, in words; `None` when nothing is."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read ({error})"
    if digest != sha256:
        return "its content does not match its SHA-256: it was truncated or altered"
    return None


def read_arrays(path: Path, dtypes: Sequence[str]) -> list[np.ndarray]:
    """The arrays of a file from `write_arrays`, of the dtypes (names) they had."""
    with np.load(path, allow_pickle=False) as file:
        arrays = [file[f"{i:05d}"] for i in range(len(dtypes))]
    return [_as_dtype(array, _dtype(name)) for array, name in zip(arrays, dtypes, strict=True)]


def _plain(array):
    return array.view(f"u{array.dtype.itemsize}") if _is_foreign(array.dtype) else array


def _as_dtype(array, dtype):
    return array.view(dtype) if _is_foreign(dtype) else array.astype(dtype, copy=False)


def _is_foreign(dtype):
    return dtype.isbuiltin == 2


def _dtype(name):
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # comes with Keras

        return np.dtype(getattr(ml_dtypes, name))
