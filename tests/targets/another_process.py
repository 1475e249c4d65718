"""Code that must run in a process of its own."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def run_python(code, *arguments):
    """What it prints; it finds what `tests/` and `tests/statistics/` hold."""
    path = [str(TESTS), str(TESTS / "statistics"), *filter(None, sys.path)]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def check_all_end(processes):
    """Waits for processes that talk to each other, and ends those that are left. See
    `check_ended`."""
    try:
        errors = [process.communicate(timeout=500)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    check_ended([process.returncode for process in processes], errors)


def check_ended(codes, errors):
    """Fails with the errors of processes that talk to each other; skips the test where all that
    they say is that this machine does not let them."""
    failed = [error for code, error in zip(codes, errors, strict=True) if code != 0]
    if failed and all(re.search(NETWORK, _last_line(error), re.IGNORECASE) for error in failed):
        pytest.skip(f"processes cannot talk here: {_last_line(failed[0])[:200]}")
    assert not failed, "\n".join(failed)[-4000:]


NETWORK = "connect|gloo|resolve|address|network|interface|barrier timed out|deadline"


def _last_line(text):
    lines = [line for line in text.splitlines() if re.match(r"\S*(Error|Exception)\b", line)]
    return (lines or [""])[-1]
