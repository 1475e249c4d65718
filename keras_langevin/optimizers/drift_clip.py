"""A limit on the length of a drift, for first steps far from the posterior."""

import math

from keras import ops

from keras_langevin.arguments import number

AUTOMATIC = 10.0  # the clip of learning_rate="auto": of 3, equilibrium itself met 1 to 3 %

# Shares of steps with a shortened drift: harmless, and to be warned of. Long chains in equilibrium
# have at most 0.2 %; six small data sets in runs of 40 to 200 epochs 0.9 to 2.7 %; one whose
# inputs have tails of 50 standard deviations 5 to 15 %, and a loss ten times that of Adam.
HARMLESS, MOST_CLIPPED = 0.01, 0.05


class DriftClip:
    """Shortens a drift whose squared length exceeds `limit` times its running average.

    Lengths are those of C^½ ∇G, so that the metric's own units count. Noise is never shortened.
    A clip that is at work bends the target; in equilibrium it hardly ever is.

    Args:
        limit: At least 1.
    """

    def __init__(self, limit):
        self.limit = limit

    def build(self, add_state):
        self.average = add_state((), "drift_average")
        self.count = add_state((), "drift_clips")

    def update(self, squared_length, is_at_rest):
        """The factor for the drift, and the changes of state, from its squared length."""
        average = ops.convert_to_tensor(self.average)
        longest = ops.where(average > 0, self.limit * average, squared_length)
        clipped = ops.minimum(squared_length, longest)
        scale = ops.sqrt(clipped / ops.maximum(squared_length, 1e-30))
        counts = 1.0 - ops.cast(is_at_rest, "float32")
        change = ops.where(average > 0, 0.01 * (clipped - average), squared_length)
        clips = self.count + counts * ops.cast(squared_length > longest, "float32")
        return scale, [(self.average, average + counts * change), (self.count, clips)]

    def logs(self, iterations):
        """The share of the steps so far whose drift was shortened."""
        clips, steps = (float(ops.convert_to_numpy(v)) for v in (self.count, iterations))
        return {"drift_clipped": clips / max(steps, 1.0)}


def checked_drift_clip(drift_clip, has_automatic_learning_rate):
    """The clip in use, None for no clip."""
    if drift_clip is None:
        return AUTOMATIC if has_automatic_learning_rate else None
    if isinstance(drift_clip, float) and drift_clip == math.inf:
        return None
    found = number("drift_clip", drift_clip)
    if found < 1:
        raise ValueError(
            "`drift_clip` must be None or at least 1, the multiple of the average that is let "
            f"through. Received: drift_clip={drift_clip!r}"
        )
    return found
