import importlib.metadata
import json
import os
import shutil
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
from targets.rows import every_row

from keras_langevin.storage import sample_folder
from keras_langevin.storage.sample import Sample
from keras_langevin.storage.sample_store import (
    CorruptSampleError,
    SampleStore,
    WriteConflictError,
)


def draw(step=0, **facts):
    kernel = np.arange(6, dtype="float32").reshape(2, 3) + step
    return Sample({"net/dense/kernel": kernel, "net/scale": np.float32(step)}, step=step, **facts)


@pytest.fixture
def folder(tmp_path):
    """A store of three samples on the disk."""
    store = SampleStore(tmp_path / "run")
    for step in range(3):
        store.append(draw(step, learning_rate=0.1, temperature=1.0, chain=2, position=step + 1))
    return tmp_path / "run"


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return SampleStore(tmp_path / "run" if request.param == "disk" else None)


def steps(store):
    return [sample.step for sample in store]


# ------------------------------------------------------------------------------ a sample


def test_sample_is_a_mapping_with_facts():
    sample = draw(7, learning_rate=0.5)
    assert list(sample) == ["net/dense/kernel", "net/scale"]
    assert len(sample) == 2 and sample["net/scale"] == 7
    assert (sample.step, sample.learning_rate, sample.temperature, sample.chain) == (
        7,
        0.5,
        None,
        0,
    )
    with pytest.raises(AttributeError):
        sample.step = 8


def test_sample_copies_its_arrays():
    array = np.zeros(3)
    sample = Sample({"w": array})
    array[:] = 1
    assert not sample["w"].any()


@every_row(
    "arguments",
    [
        {"weights": {}},
        {"weights": [np.zeros(3)]},
        {"weights": {3: np.zeros(3)}},
        {"weights": {"w": np.array(["text"])}},
        {"weights": {"w": np.array([None])}},
        {"weights": {"w": np.zeros(2, dtype=[("a", object)])}},
        {"step": -1},
        {"step": 1.5},
        {"step": True},
        {"chain": None},
        {"learning_rate": float("nan")},
        {"temperature": "hot"},
    ],
)
def test_sample_refuses(arguments):
    with pytest.raises(ValueError, match="Received: "):
        Sample(**{"weights": {"w": np.zeros(3)}, **arguments})


# ------------------------------------------------------------------- both kinds of store


def test_append_iterate_index(store):
    for step in range(4):
        store.append(draw(step))
    assert len(store) == 4
    assert steps(store) == [0, 1, 2, 3]
    assert store[-1].step == store[np.int64(3)].step == 3
    assert [s.step for s in store[1:3]] == [1, 2]
    np.testing.assert_array_equal(store[2]["net/dense/kernel"], [[2, 3, 4], [5, 6, 7]])
    with pytest.raises(IndexError):
        store[4]


def test_a_plain_mapping_is_a_sample(store):
    store.append({"w": np.ones(2)})
    assert store[0].step is None and store[0].chain == 0


@every_row(
    "other, words",
    [
        ({"net/dense/kernel": np.zeros((2, 3), "float32")}, "'net/scale' is missing"),
        ({**draw(), "more": np.zeros(1)}, "'more' is not in the store"),
        (
            {**draw(), "net/scale": np.zeros(4, "float32")},
            r"\(4,\) float32, stored is \(\) float32",
        ),
        ({**draw(), "net/scale": np.float64(0)}, r"\(\) float64, stored is \(\) float32"),
    ],
)
def test_append_refuses_other_weights(store, other, words):
    if not len(store):
        store.append(draw())
    with pytest.raises(ValueError, match=words):
        store.append(other)
    assert len(store) == 1


@every_row("value", [np.nan, np.inf, -np.inf])
def test_append_refuses_nonfinite(store, value):
    bad = dict(draw(5))
    bad["net/dense/kernel"] = np.full((2, 3), value, "float32")
    with pytest.raises(ValueError, match=r"NaN or infinity in net/dense/kernel \(step=5\)"):
        store.append(Sample(bad, step=5))
    assert len(store) == 0


def test_order_of_names_does_not_matter(store):
    store.append(draw(1))
    store.append({name: draw(2)[name] for name in ("net/scale", "net/dense/kernel")})
    assert list(store[1]) == list(store[0]) == ["net/dense/kernel", "net/scale"]
    assert store[1]["net/scale"] == 2


