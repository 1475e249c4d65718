"""When a posterior sample is due."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class SamplingSchedule:
    """Positions `burn_in + thinning, burn_in + 2 * thinning, ...` on a count that starts at 1.

    Each doubling leaves out every other position, the first among them: what remains is
    exactly the schedule with twice the thinning.

    Args:
        burn_in: Epochs or steps before which nothing is due.
        thinning: Distance of positions before any doubling.
        unit: `"epoch"` or `"step"`.
        doublings: How often the thinning was doubled.
    """

    burn_in: int
    thinning: int
    unit: str
    doublings: int = 0

    @property
    def spacing(self) -> int:
        """The distance of positions now."""
        return self.thinning * 2**self.doublings

    def includes(self, position: int) -> bool:
        """True when a sample is due at this position."""
        return position > self.burn_in and (position - self.burn_in) % self.spacing == 0

    def due_within(self, after: int, until: int) -> int | None:
        """The position with `after < position <= until` that is due, `None` if there is none.

        Of several, the one that survives the most doublings: a sample drawn for it is kept
        exactly as long as the thinned schedule has any position in the interval.
        """
        first = max(0, after - self.burn_in) // self.spacing + 1
        last = max(0, until - self.burn_in) // self.spacing
        if first > last:
            return None
        index = max(range(first, last + 1), key=lambda i: i & -i)  # its factors of two
        return self.burn_in + index * self.spacing

    def doubled(self) -> SamplingSchedule:
        """The schedule with twice the thinning."""
        return dataclasses.replace(self, doublings=self.doublings + 1)
