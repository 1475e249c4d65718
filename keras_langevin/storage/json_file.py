"""A JSON document in a file that is always whole, and known when it was altered."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path

import keras

from keras_langevin.storage.array_file import write_atomically

FORMAT_VERSION = 1


def write_json(path: Path, kind: str, content: dict) -> None:
    """Replaces the file `path` by `content` with a header: kind, versions, checksum."""
    document = {
        "format": f"keras_langevin.{kind}",
        "format_version": FORMAT_VERSION,
        "keras_langevin_version": _package_version(),
        "keras_version": keras.__version__,
        "checksum": _checksum(content),
        **content,
    }
    text = json.dumps(document, indent=1, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path, kind: str, keys: dict[str, type | tuple]) -> dict:
    """The content of a file from `write_json`.

    Args:
        path: The file, which must exist.
        kind: The `kind` it was written with.
        keys: The keys of the content, and the type of each.

    Raises:
        ValueError: If the file is damaged, or a newer version wrote it.
    """
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise damaged(path, f"it is not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("format") != f"keras_langevin.{kind}":
        raise damaged(path, f'its "format" is not "keras_langevin.{kind}"')
    version = document.get("format_version")
    if not isinstance(version, int):
        raise damaged(path, f'its "format_version" is {version!r}')
    if version > FORMAT_VERSION:
        raise ValueError(
            f"This keras_langevin reads files up to format version {FORMAT_VERSION}. "
            f"Received: '{path}' with format_version={version}, written by keras_langevin "
            f"{document.get('keras_langevin_version')}. Update keras_langevin to read it."
        )
    for key, kinds in keys.items():
        if not isinstance(document.get(key, ...), kinds):
            raise damaged(path, f'its entry "{key}" is missing or of the wrong kind')
    content = {key: document[key] for key in keys}
    if document.get("checksum") != _checksum(content):
        raise damaged(path, "its content does not match its checksum")
    return content


def damaged(path: Path, what: str) -> ValueError:
    """The error for such a file that is not as it was written."""
    return ValueError(
        f"'{path.name}' must be as keras_langevin wrote it. Received: '{path}', and {what}. "
        "Restore this file from a backup. The `.npz` files beside it are ordinary ones with "
        "arrays in the order of the model's weights, which `numpy.load` reads."
    )


def _checksum(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _package_version():
    try:
        return importlib.metadata.version("keras_langevin")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
