"""Code that must run in a process of its own."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

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
