"""Running a script of `examples/` and reading what it prints."""

import contextlib
import io
import pathlib
import runpy

import keras

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


class Run:
    """An example that was run: its variables, and what it printed, by the words before a colon."""

    def __init__(self, name):
        keras.utils.clear_session()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.variables = runpy.run_path(str(EXAMPLES / f"{name}.py"))
        lines = [line for line in printed.getvalue().splitlines() if ": " in line]
        self.lines = dict(line.split(": ", 1) for line in lines)

    def __getitem__(self, name):
        return self.variables[name]

    def number(self, line):
        """The first number after the colon."""
        return float(self.lines[line].split()[0].rstrip("%"))
