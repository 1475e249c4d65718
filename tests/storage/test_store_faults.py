"""A store on a disk that fails, beside another writer, and under SIGKILL."""

import contextlib
import copy
import errno
import fcntl
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import keras_langevin as kl
from keras_langevin.storage import array_file, folder_lock, sample_folder
from keras_langevin.storage.errors import StorageError, WriteConflictError
from keras_langevin.storage.sample import Sample
from keras_langevin.storage.sample_store import CorruptSampleError, SampleStore

SIZE = 40


def draw(step, size=SIZE):
    values = np.random.default_rng(step).normal(size=size)
    return Sample({"w": values, "b": values[:1].astype("float32")}, step=step, learning_rate=0.1)


def check(store, steps, size=SIZE):
    """The store holds exactly these samples, and they are right."""
    assert [facts["step"] for facts in store.facts] == list(steps)
    for sample, step in zip(store, steps, strict=True):
        truth = draw(step, size)
        assert sample.facts == truth.facts
        for name in truth:
            np.testing.assert_array_equal(sample[name], truth[name], strict=True)


@pytest.fixture
def folder(tmp_path):
    """A store of three samples on the disk."""
    store = SampleStore(tmp_path / "run")
    for step in range(3):
        store.append(draw(step))
    return tmp_path / "run"


# ------------------------------------------------------------- a disk that fails at each call


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


CHANGES = {
    "append": (lambda store: store.append(draw(3)), [0, 1, 2, 3]),
    "thin": (lambda store: store.thin(), [1]),
    "set_schedule": (lambda store: store.set_schedule({"burn_in": 3}), [0, 1, 2]),
}


def number_of_calls(change, folder, monkeypatch):
    with Disk().mounted(monkeypatch) as disk:
        change(SampleStore.load(folder))
    return len(disk.trace)


