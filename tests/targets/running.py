"""How the tests run a script, a study or a benchmark of `examples/`."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_module(module, *arguments, **environment):
    """What `python -m examples.MODULE` prints; fails with the end of its errors."""
    return _run("-m", f"examples.{module}", *arguments, **environment)


ONE_AFTER_ANOTHER = """
import json, runpy, sys

module, calls = json.loads(sys.argv[1])
for arguments in calls:
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    print("END OF THE CALL")
"""


def run_calls(module, *calls):
    """What each of several calls of `run_module` prints, in one process: keras is imported once."""
    calls = [[str(argument) for argument in call] for call in calls]
    printed = _run("-c", ONE_AFTER_ANOTHER, json.dumps([f"examples.{module}", calls]))
    return printed.split("END OF THE CALL\n")[: len(calls)]


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
