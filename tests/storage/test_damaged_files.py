"""Every changed byte of a store: it is found, and no wrong sample is ever returned."""

import itertools
import shutil
import warnings
import zipfile

import numpy as np
import pytest
from targets.store_cases import read, write_store

from keras_langevin.storage import json_file, sample_folder
from keras_langevin.storage.sample_store import CorruptSampleError, SampleStore


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


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.fuzz) for s in (1, 2, 3))])
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
