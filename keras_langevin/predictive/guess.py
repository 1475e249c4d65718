"""The best prediction that is the same for all examples: what a model must beat."""

from keras import ops

ROUNDS, POINTS = 12, 9


def best_constant(log_likelihood, brackets, sums_units=True):
    """Nats per label that the best constants reach, one set for each unit.

    A search along one constant after the other over a grid that halves every time.

    Args:
        log_likelihood: From constants, tensors `(points, 1, units)`, to log densities of all
            labels `(points, examples, units)`.
        brackets: A pair of least and largest value, tensors `(units,)`, for each constant; the
            same tensor twice for one that is known.
        sums_units: As of the family.
    """
    best = [0.5 * (low + high) for low, high in brackets]
    widths = [None if low is high else 0.5 * (high - low) for low, high in brackets]
    steps = ops.reshape(ops.linspace(-1.0, 1.0, POINTS), (-1, 1))
    steps = ops.cast(steps, best[0].dtype)
    searched = [i for i, width in enumerate(widths) if width is not None]
    for _ in range(ROUNDS):
        for i in searched:
            tried = [c + 0 * steps for c in best]  # all of one shape, which compiles once
            tried[i] = tried[i] + steps * widths[i]
            reached = _of_units(log_likelihood, tried)
            index = ops.expand_dims(ops.argmax(reached, axis=0), 0)
            best[i] = ops.take_along_axis(tried[i], index, axis=0)[0]
            widths[i] = 0.5 * widths[i]
    reached = ops.max(reached, axis=0)
    return -(ops.sum(reached) if sums_units else ops.mean(reached))


def _of_units(log_likelihood, constants):
    """Means over examples, shape `(points, units)`."""
    found = log_likelihood(*[ops.expand_dims(c, 1) for c in constants])
    return ops.mean(found, axis=1)
