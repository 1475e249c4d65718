"""What is said of chains while they run."""

import concurrent.futures
import io
import shutil
import sys
import time

import keras
import numpy as np
import pytest
from targets.store_cases import write_store

from keras_langevin.sampling import chain_progress
from keras_langevin.sampling.chain_folders import ChainFolders
from keras_langevin.sampling.chain_progress import ChainProgress
from keras_langevin.sampling.chains import sample_chains
from keras_langevin.storage.json_file import write_json
from keras_langevin.storage.training_checkpoint import KIND

pytestmark = pytest.mark.neutral


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def shown(self):
        """Lines as they stand there in the end."""
        lines = []
        for written in self.getvalue().split("\n"):
            line = ""
            for over in written.split("\r"):
                line = over + line[len(over) :]
            lines.append(line.rstrip())
        return lines


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(chain_progress, "time", clock)
    return clock


@pytest.fixture
def folders(tmp_path):
    """Chain 0 has seen 12 epochs and stored 5 samples, chain 1 has begun, chain 2 has not."""
    write_store(tmp_path / "chain-0", 5)
    write_checkpoint(tmp_path / "chain-0", 12)
    write_store(tmp_path / "chain-1", 0)
    return ChainFolders(tmp_path, ".shared-0")


def write_checkpoint(folder, epochs):
    """Without its arrays, which are not read."""
    counters = {"epochs_seen": epochs, "steps_seen": 0}
    content = {"file": "checkpoint-000001.npz", "sha256": "", "counters": counters, "seed": 0}
    lists = {"model": [], "optimizer": [], "random_state": []}
    write_json(folder / "checkpoint.json", KIND, content | lists)


def test_one_line_is_replaced_in_a_terminal(folders, clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    progress = ChainProgress(3, folders, verbose=1)
    assert progress.interval == 1
    clock.now = 61
    progress.update()
    first = "0 of 3 chains finished; epochs 12 0 0; 5 samples; 1:01"
    assert terminal.shown() == [first]
    progress.update()  # too early
    assert terminal.getvalue() == first
    write_checkpoint(folders.of(0), 13)
    clock.now = 62
    progress.update()
    assert terminal.shown() == ["0 of 3 chains finished; epochs 13 0 0; 5 samples; 1:02"]
    progress.finish("Chain 1: done")
    assert terminal.shown() == ["Chain 1: done (1 of 3 chains)", ""]
    clock.now = 63
    progress.update()
    line = "1 of 3 chains finished; epochs 13 0 0; 5 samples; 1:03"
    assert terminal.shown() == ["Chain 1: done (1 of 3 chains)", line]


def test_a_rare_line_elsewhere(folders, clock, capsys):
    progress = ChainProgress(3, folders, verbose=1)
    for clock.now in range(0, 200, 5):
        progress.update()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("; ")[-1] for line in lines] == ["0:55", "1:50", "2:45"]
    assert lines[0].startswith("0 of 3 chains finished; epochs 12 0 0; 5 samples;")


def test_nothing_is_printed_where_nothing_shall_be(folders, clock, capsys):
    for progress in (ChainProgress(3, folders, 0), ChainProgress(3, None, 1)):
        clock.now += 1000
        progress.update()
        assert progress.interval is None
    ChainProgress(3, folders, 0).finish("Chain 1: done")
    assert capsys.readouterr().out == ""


def test_what_is_written_right_now_stays_as_it_was_seen(folders, clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    progress = ChainProgress(3, folders, verbose=1)
    clock.now = 5
    progress.update()
    (folders.of(0) / "checkpoint.json").write_text("{")
    clock.now = 10
    progress.update()
    assert terminal.shown() == ["0 of 3 chains finished; epochs 12 0 0; 5 samples; 0:10"]


def test_folders_that_are_not_seen_are_not_spoken_of(tmp_path, clock, capsys):
    progress = ChainProgress(3, ChainFolders(tmp_path, ".shared-0"), verbose=1)
    clock.now = 100
    progress.update()
    assert capsys.readouterr().out == "0 of 3 chains finished; 1:40\n"


def test_a_line_is_no_wider_than_the_terminal(folders, clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: shutil.os.terminal_size((30, 24)))
    progress = ChainProgress(3, folders, verbose=1)
    clock.now = 5
    progress.update()
    assert terminal.shown() == ["0 of 3 chains finished; epochs"[:29]]
    monkeypatch.undo()
    monkeypatch.setattr(chain_progress, "time", clock)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    progress = ChainProgress(50, folders, verbose=1)
    clock.now = 10
    progress.update()
    assert terminal.shown() == ["0 of 50 chains finished; epochs 0 to 12; 5 samples; 0:05"]


def test_the_line_is_shown_while_chains_run(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(chain_progress, "SECONDS_IN_TERMINAL", 0.02)
    wanted = "0 of 2 chains finished; epochs 0 7; 2 samples; "

    def train_fn(chain, context):
        """Ends when it has been seen."""
        if chain == 1:
            write_store(context.directory, 2)
            write_checkpoint(context.directory, 7)
        end = time.monotonic() + 30
        while wanted not in terminal.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        return model, [[np.ones((3, 1)), np.zeros(1)]]

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        sample_chains(train_fn, 2, executor, directory=tmp_path, output="logits")
    assert wanted in terminal.getvalue()
    shown = terminal.shown()
    assert len(shown) == 3 and shown[2] == ""
    assert all(line.startswith("Chain ") for line in shown[:2])
