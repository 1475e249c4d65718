"""Rows of results in a file of JSON lines, so that a study goes on where it was stopped."""

import json
from pathlib import Path


class Results:
    """The rows in a file; what is in it is not computed again.

    Args:
        path: Of the file. Its folder is made with the first row.

    Attributes:
        rows: A list of dictionaries, in the order of the file.

    Example:

        results = Results("demo_output/study.jsonl")
        for seed in range(5):
            results.run(trained, "SGLD", seed, method="SGLD", seed=seed)

    where `trained("SGLD", seed)` returns what was measured: `{"nll": 0.21, "seconds": 3.4}`.
    """

    def __init__(self, path):
        self.path = Path(path)
        lines = self.path.read_text("utf-8").split("\n") if self.path.exists() else []
        self.rows = [json.loads(line) for line in lines if line]

    def find(self, **key):
        """The first row with these entries, or None. A row without an entry has None there."""
        return next((r for r in self.rows if all(r.get(k) == v for k, v in key.items())), None)

    def add(self, row):
        """Appends a row to the file, prints its numbers and words, and returns it."""
        line = json.dumps(row, ensure_ascii=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.rows.append(row)
        print("  ".join(_shown(name, value) for name, value in row.items()), flush=True)
        return row

    def run(self, function, /, *args, **key):
        """The row of this key; where there is none, it is added: the key and the dictionary that
        `function(*args)` returns. The key says all that the result depends on, in strings,
        numbers, booleans and None."""
        return self.find(**key) or self.add(key | function(*args))


def _shown(name, value):
    if isinstance(value, list | tuple | dict):
        return f"{name} [{len(value)}]"
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