@every_row(
    "dtype", ["float16", "float64", "int32", "uint8", "bool", "bfloat16", "float8_e4m3fn", ">f4"]
)
@every_row("directory", [None, "run"])
def test_dtypes_survive(tmp_path, directory, dtype):
    store = SampleStore(directory and tmp_path / dtype)
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    scalar = np.array(1).astype(dtype)
    store.append({"a/b": array, "c": scalar})
    read = store[0]
    assert read["a/b"].dtype == dtype.newbyteorder("=") and read["c"].shape == ()
    assert (read["a/b"] == array).all() and read["c"] == scalar


def test_empty_arrays_survive(store):
    store.append({"a": np.zeros((0, 3), "float32"), "b": np.zeros((2, 0), ml_dtypes.bfloat16)})
    assert store[0]["a"].shape == (0, 3) and store[0]["b"].shape == (2, 0)


def test_thin_keeps_every_other_from_the_second(store):
    for step in range(5):
        store.append(draw(step))
    store.thin(schedule={"thinning": 2})
    assert steps(store) == [1, 3]
    assert store.schedule == {"thinning": 2}
    store.append(draw(9))
    assert steps(store) == [1, 3, 9]
    with pytest.raises(ValueError, match="indices from 0 to 2"):
        store.thin([3])


# -------------------------------------------------------------------------------- a folder


def test_load_gives_back_everything(folder):
    store = SampleStore.load(folder)
    assert store.directory == folder and len(store) == 3
    last = store[2]
    assert last.facts == {
        "step": 2,
        "learning_rate": 0.1,
        "temperature": 1.0,
        "chain": 2,
        "position": 3,
    }
    assert last["net/dense/kernel"].dtype == np.float32
    np.testing.assert_array_equal(last["net/dense/kernel"], draw(2)["net/dense/kernel"])
    store.append(draw(3))
    assert steps(SampleStore.load(folder)) == [0, 1, 2, 3]


def test_files_are_readable_by_numpy_alone(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [w["name"] for w in manifest["weights"]] == ["net/dense/kernel", "net/scale"]
    with np.load(folder / manifest["samples"][1]["file"], allow_pickle=False) as file:
        np.testing.assert_array_equal(file["00000"], draw(1)["net/dense/kernel"])


def test_manifest_names_what_wrote_it(folder):
    SampleStore.load(folder).set_optimizer("SGLD")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["keras_version"] == keras.__version__
    assert manifest["keras_langevin_version"] == importlib.metadata.version("keras_langevin")
    assert manifest["optimizer"] == "SGLD"
    assert manifest["samples"][1].keys() >= {"sha256", "step", "learning_rate", "temperature"}
    assert manifest["weights"][0] == {
        "name": "net/dense/kernel",
        "shape": [2, 3],
        "dtype": "float32",
    }


def test_another_optimizer_is_told(store):
    store.set_optimizer("Adam")
    store.set_optimizer("SGLD")  # nothing is stored yet
    weights = {"w": ((2,), "float64")}
    assert store.differences(weights, "SGHMC") == []
    store.append({"w": np.ones(2)})
    assert store.optimizer == "SGLD" and store.differences(weights, "SGLD") == []
    assert store.differences(weights, "SGHMC") == ["the optimizer is SGHMC, stored is SGLD"]
    with pytest.raises(ValueError, match="Received: SGHMC, stored is SGLD"):
        store.set_optimizer("SGHMC")
    with pytest.raises(ValueError, match="Received: name=None"):
        store.set_optimizer(None)
    if store.directory is not None:
        assert SampleStore.load(store.directory).optimizer == "SGLD"


def test_one_sample_in_memory_while_iterating(folder, monkeypatch):
    reads = []
    read = sample_folder.SampleFolder.read
    monkeypatch.setattr(
        sample_folder.SampleFolder, "read", lambda self, e: reads.append(e) or read(self, e)
    )
    iterator = iter(SampleStore.load(folder))
    assert not reads
    next(iterator)
    assert len(reads) == 1


def test_a_folder_in_use_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"resume=True.*choose another directory"):
        SampleStore(folder)
    assert len(SampleStore.load(folder)) == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        SampleStore(tmp_path / "mine")
    with pytest.raises(ValueError, match="must be a folder"):
        SampleStore(tmp_path / "mine" / "thesis.txt")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_store_without_samples_may_be_started_again(tmp_path):
    SampleStore(tmp_path)
    SampleStore(tmp_path).append(draw())
    with pytest.raises(ValueError, match="new or empty"):
        SampleStore(tmp_path)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def delete(path):
    path.unlink()


