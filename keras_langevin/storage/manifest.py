"""The table of contents of a folder of samples."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from keras_langevin.storage.array_file import named_dtype
from keras_langevin.storage.json_file import damaged, json_bytes, parse_json, shorten
from keras_langevin.storage.sample import checked_facts

MANIFEST = "manifest.json"
KIND = "SampleStore"

NONE = type(None)
CONTENT = {
    "weights": list,
    "samples": list,
    "optimizer": (str, NONE),
    "schedule": (dict, NONE),
    "next_number": int,
    "dropped_files": list,
}
WEIGHT = {"name": str, "shape": list, "dtype": str}
SAMPLE = {
    "file": str,
    "sha256": str,
    "step": (int, NONE),
    "learning_rate": (float, NONE),
    "temperature": (float, NONE),
    "chain": int,
    "position": (int, NONE),
}
SAMPLE_FILE = re.compile(r"sample-([0-9]{6,18})\.npz")


def manifest_bytes(content: dict) -> bytes:
    """The manifest of a folder; `content` has the keys of `CONTENT`."""
    return json_bytes(KIND, content)


def read_manifest(folder: Path) -> tuple[dict, str]:
    """The checked content of the manifest of `folder`, and the SHA-256 of the file.

    The checksum tells damage, not intent: what is in the content is checked as well.

    Raises:
        OSError: If the manifest cannot be read.
        ValueError: If there is none, it is damaged, or it has another format version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"A folder of samples must hold a {MANIFEST}; this one does not. "
            f"Received: path='{folder}'. Pass the `directory` that was given to "
            "`PosteriorSampler` or `SampleStore`."
        )
    data = path.read_bytes()
    content = parse_json(path, data, KIND, CONTENT)
    try:
        _check_weights(content["weights"])
        _check_samples(content["samples"])
        _check_files(content)
    except ValueError as error:
        raise damaged(path, str(error)) from None
    return content, hashlib.sha256(data).hexdigest()


def _check_weights(rows):
    for row in rows:
        _check_row(row, WEIGHT)
        named_dtype(row["dtype"])
        if not all(type(size) is int and 0 <= size < 2**63 for size in row["shape"]):
            raise ValueError(f"{shorten(row['shape'])} is not a shape")
    _refuse_repeats([row["name"] for row in rows])


def _check_samples(rows):
    for row in rows:
        _check_row(row, SAMPLE)
        checked_facts(**{key: row[key] for key in SAMPLE if key not in ("file", "sha256")})


def _check_files(content):
    """Names are joined to the folder, written and removed: nothing else may be meant."""
    listed = [row["file"] for row in content["samples"]]
    files = listed + content["dropped_files"]
    for file in files:
        if not isinstance(file, str) or not SAMPLE_FILE.fullmatch(file):
            raise ValueError(f"{shorten(file)} is not the name of a sample file")
    _refuse_repeats(files)
    last = max((int(SAMPLE_FILE.fullmatch(file)[1]) for file in files), default=-1)
    number = content["next_number"]
    if type(number) is not int or not last < number < 10**18:
        raise ValueError(f'"next_number" is {shorten(number)}, after {last}')
    if listed and not content["weights"]:
        raise ValueError("its samples have no weights")


def _check_row(row, fields):
    if not isinstance(row, dict) or row.keys() != fields.keys():
        raise ValueError(f"{shorten(row)} does not have the entries {', '.join(fields)}")
    for key, kind in fields.items():
        if not isinstance(row[key], kind):
            raise ValueError(f'"{key}" is of the wrong kind in {shorten(row)}')


def _refuse_repeats(names):
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shorten(repeated)} is there twice")
