"""The table of contents of a folder of samples."""

from __future__ import annotations

import re
from pathlib import Path

from keras_langevin.storage.json_file import damaged, read_json, write_json

MANIFEST = "manifest.json"
KIND = "SampleStore"

NONE = type(None)
CONTENT = {
    "weights": list,
    "samples": list,
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
SAMPLE_FILE = re.compile(r"sample-\d{6,}\.npz")


def write_manifest(folder: Path, content: dict) -> None:
    """Replaces the manifest of `folder`; `content` has the keys of `CONTENT`."""
    write_json(folder / MANIFEST, KIND, content)


def read_manifest(folder: Path) -> dict:
    """The checked content of the manifest of `folder`.

    Raises:
        ValueError: If there is no manifest, it is damaged, or a newer version wrote it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"A folder of samples must hold a {MANIFEST}; this one does not. "
            f"Received: path='{folder}'. Pass the `directory` that was given to "
            "`PosteriorSampler` or `SampleStore`."
        )
    content = read_json(path, KIND, CONTENT)
    for rows, fields in ((content["weights"], WEIGHT), (content["samples"], SAMPLE)):
        for row in rows:
            for key, kind in fields.items():
                if not isinstance(row, dict) or not isinstance(row.get(key, ...), kind):
                    raise damaged(path, f'"{key}" is missing or of the wrong kind in {row}')
    # Names are joined to the folder and files removed: nothing outside it may be meant.
    for file in [row["file"] for row in content["samples"]] + content["dropped_files"]:
        if not isinstance(file, str) or not SAMPLE_FILE.fullmatch(file):
            raise damaged(path, f"{file!r} is not the name of a sample file")
    return content
