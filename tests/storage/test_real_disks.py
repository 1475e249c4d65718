"""Disks that are full or read-only, and folders that are taken away."""

import contextlib
import errno
import os
import shutil
import subprocess

import pytest
from targets.rows import every_row
from targets.store_cases import CHANGES, check, draw

from keras_langevin.storage.errors import StorageError
from keras_langevin.storage.sample_store import CorruptSampleError, SampleStore


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a tmpfs of 256 kB, and a function that changes its options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False

    if not mount("size=256k"):
        pytest.skip("needs the right to mount a tmpfs")
    yield place, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(small_disk):
    place, remount = small_disk
    store, size = SampleStore(place / "run"), 3000
    with pytest.raises(StorageError, match="No space left on device") as caught:
        for step in range(100):
            store.append(draw(step, size))
    assert caught.value.errno == errno.ENOSPC
    steps = range(len(store))
    assert 4 < len(steps) < 12
    check(SampleStore.load(place / "run"), steps, size)
    assert not list((place / "run").glob("*.tmp"))  # half a sample does not fill the disk
    with pytest.raises(StorageError, match=rf"The {len(steps)} samples stored before are kept"):
        store.append(draw(len(steps), size))
    assert remount("size=512k")
    store.append(draw(len(steps), size))
    check(SampleStore.load(place / "run"), range(len(steps) + 1), size)


def test_thinning_makes_space_on_a_full_disk(small_disk):
    place, _ = small_disk
    store, size = SampleStore(place / "run"), 3000
    with contextlib.suppress(StorageError):
        for step in range(100):
            store.append(draw(step, size))
    last = len(store)
    while True:  # the manifest alone needs a page
        with contextlib.suppress(OSError), open(place / "filler", "ab") as file:
            file.write(bytes(1024))
            file.flush()
            continue
        break
    (place / "filler").write_bytes(bytes((place / "filler").stat().st_size - 8192))
    store.thin()
    store.append(draw(last, size))
    check(SampleStore.load(place / "run"), [*range(1, last, 2), last], size)


def test_a_disk_that_turns_read_only(small_disk):
    place, remount = small_disk
    store = SampleStore(place / "run")
    store.append(draw(0))
    assert remount("ro")
    with pytest.raises(StorageError, match=r"Read-only file system.*Make that folder writable"):
        store.append(draw(1))
    with pytest.raises(StorageError, match="Read-only file system"):
        store.thin()
    with pytest.raises(StorageError, match="Nothing is stored yet"):
        SampleStore(place / "other")
    check(store, [0])
    check(SampleStore.load(place / "run"), [0])
    assert remount("rw")
    store.append(draw(1))
    check(SampleStore.load(place / "run"), [0, 1])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder")
def test_a_folder_without_write_permission(folder):
    store = SampleStore.load(folder)
    folder.chmod(0o555)
    with pytest.raises(StorageError, match="Make that folder writable"):
        store.append(draw(3))
    check(SampleStore.load(folder), [0, 1, 2])
    folder.chmod(0o755)
    store.append(draw(3))
    check(SampleStore.load(folder), [0, 1, 2, 3])


def test_a_folder_that_is_taken_away_and_put_back(folder, tmp_path):
    store = SampleStore.load(folder)
    folder.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(StorageError, match=r"3 samples .* is not there.*Put the folder back"):
            store.append(draw(3))
    with pytest.raises(CorruptSampleError, match="it is missing"):
        store[0]
    assert not folder.exists()
    shutil.copytree(tmp_path / "elsewhere", folder)
    store.append(draw(3))
    check(SampleStore.load(folder), [0, 1, 2, 3])


@every_row("rest", ["nothing", "an empty folder", "a file"])
def test_a_folder_that_is_removed(folder, tmp_path, rest):
    folder = shutil.copytree(folder, tmp_path / rest)
    store = SampleStore.load(folder)
    shutil.rmtree(folder)
    if rest == "an empty folder":
        folder.mkdir()
    elif rest == "a file":
        folder.touch()
    for change, _ in CHANGES.values():
        with pytest.raises(StorageError, match=r"3 samples .* is not there"):
            change(store)
    assert not folder.is_dir() or not list(folder.iterdir())
