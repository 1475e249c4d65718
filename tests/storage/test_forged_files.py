"""Manifests and sample files that were made to harm, with right checksums."""

import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from targets.rows import every_row
from targets.store_cases import read, write_store

from keras_langevin.storage.json_file import json_bytes
from keras_langevin.storage.sample_store import CorruptSampleError, SampleStore


@pytest.fixture
def folder(tmp_path):
    write_store(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def copies(folder, tmp_path):
    """Folders of the same store, a new one for each row of a table."""
    return (shutil.copytree(folder, tmp_path / f"copy {i}") for i in itertools.count())


def content_of(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    keys = ("weights", "samples", "optimizer", "schedule", "next_number", "dropped_files")
    return {key: manifest[key] for key in keys}


def forge(folder, change):
    """Rewrites the manifest with a right checksum, as anybody can who writes a store."""
    content = content_of(folder)
    change(content)
    (folder / "manifest.json").write_bytes(json_bytes("SampleStore", content))


def entry(**changes):
    return lambda content: content["samples"][0].update(changes)


def weight(**changes):
    return lambda content: content["weights"][0].update(changes)


def top(**changes):
    return lambda content: content.update(changes)


FORGED = {
    "parent": entry(file="../sample-000000.npz"),
    "absolute": entry(file="/etc/passwd"),
    "folder": entry(file="."),
    "empty name": entry(file=""),
    "null byte": entry(file="sample-000000.npz\0"),
    "new line": entry(file="sample-000000.npz\n"),
    "other digits": entry(file="sample-٠٠٠٠٠٠.npz"),
    "long name": entry(file=f"sample-{'0' * 5000}.npz"),
    "backslash": entry(file="..\\sample-000000.npz"),
    "file a number": entry(file=3),
    "repeated file": entry(file="sample-000001.npz"),
    "sha a number": entry(sha256=3),
    "sha wrong": entry(sha256="0" * 64),
    "step text": entry(step="3"),
    "step negative": entry(step=-1),
    "step true": entry(step=True),
    "step a float": entry(step=1.5),
    "chain null": entry(chain=None),
    "chain a list": entry(chain=[0]),
    "position negative": entry(position=-(10**30)),
    "rate text": entry(learning_rate="high"),
    "temperature a list": entry(temperature=[1.0]),
    "unknown fact": entry(code="__import__('os')"),
    "missing fact": lambda content: content["samples"][0].pop("step"),
    "sample a list": lambda content: content["samples"].append([]),
    "sample null": lambda content: content["samples"].append(None),
    "name a number": weight(name=3),
    "name repeated": weight(name="net/scale"),
    "shape text": weight(shape="23"),
    "shape of floats": weight(shape=[2.0, 3.0]),
    "shape of booleans": weight(shape=[True, 6]),
    "shape negative": weight(shape=[-2, -3]),
    "shape huge": weight(shape=[2**62, 2**62]),
    "shape larger": weight(shape=[10**30, 0]),
    "shape wrong": weight(shape=[3, 2]),
    "shape deep": weight(shape=[1] * 4000),
    "shape nested": weight(shape=[[2], [3]]),
    "dtype object": weight(dtype="object"),
    "dtype O": weight(dtype="O"),
    "dtype structured": weight(dtype="f4,O"),
    "dtype a module's name": weight(dtype="__file__"),
    "dtype a function": weight(dtype="finfo"),
    "dtype empty": weight(dtype=""),
    "dtype text": weight(dtype="str96"),
    "dtype of time": weight(dtype="datetime64"),
    "dtype void": weight(dtype="void32"),
    "dtype other": weight(dtype="int32"),
    "dtype larger": weight(dtype="float64"),
    "dtype not ASCII": weight(dtype="\ud800"),
    "dtype long": weight(dtype="i" * 10**5),
    "unknown weight entry": weight(code="1"),
    "no weights": top(weights=[]),
    "fewer weights": lambda content: content["weights"].pop(0),
    "more weights": lambda content: content["weights"].append(
        {"name": "more", "shape": [2], "dtype": "float32"}
    ),
    "weights exchanged": lambda content: content["weights"].reverse(),
    "weights null": top(weights=None),
    "samples a dict": top(samples={}),
    "schedule a list": top(schedule=[]),
    "optimizer a number": top(optimizer=3),
    "number too small": top(next_number=1),
    "number negative": top(next_number=-1),
    "number huge": top(next_number=10**4000),
    "number true": top(next_number=True),
    "dropped outside": top(dropped_files=["../precious.npz"]),
    "dropped nested": top(dropped_files=[["sample-000009.npz"]]),
    "dropped and listed": top(dropped_files=["sample-000000.npz"]),
}


@every_row("case", FORGED)
def test_a_forged_manifest(copies, case):
    folder = next(copies)
    forge(folder, FORGED[case])
    with pytest.raises(ValueError, match="Received: ") as caught:
        read(SampleStore.load(folder))
    assert len(str(caught.value)) < 2000
    assert (folder / "sample-000000.npz").exists()


@every_row("value", ["NaN", "-Infinity", "1e999", "1" * 5000])
@every_row("key", ["learning_rate", "temperature", "step", "next_number"])
def test_numbers_that_json_should_not_have(copies, key, value):
    folder, marker = next(copies), 123456.5
    forge(folder, top(next_number=marker) if key == "next_number" else entry(**{key: marker}))
    text = (folder / "manifest.json").read_text().replace(str(marker), value)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="Received: "):
        SampleStore.load(folder)


@every_row(
    "text",
    [
        "",
        "null",
        "3",
        "[]",
        '"text"',
        "{}",
        "[" * 10**6,
        '{"a":' * 10**5,
        "[" * 900 + "]" * 900,
        '{"samples": ' + "[" * 980 + "]" * 980 + "}",
        "\ufeff{}",
        "{'samples': []}",
    ],
)
def test_a_manifest_that_is_another_document(copies, text):
    folder = next(copies)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json', and"):
        SampleStore.load(folder)


def test_a_forged_manifest_removes_no_file_outside(folder):
    precious = folder.parent / "precious.npz"
    precious.write_bytes(b"")
    forge(folder, FORGED["dropped outside"])
    with pytest.raises(ValueError, match="not the name of a sample file"):
        SampleStore.load(folder)
    assert precious.exists()


def test_a_manifest_that_is_deep_where_it_may_hold_anything(folder):
    content = content_of(folder) | {"schedule": {"depth": "here"}}
    text = json_bytes("SampleStore", content).decode().replace('"here"', '{"a":' * 10**5)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json', and"):
        SampleStore.load(folder)


# ------------------------------------------------------------------ sample files with a right SHA


class Harm:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def replace_sample(folder, data):
    (folder / "sample-000000.npz").write_bytes(data)
    forge(folder, entry(sha256=hashlib.sha256(data).hexdigest()))


def archive(members, **options):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return file.getvalue()


def array_file(array=None, header=None):
    """An `.npy`, or one whose header says something else."""
    file = io.BytesIO()
    if header is None:
        np.lib.format.write_array(file, array, allow_pickle=True)
        return file.getvalue()
    header = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24)