@pytest.mark.parametrize("count", [1, 10**6], ids=["once", "from then on"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("name", CHANGES)
def test_a_disk_that_fails_at_every_call_in_turn(folder, tmp_path, monkeypatch, name, code, count):
    change, after = CHANGES[name]
    shutil.copytree(folder, tmp_path / "copy")
    total = number_of_calls(change, tmp_path / "copy", monkeypatch)
    assert total > 5
    for at in range(1, total + 1):
        here = tmp_path / f"failing at {at}"
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
        listed = {entry["file"] for entry in store._shelf.entries}
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


# ---------------------------------------------------------------------------- real small disks


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


@pytest.mark.parametrize("rest", ["nothing", "an empty folder", "a file"])
def test_a_folder_that_is_removed(folder, rest):
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


# --------------------------------------------------------------------------------- two writers


@contextlib.contextmanager
def lock(path, operation=fcntl.LOCK_EX | fcntl.LOCK_NB):
    """As another process that writes there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def is_locked(path):
    try:
        with lock(path):
            return False
    except BlockingIOError:
        return True


def test_a_second_process_is_refused_and_may_read(folder, tmp_path):
    with lock(folder):
        store = SampleStore.load(folder)
        check(store, [0, 1, 2])
        for change, _ in CHANGES.values():
            with pytest.raises(WriteConflictError, match="which another process writes into"):
                change(store)
    store.append(draw(3))
    check(SampleStore.load(folder), [0, 1, 2, 3])
    (tmp_path / "empty").mkdir()
    with lock(tmp_path / "empty"), pytest.raises(WriteConflictError):
        SampleStore(tmp_path / "empty")


def test_a_store_locks_its_folder_while_it_lives(tmp_path):
    store = SampleStore(tmp_path / "run")
    assert is_locked(tmp_path / "run")
    del store
    assert not is_locked(tmp_path / "run")
    store = SampleStore.load(tmp_path / "run")
    assert not is_locked(tmp_path / "run")  # readers lock nothing
    store.append(draw(0))
    assert is_locked(tmp_path / "run")


def test_a_disk_that_cannot_lock_folders(tmp_path, monkeypatch):
    """As NFS: `flock` needs a file that is open for writing."""
    flock = fcntl.flock

    def refuse_folders(file, operation):
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    monkeypatch.setattr(folder_lock.fcntl, "flock", refuse_folders)
    store = SampleStore(tmp_path / "run")
    store.append(draw(0))
    assert (tmp_path / "run" / "writer.lock").exists()
    assert is_locked(tmp_path / "run" / "writer.lock")
    del store
    with lock(tmp_path / "run" / "writer.lock"), pytest.raises(WriteConflictError):
        SampleStore.load(tmp_path / "run").append(draw(1))
    SampleStore.load(tmp_path / "run").append(draw(1))
    SampleStore(tmp_path / "other")
    SampleStore(tmp_path / "other").append(draw(0))  # the lock file alone is no content


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("second", CHANGES)
@pytest.mark.parametrize("first", CHANGES)
def test_two_stores_of_one_folder(folder, monkeypatch, first, second, locks):
    """Nothing of the first is lost, whatever the second has tried."""
    if not locks:
        monkeypatch.setattr(sample_folder, "lock_folder", lambda path: None)
    one, other = SampleStore.load(folder), SampleStore.load(folder)
    change, after = CHANGES[first]
    change(one)
    for _ in range(2):
        with pytest.raises(WriteConflictError, match=r"manifest\.json was replaced"):
            CHANGES[second][0](other)
    check(one, after)
    one.append(draw(7))
    again = SampleStore.load(folder)
    check(again, [*after, 7])
    again.append(draw(8))
    with pytest.raises(WriteConflictError):
        one.append(draw(9))
    check(SampleStore.load(folder), [*after, 7, 8])


def test_a_reader_while_the_store_is_thinned(folder, monkeypatch):
    """Files that are gone because they do not count any more are no damage."""
    writer, read = SampleStore.load(folder), sample_folder.read_manifest

    def read_then_thin(path):
        result = read(path)
        if len(writer) == 3:
            writer.thin()
        return result

    monkeypatch.setattr(sample_folder, "read_manifest", read_then_thin)
    check(SampleStore.load(folder), [1])


def test_copies_of_a_store_can_write(folder):
    store = SampleStore.load(folder)
    store.append(draw(3))
    for duplicate in (copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))):
        store = duplicate(store)
        check(store, range(len(store)))
        store.append(draw(len(store)))
    check(SampleStore.load(folder), range(6))


# -------------------------------------------------------------------------------------- SIGKILL

# Each line on its standard input is a folder, in which a forked child then appends until it is
# killed. The package is imported without its __init__, which needs seconds for a backend.
WRITER = """
import os, sys, time, types
package = types.ModuleType("keras_langevin")
package.__path__ = [sys.argv[1]]
sys.modules["keras_langevin"] = package
from keras_langevin.storage.sample_store import SampleStore
import numpy as np

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def write(folder):
    store = SampleStore.load(folder)
    say("open")
    step = store.facts[-1]["step"] + 1 if len(store) else 0
    while True:
        if len(store) >= 12:
            say("keep", store.facts[-4]["step"])
            store.thin(range(len(store) - 4, len(store)))
        values = np.random.default_rng(step).normal(size=SIZE)
        weights = {"w": values, "b": values[:1].astype("float32")}
        store.append(Sample(weights, step=step, learning_rate=0.1))
        say("stored", step)
        step += 1

from keras_langevin.storage.sample import Sample
MUTANT
assert "keras" not in sys.modules
say("ready")
for line in sys.stdin:
    if line == "die\\n":  # holding a lock, which the child inherits
        store = SampleStore(sys.argv[2])
        if not os.fork():
            say("child", os.getpid())
            time.sleep(60)
        time.sleep(0.05)
        os._exit(1)
    child = os.fork()
    if not child:
        try:
            write(line.rstrip("\\n"))
        except BaseException as error:
            say("failed", repr(error))
        os._exit(1)
    say("pid", child)
    os.waitpid(child, 0)
    say("dead")
"""


@contextlib.contextmanager
def writers(*arguments, mutant=""):
    program = WRITER.replace("SIZE", str(SIZE)).replace("MUTANT", mutant)
    command = [sys.executable, "-c", program, kl.__path__[0], *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, **pipes) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.stdin.close()
            process.wait()


def write_and_kill(process, folder, appends, share):
    """Lines of a writer that is killed after so many appends and a share of the next one."""
    process.stdin.write(f"{folder}\n")
    lines, times = [], []
    while len(times) < 1 + appends or not any(line[0] == "pid" for line in lines):
        lines.append(process.stdout.readline().split())
        if lines[-1][0] in ("open", "stored"):
            times.append(time.monotonic())
        assert lines[-1][0] != "failed", lines[-1]
    time.sleep(share * (np.diff(times).mean() if len(times) > 1 else 0.002))
    os.kill(next(int(line[1]) for line in lines if line[0] == "pid"), signal.SIGKILL)
    while lines[-1] != ["dead"]:
        lines.append(process.stdout.readline().split())
    return lines


def kill_often(folder, kills, seed=0, mutant=""):
    """Samples that were stored, and kills that left an unfinished file."""
    generator = np.random.default_rng(seed)
    SampleStore(folder)
    promised, stored, leftovers = set(), 0, 0
    with writers(mutant=mutant) as process:
        for _ in range(kills):
            appends, share = generator.integers(4), generator.uniform(0, 1.2)
            for what, *number in write_and_kill(process, folder, appends, share):
                if what == "stored":
                    promised.add(int(number[0]))
                    stored += 1
                elif what == "keep":
                    promised = {step for step in promised if step >= int(number[0])}
            leftovers += any(folder.glob("*.tmp"))
            store = SampleStore.load(folder)
            steps = [facts["step"] for facts in store.facts]
            check(store, steps)
            # What was on the disk before the writer could say so may be there as well.
            last = max(promised, default=-1)
            assert promised <= set(steps) and (not steps or last <= steps[-1] <= last + 1)
            assert not steps or steps == list(range(steps[0], steps[-1] + 1))
            promised = set(steps)
    return stored, leftovers


def test_killed_at_random_moments(tmp_path):
    stored, leftovers = kill_often(tmp_path / "run", 40)
    assert stored > 40 and leftovers > 0  # the kills did hit writes


@pytest.mark.slow
def test_killed_two_hundred_times(tmp_path):
    stored, leftovers = kill_often(tmp_path / "run", 200, seed=1)
    assert stored > 200 and leftovers > 5


IN_PLACE = """
from keras_langevin.storage import sample_folder
def write_in_place(path, write):
    with open(path, "wb") as file:
        time.sleep(0.002)
        write(file)
sample_folder.write_atomically = write_in_place
"""
SAY_TOO_EARLY = """
append = SampleStore.append
def say_and_append(self, sample):
    say("stored", sample.step)
    append(self, sample)
SampleStore.append = say_and_append
"""


@pytest.mark.parametrize("mutant", [IN_PLACE, SAY_TOO_EARLY], ids=["in place", "too early"])
def test_the_kills_find_a_store_that_loses(tmp_path, mutant):
    with pytest.raises((AssertionError, ValueError)):
        kill_often(tmp_path / "run", 40, mutant=mutant)


def test_a_killed_writer_leaves_no_lock(tmp_path):
    SampleStore(tmp_path / "run")
    with writers() as process:
        process.stdin.write(f"{tmp_path / 'run'}\n")
        lines = [process.stdout.readline().split() for _ in range(3)]
        assert sorted(line[0] for line in lines) == ["open", "pid", "stored"]
        pid = next(int(line[1]) for line in lines if line[0] == "pid")
        with pytest.raises(WriteConflictError):
            SampleStore.load(tmp_path / "run").append(draw(0))
        os.kill(pid, signal.SIGKILL)
        while process.stdout.readline() != "dead\n":
            pass
        store = SampleStore.load(tmp_path / "run")
        store.append(draw(len(store)))
        check(store, range(len(store)))


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    """As a data loader's that outlives the training process."""
    with writers(str(tmp_path / "run")) as process:
        process.stdin.write("die\n")
        child = int(process.stdout.readline().split()[1])
        process.wait()
        try:
            assert not is_locked(tmp_path / "run")
            SampleStore.load(tmp_path / "run").append(draw(0))
        finally:
            os.kill(child, signal.SIGKILL)