def swap(path):
    shutil.copy(path.with_name("sample-000000.npz"), path)


@pytest.mark.parametrize("damage", [truncate, flip, delete, swap])
def test_damage_is_found(folder, damage):
    opened_before = SampleStore.load(folder)
    damage(folder / "sample-000001.npz")
    with pytest.raises(CorruptSampleError, match=r"sample-000001\.npz.*on_corrupt=\"skip\""):
        SampleStore.load(folder)
    with pytest.raises(CorruptSampleError, match=r"sample-000001\.npz"):
        list(opened_before)

    with pytest.warns(UserWarning, match=r"sample-000001\.npz"):
        store = SampleStore.load(folder, on_corrupt="skip")
    assert steps(store) == [0, 2]
    with pytest.raises(ValueError, match="drop"):
        store.append(draw(3))
    with pytest.raises(ValueError, match="drop"):
        store.thin()

    with pytest.warns(UserWarning, match=r"sample-000001\.npz"):
        store = SampleStore.load(folder, on_corrupt="drop")
    store.append(draw(3))
    assert steps(SampleStore.load(folder)) == [0, 2, 3]


def test_damage_is_a_value_error_with_the_step(folder):
    delete(folder / "sample-000002.npz")
    with pytest.raises(ValueError, match=r"\(step 2\), and it is missing"):
        SampleStore.load(folder)


def test_manifest_missing(tmp_path):
    with pytest.raises(ValueError, match=r"must hold a manifest\.json"):
        SampleStore.load(tmp_path)
    with pytest.raises(ValueError, match=r"must hold a manifest\.json"):
        SampleStore.load(tmp_path / "nowhere")


def test_manifest_not_json(folder):
    truncate(folder / "manifest.json")
    with pytest.raises(ValueError, match="it is not JSON"):
        SampleStore.load(folder)


@every_row(
    "changes, words",
    [
        ({"format": "other"}, '"format" is not'),
        (
            {"format_version": 9, "keras_langevin_version": "9.9"},
            r"written by keras_langevin '9\.9'",
        ),
        ({"format_version": "1"}, "format_version"),
        ({"samples": {}}, '"samples" is missing'),
        ({"samples": []}, "does not match its checksum"),
        ({"next_number": 1}, "does not match its checksum"),
    ],
)
def test_manifest_edited(folder, changes, words):
    path = folder / "manifest.json"
    good = path.read_text()
    path.write_text(json.dumps(json.loads(good) | changes))
    with pytest.raises(ValueError, match=words):
        SampleStore.load(folder)
    path.write_text(good)


# ------------------------------------------------------------------- crashes and failures


class Crash(BaseException):
    """As sudden as a kill: nothing of the package may count on cleaning up."""


@pytest.mark.parametrize("which", ["sample", "manifest"])
def test_a_crash_in_append_leaves_the_store_as_it_was(folder, monkeypatch, which):
    store = SampleStore.load(folder)
    replace = os.replace

    def crash(source, target):
        if which in str(target):
            raise Crash
        replace(source, target)

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(Crash):
        store.append(draw(3))
    monkeypatch.undo()
    assert steps(store) == [0, 1, 2]
    assert steps(SampleStore.load(folder)) == [0, 1, 2]
    again = SampleStore.load(folder)
    again.append(draw(4))
    assert steps(SampleStore.load(folder)) == [0, 1, 2, 4]
    with pytest.raises(WriteConflictError, match=r"manifest\.json was replaced"):
        store.append(draw(5))


def test_a_failed_first_append_fixes_no_names(tmp_path, monkeypatch):
    store = SampleStore(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        store.append(draw())
    store.append({"other": np.zeros(2)})
    assert list(store[0]) == ["other"]


def test_a_crash_in_thin_leaves_a_valid_store_and_no_rubbish(folder, monkeypatch):
    store = SampleStore.load(folder)
    unlink = Path.unlink

    def crash(path, **kwargs):
        if path.suffix == ".npz":
            raise Crash
        unlink(path, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Path, "unlink", crash)
        store.thin()
    again = SampleStore.load(folder)
    assert steps(again) == [1]
    again.append(draw(7))
    assert steps(SampleStore.load(folder)) == [1, 7]
    assert sorted(p.name for p in folder.iterdir()) == [
        "manifest.json",
        "sample-000001.npz",
        "sample-000003.npz",
    ]


def test_thin_removes_the_files(folder):
    SampleStore.load(folder).thin([0])
    assert [p.name for p in folder.glob("*.npz")] == ["sample-000000.npz"]