def members(first):
    return {"00000.npy": first, "00001.npy": array_file(np.array(1, "uint16"))}


KERNEL = np.zeros((2, 3), "float32")
GOOD = array_file(KERNEL)
HEADER = "{{'descr': {}, 'fortran_order': False, 'shape': {}}}".format
HARMFUL = {
    "no archive": b"PK\x03\x04" + bytes(100),
    "empty": b"",
    "no members": archive({}),
    "other names": archive({"kernel.npy": GOOD}),
    "one missing": archive({"00000.npy": GOOD}),
    "text": archive(members(b"no array")),
    "compressed": archive(members(GOOD), compression=zipfile.ZIP_DEFLATED),
    "larger than the file": archive(members(array_file(header=HEADER("'<f4'", (10**12, 3))))),
    "of more than all memory": archive(members(array_file(header=HEADER("'<f4'", (2**62,))))),
    "negative": archive(members(array_file(header=HEADER("'<f4'", (-2, -3))))),
    "objects": archive(members(array_file(header=HEADER("'|O'", (2, 3))))),
    "structured": archive(members(array_file(header=HEADER("[('a', '|O')]", (2, 3))))),
    "code": archive(members(array_file(header="__import__('os').abort()"))),
    "deep header": archive(members(array_file(header="-" * 9000 + "1"))),
    "long header": archive(members(array_file(header="[" * 60_000))),
    "other shape": archive(members(array_file(np.zeros((3, 2), "float32")))),
    "other type": archive(members(array_file(np.zeros((2, 3), "int32")))),
    "short": archive(members(GOOD[:-4])),
    "version 3": archive(members(GOOD[:6] + b"\x03\x00" + GOOD[8:])),
    "encrypted": archive(members(GOOD)).replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
    ),
    "unknown compression": archive(members(GOOD)).replace(
        b"\x14\x00\x00\x00\x00\x00", b"\x14\x00\x00\x00\x63\x00"
    ),
}


