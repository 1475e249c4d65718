"""Files that are either whole or absent, and arrays in such files."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

TEMPORARY = ".tmp"
NUMPY_DTYPES = {
    np.dtype(code).name: np.dtype(code)
    for code in "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"]
}


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Lets `write` fill a temporary file, which then takes the name `path` in one step.

    After a crash at any moment `path` is the old file or the new one, whole. The file and the
    new name are on the disk when this returns.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        temporary.unlink(missing_ok=True)  # of a crash; were it a link, "x" would not follow it
        with open(temporary, "x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_arrays(path: Path, arrays: Iterable[np.ndarray]) -> str:
    """Writes an uncompressed `.npz` that `numpy.load` reads with `allow_pickle=False`.

    Each is written before the next one is asked for: a generator need not hold them all.

    The arrays are named `"00000"`, `"00001"` ... bfloat16 and the float8 types, which NumPy's
    format does not know, are written as their bits: `uint16` for bfloat16.

    Returns:
        The SHA-256 of the file.
    """
    digest = None

    def write(file):
        nonlocal digest
        with zipfile.ZipFile(file, "w") as archive:
            for i, array in enumerate(arrays):
                with archive.open(f"{i:05d}.npy", "w", force_zip64=True) as member:
                    _write_array(member, np.asarray(_plain(array), order="C"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()

    write_atomically(path, write)
    return digest


def find_damage(path: Path, sha256: str) -> str | None:
    """What is wrong with a file that had this SHA-256, in words; `None` when nothing is."""
    try:
        if path.exists() and not path.is_file():
            return "it is not a file"  # a pipe would be waited for
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read ({error})"
    if digest != sha256:
        return "its content does not match its SHA-256: it was truncated or altered"
    return None


def read_arrays(
    path: Path, dtypes: Sequence[str], shapes: Sequence[Sequence[int]] | None = None
) -> list[np.ndarray]:
    """The arrays of a file from `write_arrays`.

    Nothing is unpickled, and nothing larger than the file is put into memory.

    Args:
        path: The file.
        dtypes: Name of the dtype that each array had.
        shapes: Shape that each array had, where it is known.

    Raises:
        OSError: If the file cannot be opened or read.
        ValueError: If it does not hold such arrays.
    """
    shapes = [None] * len(dtypes) if shapes is None else shapes
    wanted = list(zip(dtypes, shapes, strict=True))
    try:
        with zipfile.ZipFile(path) as archive:
            return [
                _read_array(archive, f"{i:05d}.npy", named_dtype(dtype), shape)
                for i, (dtype, shape) in enumerate(wanted)
            ]
    except (OSError, MemoryError):
        raise
    except Exception as error:  # zipfile has many for a file that is none of its own
        raise ValueError(f"its arrays cannot be read ({error})") from error


def named_dtype(name: str) -> np.dtype:
    """The numeric dtype that has this name, as in `array.dtype.name`.

    Raises:
        ValueError: If there is none, in NumPy or in `ml_dtypes`.
    """
    if name in NUMPY_DTYPES:
        return NUMPY_DTYPES[name]
    import ml_dtypes  # comes with Keras

    scalar = getattr(ml_dtypes, name, None)
    if not (isinstance(scalar, type) and issubclass(scalar, np.generic)):
        raise ValueError(f"{name!r:.80} is not the name of a numeric dtype")
    return np.dtype(scalar)


def _read_array(archive, name, dtype, shape):
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"array {name} is compressed")  # and may be of any size
    with archive.open(name) as member:
        found_shape, is_fortran, found_dtype = _read_header(member)
        native = found_dtype.newbyteorder("=")
        if native != _plain_dtype(dtype) or (shape is not None and found_shape != tuple(shape)):
            raise ValueError(f"array {name} is {found_shape} {found_dtype}")
        # `numpy.load` would first make an array as large as the header says.
        data = member.read(math.prod(found_shape) * found_dtype.itemsize)
    array = np.frombuffer(data, found_dtype).reshape(found_shape, order="FC"[not is_fortran])
    return array.astype(native).view(dtype)


def _write_array(member, array):
    # `np.lib.format.write_array` would copy 16 MB at a time.
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(member, header)
    member.write(array.data)


def _read_header(member):
    try:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError("no array file of NumPy's version 1.0")
        return np.lib.format.read_array_header_1_0(member)
    except MemoryError:  # Python's parser says so of text that is too deep
        raise ValueError("a header cannot be parsed") from None


def _plain(array):
    return array.view(_plain_dtype(array.dtype))


def _plain_dtype(dtype):
    return np.dtype(f"u{dtype.itemsize}") if dtype.isbuiltin == 2 else dtype
