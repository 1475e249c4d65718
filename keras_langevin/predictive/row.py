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


def guess(value):
    """What always predicting the same, as good as that can be, would reach."""
    return Row(
        "negative_log_likelihood_of_guessing",
        float(value),
        "the same, blind guessing",
        "Always predicting how often the labels occur here.",
    )


def percent(name, value, label, meaning):
    """A share."""
    return Row(name, value, label, meaning, ".1%")


def drawing(function, *arrays, **options):
    """A figure's function of matplotlib Axes alone."""
    return lambda ax: function(*arrays, ax=ax, **options)
