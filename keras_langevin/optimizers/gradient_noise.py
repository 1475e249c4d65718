"""The variance of the minibatches' noise, weight by weight, and the scale that makes it equal."""

import math

from keras import ops


class SuccessiveDifferences:
    """V = E[(g_t − g_{t−1})²]/2, an average over all steps at first and over about
    1/(1 − decay) steps later.

    A moving average of g in the place of g_{t−1} would count as noise how the gradient changes
    along the path; here that counts only as far as one step makes it.

    Args:
        decay: In (0, 1).
        freeze_after: Number of differences after which V is held, or None.
        elementwise: Whether V is one number for each weight, or one for all.
    """

    def __init__(self, decay, freeze_after=None, elementwise=True):
        self.decay, self.freeze_after, self.elementwise = decay, freeze_after, elementwise

    def build(self, shapes, names, add_state):
        self.size = sum(math.prod(shape) for shape in shapes)
        named = list(zip(shapes, names, strict=True))
        self.previous = [add_state(shape, f"{name}_previous_gradient") for shape, name in named]
        if self.elementwise:
            self.variances = [add_state(shape, f"{name}_noise_variance") for shape, name in named]
        else:
            self.variances = [add_state((), "noise_variance")]
        self.count = add_state((), "gradients_seen")

    def update(self, gradients, is_held):
        """The variances after a gradient that counts unless `is_held`, the number of differences
        in them, and the changes of state."""
        count = ops.convert_to_tensor(self.count)
        rate = ops.maximum(1.0 / ops.maximum(count, 1.0), 1.0 - self.decay)
        rate = ops.where(ops.logical_or(is_held, count < 1), 0.0, rate)
        if self.freeze_after is not None:
            rate = ops.where(count > self.freeze_after, 0.0, rate)
        squares = [
            0.5 * ops.square(g - before) for g, before in zip(gradients, self.previous, strict=True)
        ]
        if not self.elementwise:
            squares = [sum(ops.sum(s) for s in squares) / self.size]
        variances = [v + rate * (s - v) for v, s in zip(self.variances, squares, strict=True)]
        changes = [
            (variable, ops.where(is_held, ops.convert_to_tensor(variable), g))
            for variable, g in zip(self.previous, gradients, strict=True)
        ]
        changes += zip(self.variances, variances, strict=True)
        changes.append((self.count, ops.where(is_held, count, count + 1.0)))
        return variances, count, changes


class EqualNoise:
    """P = 1/s up to a factor that makes the mean of P² 1, s = max(√V, median(√V)/10): in the
    coordinates θ/P all weights see noise of the same size. P = 1 until the variances are averages
    of ten differences.

    Weights whose gradient has no noise (behind dead units) have no V; without the floor they
    alone would move. The median, of V > 0, is followed: each step raises or lowers it by the
    share of the weights above it, so that nothing is sorted.
    """

    floor_share = 0.1
    differences_needed = 10

    def build(self, size, add_state):
        self.size = size
        self.log_median = add_state((), "log_median_variance")
        self.floor = add_state((), "variance_floor")
        self.factor = add_state((), "scale_factor")  # 0 while P = 1

    def current(self, variances):
        """P from the state, for the variances that it was made of."""
        return self._scale(variances, *map(ops.convert_to_tensor, (self.floor, self.factor)))

    def update(self, variances, num_differences):
        log_median = self._followed_median(variances, num_differences)
        floor = self.floor_share**2 * ops.exp(log_median)
        floored = [ops.maximum(v, floor) for v in variances]
        mean = sum(ops.sum(1.0 / v) for v in floored) / self.size
        factor = ops.where(num_differences >= self.differences_needed, ops.rsqrt(mean), 0.0)
        changes = [(self.log_median, log_median), (self.floor, floor), (self.factor, factor)]
        return self._scale(variances, floor, factor), changes

    def _scale(self, variances, floor, factor):
        return [
            ops.where(factor > 0, factor * ops.rsqrt(ops.maximum(v, floor)), 1.0) for v in variances
        ]

    def _followed_median(self, variances, num_differences):
        total = sum(ops.sum(v) for v in variances)
        positive = sum(ops.sum(ops.cast(v > 0, "float32")) for v in variances)
        mean = ops.maximum(total, 1e-30) / ops.maximum(positive, 1.0)
        before = ops.convert_to_tensor(self.log_median)
        start = ops.where(num_differences <= 1, ops.log(mean), before)
        above = sum(ops.sum(ops.cast(v > ops.exp(start), "float32")) for v in variances)
        share = above / ops.maximum(positive, 1.0)
        rate = ops.maximum(4.0 / (1.0 + num_differences / 20.0), 0.1)
        return ops.where(positive > 0, start + rate * (share - 0.5), start)
