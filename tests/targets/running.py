"""How the tests run a script, a study or a benchmark of `examples/`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_module(module, *arguments, **environment):
    """What `python -m examples.MODULE` prints; fails with the end of its errors."""
    return _run("-m", f"examples.{module}", *arguments, **environment)


def run_script(name, folder, *arguments):
    """What `python examples/NAME` prints, run in this folder."""
    return _run(ROOT / "examples" / name, *arguments, folder=folder)


def _run(*command, folder=None, **environment):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | {"PYTHONPATH": path, "MPLBACKEND": "agg"} | environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
