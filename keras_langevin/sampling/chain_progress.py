"""One line on all chains while they run, from what their samplers write into their folders."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time

from keras_langevin.sampling.chain_folders import ChainFolders
from keras_langevin.storage.manifest import read_manifest
from keras_langevin.storage.training_checkpoint import TrainingCheckpoint

SECONDS_IN_TERMINAL = 1.0
SECONDS_ELSEWHERE = 60.0  # to a file, every line stays


class ChainProgress:
    """Prints what becomes of chains, and with folders how far those are that run.

    In a terminal the line on those that run is written over the last one; elsewhere there is a
    new one a minute.

    Args:
        num_chains: How many there are.
        folders: Of the chains, or None.
        verbose: 0 prints nothing.
    """

    def __init__(self, num_chains: int, folders: ChainFolders | None, verbose: int):
        self._stream = sys.stdout if verbose else None
        self._is_terminal = bool(getattr(self._stream, "isatty", bool)())
        every = SECONDS_IN_TERMINAL if self._is_terminal else SECONDS_ELSEWHERE
        self.interval = every if verbose and folders else None
        self._num_chains, self._num_finished, self._folders = num_chains, 0, folders
        self._seen = {}  # from the number of a chain that has begun to its epochs and samples
        self._start = self._last = time.monotonic()
        self._shown = ""

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        if self._stream is not None:
            self._write(line)
            print(file=self._stream, flush=True)
            self._shown = ""

    def finish(self, words: str) -> None:
        """Prints a line on a chain that has come to its end."""
        self._num_finished += 1
        self.say(f"{words} ({self._num_finished} of {self._num_chains} chains)")

    def update(self) -> None:
        """Says how far the chains are, when it is time to."""
        now = time.monotonic()
        if self.interval is None or now - self._last < 0.9 * self.interval:
            return
        self._last = now
        for number in range(self._num_chains):
            with contextlib.suppress(OSError, ValueError):  # not begun, or written right now
                self._seen[number] = _epochs_and_samples(self._folders.of(number))
        if self._is_terminal:
            self._write(self._line()[: shutil.get_terminal_size().columns - 1])
        else:
            self.say(self._line())

    def _line(self):
        words = [f"{self._num_finished} of {self._num_chains} chains finished"]
        if self._seen:
            epochs = [self._seen.get(number, (0, 0))[0] for number in range(self._num_chains)]
            each = " ".join(map(str, epochs))
            words += [f"epochs {each if len(each) <= 40 else f'{min(epochs)} to {max(epochs)}'}"]
            words += [f"{sum(samples for _, samples in self._seen.values())} samples"]
        minutes, seconds = divmod(round(self._last - self._start), 60)
        return "; ".join([*words, f"{minutes}:{seconds:02d}"])

    def _write(self, line):
        """Over what is shown."""
        over = "\r" if self._shown else ""
        self._stream.write(over + line.ljust(len(self._shown)))
        self._stream.flush()
        self._shown = line


def _epochs_and_samples(folder):
    """Of the last checkpoint, and of the manifest, without reading any array."""
    counters = TrainingCheckpoint(folder).counters(verify=False) or {"epochs_seen": 0}
    return counters["epochs_seen"], len(read_manifest(folder)[0]["samples"])
