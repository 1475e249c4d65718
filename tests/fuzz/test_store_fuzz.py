"""Every changed byte of a store, and manifests that were made to harm."""

import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest

from keras_langevin.storage import json_file, sample_folder
from keras_langevin.storage.json_file import json_bytes
from keras_langevin.storage.sample import Sample
from keras_langevin.storage.sample_store import CorruptSampleError, SampleStore


def write_store(folder, num_samples=2, size=3, seed=0):
    generator = np.random.default_rng(seed)
    store = SampleStore(folder)
    store.set_optimizer("SGLD")
    for step in range(num_samples):
        weights = {
            "net/kernel": generator.normal(size=(2, size)).astype("float32"),
            "net/scale": np.array(generator.normal()).astype(ml_dtypes.bfloat16),
        }
        store.append(Sample(weights, step=step, learning_rate=0.5**step, temperature=1.0))
    store.set_schedule({"burn_in": 3})
    return read(store)


def read(store):
    """All that a user can see, as plain values."""
    samples = [
        {name: (a.dtype.name, a.shape, a.tobytes()) for name, a in sample.items()}
        for sample in store
    ]
    return list(zip(store.facts, samples, strict=True)), store.optimizer, store.schedule


def load(folder, truth):
    """How the store is opened: "whole", "skipped" or "refused". Anything else fails."""
    samples, *rest = truth
    try:
        assert read(SampleStore.load(folder)) == truth
        outcome = "whole"
    except ValueError as error:
        assert "Received: " in str(error)
        outcome = "refused"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = SampleStore.load(folder, on_corrupt="skip")
        found, *other = read(store)
    except ValueError as error:
        assert not isinstance(error, CorruptSampleError)
        return outcome
    assert other == rest
    assert all(sample in samples for sample in found)
    if outcome == "whole":
        assert found == samples
        return "whole"
    assert len(found) < len(samples)
    return "skipped"


def flips(data, places):
    for place, bit in itertools.product(places, (0, 2, 5, 7)):
        yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def cuts_and_extensions(data, places, generator):
    for place in places:
        yield data[:place]
        yield data[:place] + data[place + 1 :]
        yield data[:place] + generator.bytes(3) + data[place:]
    yield data + b"\0"
    yield data + data
    yield data[::-1]
    yield bytes(len(data))


def outcomes(folder, truth, variants):
    """Counts of outcomes for each file in turn, with its content replaced by variants of it."""
    counts = {}
    for path in sorted(folder.iterdir()):
        good = path.read_bytes()
        counts[path.name] = {"whole": 0, "skipped": 0, "refused": 0}
        for bad in variants(good):
            if bad != good:
                path.write_bytes(bad)
                counts[path.name][load(folder, truth)] += 1
        path.write_bytes(good)
    assert load(folder, truth) == "whole"
    return counts


def check_counts(counts):
    """A sample is never taken as it is; of a manifest nothing but white space may differ."""
    manifest = counts.pop("manifest.json")
    assert manifest["skipped"] == 0 and manifest["refused"] > 9 * manifest["whole"]
    assert all(c["whole"] == c["refused"] == 0 and c["skipped"] > 0 for c in counts.values())


def test_a_byte_flipped_anywhere(tmp_path):
    """Every place of every file, one bit after the other."""
    truth = write_store(tmp_path / "run", num_samples=1)
    bits = itertools.cycle(range(8))

    def flip(data):
        for place, bit in zip(range(len(data)), bits, strict=False):
            yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]

    check_counts(outcomes(tmp_path / "run", truth, flip))


def test_a_file_cut_or_extended_anywhere(tmp_path):
    truth = write_store(tmp_path / "run", num_samples=1)
    generator = np.random.default_rng(0)

    def change(data):
        return cuts_and_extensions(data, range(0, len(data), 3), generator)

    check_counts(outcomes(tmp_path / "run", truth, change))


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2, 3))])
def test_random_damage_of_a_larger_store(tmp_path, seed):
    truth = write_store(tmp_path / "run", num_samples=5, size=700, seed=seed)
    generator = np.random.default_rng(seed)

    def change(data):
        places = generator.integers(len(data), size=8 if seed == 0 else 60)
        yield from flips(data, places)
        yield from cuts_and_extensions(data, places, generator)

    check_counts(outcomes(tmp_path / "run", truth, change))


def test_files_exchanged(tmp_path):
    truth = write_store(tmp_path / "run", num_samples=3)
    first, second, _, manifest = sorted(
        (tmp_path / "run").iterdir(), key=lambda p: (p.suffix == ".json", p.name)
    )
    shutil.copy(second, tmp_path / "kept")
    shutil.copy(first, second)
    assert load(tmp_path / "run", truth) == "skipped"
    shutil.copy(manifest, second)
    assert load(tmp_path / "run", truth) == "skipped"
    shutil.copy(tmp_path / "kept", second)
    shutil.copy(first, manifest)
    assert load(tmp_path / "run", truth) == "refused"


def test_the_check_finds_wrong_data(tmp_path, monkeypatch):
    """Wrong variants: a store that compares no checksum of samples, or none of the manifest."""
    truth = write_store(tmp_path / "run", num_samples=1)
    path = tmp_path / "run" / "sample-000000.npz"
    place = path.read_bytes().index(truth[0][0][1]["net/kernel"][2])
    with monkeypatch.context() as patch:
        patch.setattr(sample_folder, "find_damage", lambda path, sha256: None)
        patch.setattr(zipfile.ZipExtFile, "_update_crc", lambda *_: None)
        with pytest.raises(AssertionError):
            outcomes(tmp_path / "run", truth, lambda data: flips(data, [place]))
    with monkeypatch.context() as patch:
        patch.setattr(json_file, "_checksum", lambda document: "always the same")
        truth = write_store(tmp_path / "other", num_samples=1)
        manifest = tmp_path / "other" / "manifest.json"
        manifest.write_bytes(manifest.read_bytes().replace(b"SGLD", b"SGLE"))
        with pytest.raises(AssertionError):
            load(tmp_path / "other", truth)


# -------------------------------------------------------------------- made with a valid checksum


@pytest.fixture
def folder(tmp_path):
    write_store(tmp_path / "run")
    return tmp_path / "run"


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


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_manifest(folder, case):
    forge(folder, FORGED[case])
    with pytest.raises(ValueError, match="Received: ") as caught:
        read(SampleStore.load(folder))
    assert len(str(caught.value)) < 2000
    assert (folder / "sample-000000.npz").exists()


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "1" * 5000])
@pytest.mark.parametrize("key", ["learning_rate", "temperature", "step", "next_number"])
def test_numbers_that_json_should_not_have(folder, key, value):
    marker = 123456.5
    forge(folder, top(next_number=marker) if key == "next_number" else entry(**{key: marker}))
    text = (folder / "manifest.json").read_text().replace(str(marker), value)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="Received: "):
        SampleStore.load(folder)


@pytest.mark.parametrize(
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
    ids=range(12),
)
def test_a_manifest_that_is_another_document(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json', and"):
        SampleStore.load(folder)


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


@pytest.mark.parametrize("case", HARMFUL)
def test_a_harmful_sample_file(folder, case):
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


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nothing", "link to a device"])
def test_a_sample_that_is_no_file(folder, kind):
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
