"""A JSON document in a file that is always whole, and known when it was altered."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from pathlib import Path

from keras_langevin.arguments import shorten
from keras_langevin.storage.array_file import write_atomically

FORMAT_VERSION = 2


def write_json(path: Path, kind: str, content: dict) -> None:
    """Replaces the file `path` by `content` with a header; see `json_bytes`."""
    data = json_bytes(kind, content)
    write_atomically(path, lambda file: file.write(data))


def json_bytes(kind: str, content: dict) -> bytes:
    """A JSON document of `content`, its kind and versions, and a checksum over all of it."""
    document = {
        "format": f"keras_langevin.{kind}",
        "format_version": FORMAT_VERSION,
        "keras_langevin_version": _version_of("keras_langevin"),
        "keras_version": _version_of("keras"),
        **content,
    }
    text = _canonical(document)  # once, in C: a store writes all of its manifest with each sample
    return f'{text[:-1]}, "checksum": "{_checksum(text)}"}}'.encode()


def read_json(path: Path, kind: str, keys: dict[str, type | tuple]) -> dict:
    """The content of a file from `write_json`.

    Args:
        path: The file, which must exist.
        kind: The `kind` it was written with.
        keys: The keys of the content, and the type of each.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is damaged, or has another format version.
    """
    return parse_json(path, path.read_bytes(), kind, keys)


def parse_json(path: Path, data: bytes, kind: str, keys: dict[str, type | tuple]) -> dict:
    """As `read_json`, from the bytes of the file."""
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
        checksum = _checksum(_canonical(document)) if isinstance(document, dict) else None
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON ({error})") from None
    if checksum is None or document.get("format") != f"keras_langevin.{kind}":
        raise damaged(path, f'its "format" is not "keras_langevin.{kind}"')
    version = document.get("format_version")
    if type(version) is not int:
        raise damaged(path, f'its "format_version" is {shorten(version)}')
    if version != FORMAT_VERSION:
        raise ValueError(
            f"This keras_langevin reads files of format version {FORMAT_VERSION}. "
            f"Received: '{path}' with format_version={shorten(version)}, written by keras_langevin "
            f"{shorten(document.get('keras_langevin_version'))}. Read it with that one."
        )
    for key, kinds in keys.items():
        if not isinstance(document.get(key, ...), kinds):
            raise damaged(path, f'its entry "{key}" is missing or of the wrong kind')
    if document.get("checksum") != checksum:
        raise damaged(path, "its content does not match its checksum")
    return {key: document[key] for key in keys}


def damaged(path: Path, what: str) -> ValueError:
    """The error for such a file that is not as it was written."""
    return ValueError(
        f"'{path.name}' must be as keras_langevin wrote it. Received: '{path}', and {what}. "
        "Restore this file from a backup. The `.npz` files beside it are ordinary ones with "
        "arrays in the order of the model's weights, which `numpy.load` reads."
    )


def _canonical(document):
    """The text that the checksum is of."""
    rest = {key: value for key, value in document.items() if key != "checksum"}
    return json.dumps(rest, sort_keys=True, allow_nan=False)


def _checksum(text):
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_constant(name):
    raise ValueError(f"{name} is no number of JSON")


@functools.cache
def _version_of(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
