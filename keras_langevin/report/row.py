"""One number of a report."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """A number, how to print it, and what it means to somebody who reads it for the first time.

    Attributes:
        name: Of the number in `Report.numbers`.
        value: The number; `None` where it could not be measured.
        label: In the table.
        meaning: A sentence: what good looks like, or why there is no number.
        form: Format specification.
    """

    name: str
    value: float | int | str | None
    label: str
    meaning: str
    form: str = ".4f"

    @property
    def text(self):
        if self.value is None:
            return "–"
        if isinstance(self.value, (bool, str)):
            return "yes" if self.value is True else str(self.value)
        return format(self.value, self.form)


def percent(name, value, label, meaning):
    return Row(name, value, label, meaning, ".1%")
