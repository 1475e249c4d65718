"""What a schedule of the learning rate says of the steps of a running `fit`."""

from keras import ops

from keras_langevin.keras_internals import learning_rate_schedule


def phases(optimizer):
    """The schedule of the learning rate if it explores and samples in turns, else None."""
    schedule = learning_rate_schedule(optimizer)
    return schedule if hasattr(schedule, "is_sampling") else None


def explores(optimizer):
    """Whether the last step explored, so that the weights are no sample."""
    schedule = phases(optimizer)
    return schedule is not None and not schedule.is_sampling(_last_step(optimizer))


def sample_learning_rate(optimizer):
    """At the end of a cycle the rate of the next step belongs to another phase."""
    schedule = phases(optimizer)
    rate = schedule(_last_step(optimizer)) if schedule else optimizer.learning_rate
    return float(ops.convert_to_numpy(rate))


def num_steps(optimizer) -> int:
    """Updates so far."""
    return int(ops.convert_to_numpy(optimizer.iterations))


def _last_step(optimizer):
    """What the schedule was called with in the last update: `iterations` are one ahead of it."""
    passes = num_steps(optimizer) * (optimizer.gradient_accumulation_steps or 1)
    return max(passes - 1, 0)
