"""Writers under SIGKILL: nothing that was said to be stored is lost."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from targets.store_cases import SIZE, check, draw, is_locked

import keras_langevin as kl
from keras_langevin.storage.errors import WriteConflictError
from keras_langevin.storage.sample_store import SampleStore

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


@pytest.mark.fuzz
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
