"""What becomes of a step with NaN or infinity in it."""

import keras
from keras import ops

from keras_langevin.arguments import one_of

ACTIONS = ("raise", "skip", "rollback")
PATIENCE = 3  # bad steps in a row after which the weights go back
COPY_EVERY = 100  # steps taken from one copy of the weights to the next


class NonfiniteSteps:
    """Takes a step only if all that it would write is finite, and counts the others.

    Args:
        action: One of `ACTIONS`; `kl.LangevinOptimizer` says what they mean.
        keeps_copy: Whether "rollback" is to a copy of the weights that is kept here.
    """

    def __init__(self, action, keeps_copy=True):
        self.action = one_of("on_nonfinite", action, ACTIONS)
        self.keeps_copy = keeps_copy and action == "rollback"

    def build(self, shapes, names, add_state):
        self.count = add_state((), "nonfinite_steps")
        self.last = add_state((), "last_nonfinite_step")
        if self.keeps_copy:
            self.in_a_row = add_state((), "nonfinite_in_a_row")
            self.copy_age = add_state((), "copy_age")  # in steps taken, 0 before the first
            self.copies = [
                add_state(shape, f"{name}_copy") for shape, name in zip(shapes, names, strict=True)
            ]

    def forget_copy(self):
        """Has the next step take a new copy: there are other parameters."""
        if self.keeps_copy:
            self.copy_age.assign(ops.zeros(()))

    def accept(self, results, statistics, instead, iteration, place, restart):
        """Whether the step is taken, and what is written in the place of `results`, pairs of a
        variable and its new value.

        Args:
            statistics: Arrays that must be finite as well.
            instead: Such pairs, for those of them that do not keep their value in a bad step.
            iteration: How many steps there were before.
            place: `place(variable)` among the parameters, None if it is not one.
            restart: `restart()` gives pairs of a variable and its value where the weights go back.
        """
        results = [(v, ops.cast(value, v.dtype)) for v, value in results]
        is_finite = all_finite([*(value for _, value in results), *statistics])
        copied = []
        if self.keeps_copy:
            copied = [(v, self.copies[place(v)]) for v, _ in results if place(v) is not None]
            results += self._copies_after(copied)
        if not any(v is self.count for v, _ in results):  # a step may count itself
            results += self.counted(False, iteration)
        variables = [v for v, _ in results]

        def not_taken():
            pairs = [*instead, *self.counted(True, iteration)]
            if self.keeps_copy:
                pairs += self._gone_back([*copied, *restart()])
            values = {id(v): value for v, value in pairs}
            return [values.get(id(v), _value(v)) for v in variables]

        # A branch, not a choice entry by entry: XLA then compiles the step as without it.
        values = ops.cond(is_finite, lambda: [value for _, value in results], not_taken)
        return is_finite, list(zip(variables, values, strict=True))

    def counted(self, is_bad, iteration):
        """The changes of the counters."""
        last = ops.where(is_bad, ops.cast(iteration + 1, "float32"), _value(self.last))
        return [(self.count, self.count + ops.cast(is_bad, "float32")), (self.last, last)]

    def _copies_after(self, copied):
        """What a step that is taken changes. Its gradient was finite at the weights before it."""
        is_due = ops.logical_or(self.copy_age < 1, self.copy_age >= COPY_EVERY)
        changes = [
            (copy, ops.where(is_due, ops.cast(_value(v), "float32"), _value(copy)))
            for v, copy in copied
        ]
        age = ops.where(is_due, 1.0, self.copy_age + 1.0)
        return [*changes, (self.copy_age, age), (self.in_a_row, ops.zeros(()))]

    def _gone_back(self, earlier):
        """What a bad step writes, which goes back to `earlier` values when there were too many."""
        row = self.in_a_row + 1.0
        goes_back = ops.logical_and(row >= PATIENCE, self.copy_age > 0)
        changes = [
            (v, ops.where(goes_back, ops.cast(_value(value), v.dtype), _value(v)))
            for v, value in [*earlier, (self.copy_age, ops.ones(()))]
        ]
        return [*changes, (self.in_a_row, ops.where(goes_back, 0.0, row))]


_value = ops.convert_to_tensor


def kept_finite(changes, is_taken):
    """Changes of a metric: none in a step that is not taken, and no entry that would overflow.
    A choice entry by entry, which needs no second copy of the arrays; on torch, where that is six
    operations, only if there is something to choose."""
    if keras.backend.backend() == "torch" and is_taken and all_finite(v for _, v in changes):
        return changes
    return [
        (v, ops.where(ops.logical_and(is_taken, ops.isfinite(value)), value, _value(v)))
        for v, value in changes
    ]


def all_finite(arrays):
    """Whether all entries of all arrays are, as a boolean tensor.

    Summed with tiny weights, which keeps NaN and infinity and lets nothing overflow; as products
    of matrices and vectors, whose sums are the fastest there are. On torch, where these are four
    operations an array, by the smallest and the largest entry, which are one.
    """
    if keras.backend.backend() == "torch":
        import torch

        extremes = [e for array in arrays if array.numel() for e in torch.aminmax(array)]
        return torch.isfinite(torch.stack(extremes)).all() if extremes else True
    return ops.isfinite(sum(_tiny_sum(ops.cast(a, "float32")) for a in arrays))


def _tiny_sum(array):
    if not len(array.shape):
        return 1e-30 * array
    return ops.sum(ops.matmul(array, ops.full((array.shape[-1],), 1e-30)))
