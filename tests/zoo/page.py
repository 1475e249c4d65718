"""Runs both laws over the whole zoo on three backends and writes what they did as a table.

    python tests/zoo/page.py

Some 20 minutes. `make test-all` runs every row on JAX, and on the others those marked `everywhere`.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
TESTS = (HERE / "test_one_member.py", HERE / "test_three_lines.py")
BACKENDS = ("jax", "tensorflow", "torch")
LAWS = {"test_one_member_is_the_model": "one member", "test_three_lines_are_enough": "three lines"}
TEXT = """\
# The zoo: Keras programs, and two laws

Each row is a program that a user of Keras would write, as small as it runs.

- **One member**: an ensemble with one member that holds the model's own weights predicts, scores,
  saves and reloads as the model does.
- **Three lines**: where `compile("adam")` and `fit` run, `kl.QDOPLangevin` and
  `kl.PosteriorSampler` run with all defaults. Or `fit` stops before the first step and says in a
  sentence which layer or loss it cannot do, and what to write instead.

"holds" is a test that passed on that backend. "refuses" and "warns" are right too, when the words
are those that the row expects. "-" is a program that this backend cannot run (strings and layers
of torch have one backend each), or that Adam cannot train on it either.

`python tests/zoo/page.py` runs all and writes this page: {done}.

{table}
"""


def outcomes(backend, folder):
    """What each law did: name of test and row -> whether it passed."""
    report = Path(folder) / f"{backend}.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", *TESTS, "-q", "-n2", f"--junitxml={report}"],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=False,
    )
    cases = ElementTree.parse(report).iter("testcase")
    return {case.get("name"): not len(case) for case in cases}


def words(row, law, backend, found):
    if backend not in row.backends_of(law):
        return "-"
    test = next(name for name, short in LAWS.items() if short == law)
    if not found[f"{test}[{row.name}]"]:
        return "**FAILS**"
    if law == "three lines" and row.refused is not None:
        return f"refuses: {row.refused}"
    return "holds, warns" if law == "three lines" and row.warned is not None else "holds"


def page(rows, found):
    """The text.

    Args:
        rows: All rows of the zoo.
        found: `outcomes` of every backend, by its name.
    """
    columns = [(law, backend) for law in LAWS.values() for backend in BACKENDS]
    head = ["program", *(f"{law}, {backend}" for law, backend in columns)]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = [words(row, law, backend, found[backend]) for law, backend in columns]
        lines.append([row.name.replace("_", " "), *cells])
    cells = [cell for line in lines[2:] for cell in line[1:] if cell != "-"]
    failed = sum(cell == "**FAILS**" for cell in cells)
    done = f"{len(rows)} programs, {len(cells)} tests, {failed} failed"
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return TEXT.format(done=done, table=table)


def main():
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
    from zoo.table import ROWS

    with tempfile.TemporaryDirectory() as folder:
        found = {backend: outcomes(backend, folder) for backend in BACKENDS}
    PAGE.write_text(page(ROWS, found), encoding="utf-8")
    print(f"Page {PAGE}")


if __name__ == "__main__":
    main()
