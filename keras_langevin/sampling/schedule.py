"""When a posterior sample is due."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class SamplingSchedule:
    """Positions `burn_in + thinning, burn_in + 2 * thinning, ...` on a count that starts at 1.

    Each doubling leaves out every other position, the first among them unless told otherwise:
    what remains is exactly a schedule with twice the thinning.

    Args:
        burn_in: Epochs or steps before which nothing is due; `None` where it is still to be chosen.
        thinning: Distance of positions before any doubling.
        unit: `"epoch"` or `"step"`.
        doublings: How often the thinning was doubled.
        shift: What doublings that kept the first position moved the start by, 0 or less.
    """

    burn_in: int | None
    thinning: int
    unit: str
    doublings: int = 0
    shift: int = 0

    @property
    def spacing(self) -> int:
        """The distance of positions now."""
        return self.thinning * 2**self.doublings

    def includes(self, position: int) -> bool:
        """True when a sample is due at this position."""
        return position > self.burn_in and (position - self._start) % self.spacing == 0

    def due_within(self, after: int, until: int) -> int | None:
        """The position with `after < position <= until` that is due, `None` if there is none.

        Of several, the one that survives the most doublings: a sample drawn for it is kept
        exactly as long as the thinned schedule has any position in the interval.
        """
        first = max(0, after - self._start) // self.spacing + 1
        last = max(0, until - self._start) // self.spacing
        if first > last:
            return None
        index = max(range(first, last + 1), key=lambda i: i & -i)  # its factors of two
        return self._start + index * self.spacing

    def doubled(self, keeps_first: bool = False) -> SamplingSchedule:
        """The schedule with twice the thinning, with the positions that begin with the second
        or with the first."""
        shift = self.shift - keeps_first * self.spacing
        return dataclasses.replace(self, doublings=self.doublings + 1, shift=shift)

    @property
    def _start(self):
        return self.burn_in + self.shift
