"""Time of several ways to do one thing, measured in turns, for the benchmarks of this folder."""

import importlib.metadata
import os
import platform
import textwrap
import time

import keras


def interleaved(functions, repeats):
    """Seconds that each function takes, `repeats` times, after one call that is not counted.

    They are called in turns (A, B, A, B, ...), so that other work on the machine slows all of
    them alike: compare medians by their ratio.

    Args:
        functions: From a name to a function without arguments. It must wait for its result: JAX
            and GPUs compute on after a call has returned.
        repeats: Number of turns.

    Returns:
        A dict from each name to its list of seconds.

    Example:

        seconds = interleaved({"ours": lambda: ensemble.predict(x), "theirs": loop}, repeats=5)
        ratio = np.median(seconds["ours"]) / np.median(seconds["theirs"])
    """
    for function in functions.values():
        function()
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def versions():
    """One line: the processor, how many cores this process may use, Python and libraries."""
    libraries = ("keras", keras.backend.backend())
    words = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {words}"


def table(rows):
    """A markdown table of dictionaries; the columns are those of all rows, in order of appearance.
    A row without an entry, or with None, has an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(name)) for name in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def last_rows(rows, keys):
    """Of rows that agree in the entries `keys` the last one."""
    return list({tuple(row.get(key) for key in keys): row for row in rows}.values())


def page_of(text, rows):
    """A markdown page: the docstring of the script, and the table."""
    title, command, *rest = text.strip().split("\n\n")
    command = "```\n" + textwrap.dedent(command) + "\n```"
    return "\n\n".join([f"# {title}", command, *rest, table(rows)]) + "\n"


def _cell(value):
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next(line for line in file if line.startswith("model name"))
        return line.split(":", 1)[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