@every_row("case", HARMFUL)
def test_a_harmful_sample_file(copies, case):
    folder = next(copies)
    replace_sample(folder, HARMFUL[case])
    store = SampleStore.load(folder)
    with pytest.raises(CorruptSampleError, match=r"sample-000000\.npz.*cannot be read"):
        store[0]
    assert store[1].step == 1


def test_such_a_sample_file_is_read_when_it_is_harmless(folder):
    """The cases above fail for what they say, not for how they are made."""
    replace_sample(folder, archive(members(GOOD)))
    np.testing.assert_array_equal(SampleStore.load(folder)[0]["net/kernel"], KERNEL)
    big_endian = array_file(np.ones((2, 3), ">f4", order="F"))
    replace_sample(folder, archive(members(big_endian)))
    kernel = SampleStore.load(folder)[0]["net/kernel"]
    np.testing.assert_array_equal(kernel, np.ones((2, 3), "float32"), strict=True)


def test_nothing_is_unpickled(folder, tmp_path):
    harm = np.array([Harm(tmp_path / "harmed")] * 6, dtype=object).reshape(2, 3)
    replace_sample(folder, archive(members(array_file(harm))))
    with pytest.raises(CorruptSampleError):
        SampleStore.load(folder)[0]
    replace_sample(folder, pickle.dumps(Harm(tmp_path / "harmed")))
    with pytest.raises(CorruptSampleError):
        SampleStore.load(folder)[0]
    assert not (tmp_path / "harmed").exists()
    with np.load(io.BytesIO(archive(members(array_file(harm)))), allow_pickle=True) as file:
        file["00000"]  # what would have happened
    assert (tmp_path / "harmed").exists()


@every_row("kind", ["pipe", "folder", "link to nothing", "link to a device"])
def test_a_sample_that_is_no_file(copies, kind):
    folder = next(copies)
    path = folder / "sample-000000.npz"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "link to a device" else "nothing")
    with pytest.raises(CorruptSampleError, match=r"it is (not a file|missing)"):
        SampleStore.load(folder)


def test_writing_follows_no_link(folder, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("manifest.json.tmp", "sample-000002.npz.tmp", "sample-000002.npz"):
        (folder / name).symlink_to(precious)
    store = SampleStore.load(folder)
    store.append(store[0])
    assert precious.read_text() == "mine"
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert len(SampleStore.load(folder)) == 3


def test_dropped_files_of_a_stranger(folder, tmp_path):
    """They are removed with the next write: files of samples only, and no link's target."""
    precious = tmp_path / "precious.npz"
    precious.write_text("mine")
    (folder / "sample-000008.npz").symlink_to(precious)
    forge(folder, top(dropped_files=["sample-000008.npz"], next_number=9))
    SampleStore.load(folder).set_schedule({})
    assert precious.read_text() == "mine"
    assert not (folder / "sample-000008.npz").is_symlink()
