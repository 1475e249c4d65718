"""The results of the study: a CSV file with one row per finished run, and one with curves.

Several processes may append to the same files: each row is written in one piece.
"""

import csv
import dataclasses
import io
import json
import os
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Row:
    """One finished run. Dicts are JSON in the file, what does not apply is empty.

    `index` is the trial of `phase="tune"`, the seed of `phase="final"`; `status` is `"finished"`
    or `"diverged"`; `objective` the NLL of the method's own predictor, which tuning minimises on
    validation data; `predictions` the scores of each predictor; `member_nll` the mean NLL of an
    ensemble's single members.
    """

    phase: str
    method: str
    index: int
    dataset: str
    status: str
    settings: dict
    epochs: int
    num_data: int
    batch_size: int
    objective: float | None = None
    seconds: float | None = None
    compile_seconds: float | None = None
    seconds_per_step: float | None = None
    clipped: float | None = None
    num_samples: int | None = None
    member_nll: float | None = None
    predictions: dict = dataclasses.field(default_factory=dict)

    @property
    def key(self):
        return self.phase, self.method, self.index

    @property
    def finished(self):
        return self.status == "finished"


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """Test scores of a predictor after an epoch of a run of `phase="final"`, the seconds of
    training until then, and how many of them went into compilation."""

    method: str
    seed: int
    predictor: str
    epoch: int
    nll: float
    accuracy: float
    seconds: float
    compile_seconds: float


class Results:
    """The rows in a CSV file, and beside it the curves (`..._curves.csv`) and what
    `why.py` has measured (`..._why.json`)."""

    def __init__(self, path):
        self.path = Path(path)
        self.curves_path = self.path.with_name(f"{self.path.stem}_curves.csv")
        self.why_path = self.path.with_name(f"{self.path.stem}_why.json")

    def why(self):
        """By method; empty where nothing was measured."""
        return json.loads(self.why_path.read_text()) if self.why_path.exists() else {}

    def rows(self):
        """By key; of rows with the same key the last."""
        return {row.key: row for row in read(self.path, Row)}

    def curves(self):
        """Lists of points in the order of epochs, by (method, predictor)."""
        points = {
            (p.method, p.predictor, p.seed, p.epoch): p for p in read(self.curves_path, CurvePoint)
        }
        curves = {}
        for method, predictor, *position in sorted(points):
            point = points[method, predictor, *position]
            curves.setdefault((method, predictor), []).append(point)
        return curves

    def append(self, row, curve=()):
        append(self.curves_path, CurvePoint, curve)
        append(self.path, Row, [row])


def read(path, kind):
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if names(kind) not in lines:
        raise SystemExit(f"{path} is of another version of the study; choose another file.")
    return [from_text(kind, line) for line in lines if line != names(kind)]


def append(path, kind, entries):
    """Writes at the end of the file, all entries at once, with a head if the file is new."""
    if not entries:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        writer.writerow(names(kind))
    except FileExistsError:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    writer.writerows(to_text(entry) for entry in entries)
    try:
        os.write(descriptor, text.getvalue().encode())
    finally:
        os.close(descriptor)


def names(kind):
    return [field.name for field in dataclasses.fields(kind)]


def to_text(entry):
    values = (getattr(entry, name) for name in names(type(entry)))
    return [as_text(value) for value in values]


def as_text(value):
    if isinstance(value, dict):
        return json.dumps(value)
    return f"{value:.7g}" if isinstance(value, float) else value


def from_text(kind, line):
    fields = dataclasses.fields(kind)
    return kind(*(as_value(f.type, text) for f, text in zip(fields, line, strict=True)))


def as_value(kind, text):
    if kind is dict:
        return json.loads(text)
    if kind in (str, int, float):
        return kind(text)
    if text == "":
        return None
    return int(text) if kind == int | None else float(text)
