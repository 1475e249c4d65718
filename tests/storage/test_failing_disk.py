"""A disk that fails at each of the calls that change it, and what must be on it before what."""

import contextlib
import errno
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from targets.rows import every_row
from targets.store_cases import CHANGES, check, draw

from keras_langevin.storage import array_file
from keras_langevin.storage.errors import StorageError
from keras_langevin.storage.sample_store import SampleStore


class Disk:
    """Counts the calls that change the disk; from the `at`-th on `count` of them fail."""

    def __init__(self, at=None, count=1, code=errno.ENOSPC, unlink_fails=False):
        self.at, self.count, self.code, self.unlink_fails = at, count, code, unlink_fails
        self.trace = []

    @contextlib.contextmanager
    def mounted(self, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(array_file, "open", self.open, raising=False)
            for name in ("fsync", "replace", "mkdir"):
                patch.setattr(os, name, self.wrap(name, getattr(os, name)))
            if self.unlink_fails:
                patch.setattr(Path, "unlink", self.wrap("unlink", Path.unlink))
            yield self

    def call(self, *what):
        self.trace.append(what)
        if self.at is not None and 0 <= len(self.trace) - self.at < self.count:
            raise OSError(self.code, os.strerror(self.code))

    def wrap(self, name, function):
        def wrapped(*args, **kwargs):
            place = args[0]
            if name == "fsync":
                place = os.readlink(f"/proc/self/fd/{place}")
            self.call(name, str(place))
            return function(*args, **kwargs)

        return wrapped

    def open(self, path, mode):
        if mode == "rb":
            return open(path, mode)
        self.call("open", str(path))
        return File(self, path, mode)


class File(io.FileIO):
    """A file on a `Disk`. What fails to be written is written by half."""

    def __init__(self, disk, path, mode):
        super().__init__(path, mode.replace("b", ""))
        self.disk, self.path = disk, str(path)

    def write(self, data):
        data = memoryview(data).cast("B")
        try:
            self.disk.call("write", self.path)
        except OSError:
            super().write(data[: len(data) // 2])
            raise
        return super().write(data)

    def flush(self):
        if not self.closed:
            self.disk.call("flush", self.path)

    def close(self):
        if not self.closed:
            super().close()
            self.disk.call("close", self.path)


def number_of_calls(change, folder, monkeypatch):
    with Disk().mounted(monkeypatch) as disk:
        change(SampleStore.load(folder))
    return len(disk.trace)


@every_row("name", CHANGES)
@every_row("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@every_row("count", [1, 10**6])  # once, from then on
def test_a_disk_that_fails_at_every_call_in_turn(folder, tmp_path, monkeypatch, name, code, count):
    change, after = CHANGES[name]
    place = tmp_path / f"{name}, {code}, {count}"
    shutil.copytree(folder, place / "copy")
    total = number_of_calls(change, place / "copy", monkeypatch)
    assert total > 5
    for at in range(1, total + 1):
        here = place / f"failing at {at}"
        shutil.copytree(folder, here)
        store = SampleStore.load(here)
        disk = Disk(at, count, code, unlink_fails=code != errno.ENOSPC)
        with (
            disk.mounted(monkeypatch),
            pytest.raises(StorageError, match="The 3 samples stored before are kept") as caught,
        ):
            change(store)
        assert caught.value.errno == code
        renamed = ("replace", str(here / "manifest.json.tmp")) in disk.trace[: at - 1]
        check(store, [0, 1, 2])
        check(SampleStore.load(here), after if renamed else [0, 1, 2])
        change(store)
        check(store, after)
        check(SampleStore.load(here), after)
        manifest = json.loads((here / "manifest.json").read_text())
        listed = {sample["file"] for sample in manifest["samples"]}
        found = {path.name for path in here.glob("*.npz")}
        # An unfinished file stays where the disk could not remove it, or the manifest had it.
        assert found == listed or (name == "append" and (renamed or disk.unlink_fails))


def test_a_disk_that_fails_before_the_first_sample(tmp_path, monkeypatch):
    with Disk().mounted(monkeypatch) as disk:
        SampleStore(tmp_path / "whole")
    for at in range(1, len(disk.trace) + 1):
        here = tmp_path / f"failing at {at}"
        with (
            Disk(at).mounted(monkeypatch),
            pytest.raises(StorageError, match=r"Nothing is stored yet\. Free space"),
        ):
            SampleStore(here)
        store = SampleStore(here)
        store.append(draw(0))
        check(SampleStore.load(here), [0])


def test_files_that_cannot_be_removed_go_with_the_next_write(folder, monkeypatch):
    store = SampleStore.load(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: Disk(1, code=errno.EBUSY).call("unlink"))
        with pytest.raises(StorageError, match="Device or resource busy"):
            store.thin()  # not even the temporary file of a crash could be removed
    unlink = Path.unlink

    def refuse_samples(path, **kwargs):
        if path.suffix == ".npz":
            raise OSError(errno.EBUSY, "busy")
        unlink(path, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse_samples)
        store.thin()
        store.append(draw(3))
    check(SampleStore.load(folder), [1, 3])
    assert len(list(folder.glob("*.npz"))) == 4
    SampleStore.load(folder).append(draw(4))
    assert len(list(folder.glob("*.npz"))) == 3
    check(SampleStore.load(folder), [1, 3, 4])


def is_durable(trace, folder):
    """Whether files are on the disk before their names, names before the manifest's, and its
    name before the end."""
    written, named = set(), set()
    for what, path in trace:
        if what == "write":
            written.discard(path)
        elif what == "fsync" and path == str(folder):
            named = {"all"}
        elif what == "fsync":
            written.add(path)
        elif what == "replace":
            is_manifest = path.endswith("manifest.json.tmp")
            if path not in written or (is_manifest and named != {"all"}):
                return False
            named = set()
    return named == {"all"}


def test_everything_is_flushed_in_order(folder, monkeypatch):
    store = SampleStore.load(folder)
    with Disk().mounted(monkeypatch) as disk:
        store.append(draw(3))
    trace = disk.trace
    assert [path for what, path in trace if what == "replace"] == [
        str(folder / "sample-000003.npz.tmp"),
        str(folder / "manifest.json.tmp"),
    ]
    assert is_durable(trace, folder)
    flushes = [i for i, (what, _) in enumerate(trace) if what == "fsync"]
    assert len(flushes) == 4  # wrong variants: each of them left out
    assert not any(is_durable(trace[:i] + trace[i + 1 :], folder) for i in flushes)
