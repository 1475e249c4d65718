"""What `BayesianEnsembleModel.report` returns."""

import dataclasses
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping

from keras_langevin.predictive.row import Row
from keras_langevin.report.findings import Finding
from keras_langevin.report.page import body, page
from keras_langevin.report.ranges import MARK, out_of_range

MARKS = {"problem": "✗", "warning": "!", "good": "✓", "note": "·"}
WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Report(Mapping):
    """Numbers of an ensemble, what they mean, and figures: a mapping from name to number.

    `print` shows it as text, a notebook as a page with figures; `save` writes that page.

    Attributes:
        title, about: Of what.
        sections: From title to the rows of a table.
        findings: What the numbers say, the worst first; `level`, `title`, `text` and `advice`.
    """

    title: str
    about: str
    sections: dict[str, list[Row]]
    findings: list[Finding]
    _figures: list[tuple[str, Callable]] = dataclasses.field(repr=False, default_factory=list)

    def __getitem__(self, name: str):
        return {row.name: row.value for rows in self.sections.values() for row in rows}[name]

    def __iter__(self) -> Iterator[str]:
        return (row.name for rows in self.sections.values() for row in rows)

    def __len__(self) -> int:
        return sum(map(len, self.sections.values()))

    __hash__ = object.__hash__

    @property
    def marked(self) -> set[str]:
        """Names of the numbers about the chains that are not what settled ones give."""
        return out_of_range(self)

    def __str__(self):
        lines = [self.title, self.about]
        for finding in self.findings:
            text = f"{MARKS[finding.level]} {finding}"
            lines += ["", *textwrap.wrap(text, WIDTH, subsequent_indent="  ")]
        shown = [row for rows in self.sections.values() for row in rows if row.label]
        label = max(len(row.label) for row in shown)
        value = max(len(row.text) for row in shown)
        marked = self.marked
        for title, rows in self.sections.items():
            lines += ["", title, "-" * len(title)]
            lines += [
                f"{row.label:<{label}}  {row.text:>{value}} "
                f"{MARK if row.name in marked else ' '} {row.meaning}".rstrip()
                for row in rows
                if row.label
            ]
        return "\n".join(lines)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the report as one HTML file with its figures in it.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        text = page(self)  # before the file is opened: an error leaves an older one alone
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def draw(self) -> list:
        """Pairs of a caption and a new matplotlib figure, which no window shows.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        from matplotlib.figure import Figure

        drawn = []
        for caption, draw in self._figures:
            figure = Figure(figsize=(5.6, 3.9), layout="constrained")
            draw(figure.add_subplot())
            drawn.append((caption, figure))
        return drawn

    def _repr_html_(self):
        try:
            return body(self)
        except ImportError:
            return None  # without matplotlib a notebook shows the text
