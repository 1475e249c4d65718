"""What a metric must answer, and how the parameters of a model fall into its blocks."""

import dataclasses
import math

from keras import ops

from keras_langevin.arguments import boolean, integer, unit_interval
from keras_langevin.arithmetic import scaled, with_product
from keras_langevin.weights import is_statistic

# Below this an entry of a metric counts as zero; drift and noise see the same clamped value.
SMALLEST = 1e-20


@dataclasses.dataclass(frozen=True)
class BlockLayout:
    """One measured block, by position in the list of parameters.

    Attributes:
        kernel, bias: Positions of the parameters; bias may be None.
        bias_shape, shift_shape: Shapes under which a number for each bias entry, or for each
            input feature, broadcasts against the kernel.
        statistics: From kind to position in the list of statistics.
    """

    kernel: int
    bias: int | None
    bias_shape: tuple | None
    shift_shape: tuple | None
    statistics: dict


def block_layouts(variables, positions) -> tuple[BlockLayout, ...]:
    """The blocks that the statistics among the variables describe.

    Args:
        positions: From the id of a parameter to its place in the list of parameters.
    """
    measured = {}
    statistics = [v.statistic for v in variables if is_statistic(v)]
    for index, statistic in enumerate(statistics):
        if statistic.block is not None:
            measured.setdefault(statistic.block, {})[statistic.kind] = index
    return tuple(
        BlockLayout(
            kernel=positions[id(block.kernel)],
            bias=None if block.bias is None else positions[id(block.bias)],
            bias_shape=block.bias_shape,
            shift_shape=block.shift_shape,
            statistics=indices,
        )
        for block, indices in measured.items()
    )


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a preconditioner is built on.

    Attributes:
        shapes, names: Of every parameter, in order.
        prior_precisions: Of every parameter: -d²log p(θ)/dθ² / num_data of one entry, in the
            units of the mean loss.
        blocks: The measured blocks.
    """

    shapes: list
    names: list
    prior_precisions: list
    blocks: list

    @property
    def num_weights(self):
        return sum(math.prod(shape) for shape in self.shapes)


class Preconditioner:
    """A metric M on the parameters, its inverse C = M⁻¹ and a factor L with L Lᵀ = C.

    All methods are pure functions of lists with one array for each parameter, so that
    dynamics (overdamped, underdamped, microcanonical) and metric are independent choices.
    """

    statistics = None  # which set of statistics `update` reads
    statistics_stride = 1  # every how many examples of a batch are measured
    approximates_fisher = False  # whether C V is about 1, V the covariance of a gradient
    fisher = "empirical"  # whose labels the statistics have: the data's, or the "model"'s

    def attach(self, model):
        """Shows a metric that reads the model by itself the model it will be of."""

    def build(self, layout: Layout, add_variable):
        """Makes the state by `add_variable(shape, name)`, which starts at zero."""
        self.layout = layout

    def update(self, values, gradients, statistics):
        """The metric for this step, and the changes of state after it.

        Args:
            values: Of the parameters, before the step.
            gradients: Of the mean loss on the minibatch, without the prior.
            statistics: Values in the order that the layout's blocks refer to.

        Returns:
            `(metric, changes)`: what `solve` and `sample` take, and `(variable, value)` pairs.
        """
        return None, []

    learns = False  # whether `update` changes the metric

    def is_at_rest(self):
        """Whether this step fills the metric and moves no weight: a boolean, or a tensor of one."""
        return False

    @property
    def is_filled(self) -> bool:
        """Whether the metric is one: at once, or after the first `update`."""
        return True

    def current(self):
        """The metric that the state holds: what `solve` and `sample` take, outside of a step."""
        return None

    def solve(self, metric, vectors):
        """C v for v, one array for each parameter."""
        raise NotImplementedError

    def sample(self, metric, normals):
        """L ξ, which has covariance C for standard normal ξ: new arrays or ξ itself, since
        `displacement` uses them up."""
        raise NotImplementedError

    def displacement(self, metric, slopes, rate, normals, noise_scale):
        """−η C g + s L ξ, the step of Langevin dynamics; without noise where `normals` is None.

        Args:
            slopes: g.
            normals: ξ, which is used up (`keras_langevin.arithmetic`).
            rate, noise_scale: η and s, scalars.
        """
        drift = self.solve(metric, slopes)
        if normals is None:
            return [-rate * d for d in drift]
        noise = [scaled(n, noise_scale) for n in self.sample(metric, normals)]
        return [with_product(n, -rate, d) for n, d in zip(noise, drift, strict=True)]

    def squared_length(self, metric, vectors):
        """vᵀ C v."""
        solved = self.solve(metric, vectors)
        return sum(ops.sum(a * b) for a, b in zip(solved, vectors, strict=True))

    def whiten(self, metric, vectors):
        """Lᵀ v: a gradient in the coordinates in which the metric is the identity. Needed by
        dynamics with a momentum."""
        raise NotImplementedError

    def multiply(self, metric, vectors):
        """M v, what `solve` undoes. Needed of a metric that depends on the position."""
        raise NotImplementedError

    def log_volume(self, metric, other):
        """log det M' − log det M, M' the other metric. Needed of one that depends on the
        position; a sum of logarithms of ratios, since a difference of sums would round."""
        raise NotImplementedError

    def divergence(self, metric, gradients, statistics):
        """Σ_j ∂C_ij/∂θ_j for each parameter, or None where it is neglected."""
        return None

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class AveragingPreconditioner(Preconditioner):
    """A metric that is a moving average M ← (1 − γ_t) M + γ_t m over minibatches.

    γ_t = max(floor, 1 / √(1/γ₀² + t)), where t counts the updates (Marceau-Caron and
    Ollivier's released code, plus the floor). The first minibatch sets the metric.

    Args:
        statistics_rate: γ₀ in (0, 1].
        statistics_rate_floor: The smallest γ; equal to `statistics_rate` it makes γ constant.
        lagged: Precondition with the metric from before this minibatch, so that gradient and
            metric are independent (the default). The very first minibatch then fills the metric and
            moves nothing. The paper uses the current one, which moves the mean of the samples by a
            share of γ.
        freeze_after: Number of updates after which the metric is held, or None. A held metric
            has no adaptation bias; hold it when burn-in ends.
    """

    learns = True

    def __init__(
        self, statistics_rate=0.5, statistics_rate_floor=0.01, lagged=True, freeze_after=None
    ):
        self.statistics_rate = unit_interval("statistics_rate", statistics_rate)
        self.statistics_rate_floor = unit_interval(
            "statistics_rate_floor", statistics_rate_floor, zero_allowed=True
        )
        self.lagged = boolean("lagged", lagged)
        if freeze_after is not None:
            freeze_after = integer("freeze_after", freeze_after, at_least=1)
        self.freeze_after = freeze_after

    def build(self, layout, add_variable):
        super().build(layout, add_variable)
        self.count = add_variable((), "metric_updates")
        self.resting = add_variable((), "resting")
        self.states = self.build_state(add_variable)

    def build_state(self, add_variable):
        """The variables that are averaged."""
        raise NotImplementedError

    def averages(self, gradients, statistics, rate):
        """What the states become at this rate."""
        raise NotImplementedError

    def metric(self, states):
        """The metric from the state's values."""
        raise NotImplementedError

    def update(self, values, gradients, statistics):
        count = ops.convert_to_tensor(self.count)
        values = self.averages(gradients, statistics, self.rate(count))
        used = [ops.convert_to_tensor(old) for old in self.states] if self.lagged else values
        changes = [(self.count, count + 1), *zip(self.states, values, strict=True)]
        return self.metric(used), changes

    def is_at_rest(self):
        is_resting = ops.convert_to_tensor(self.resting) > 0
        return ops.logical_or(is_resting, self.count < 1) if self.lagged else is_resting

    @property
    def is_filled(self):
        return bool(ops.convert_to_numpy(self.count) > 0)

    def current(self):
        return self.metric([ops.convert_to_tensor(s) for s in self.states])

    def rate(self, count):
        floor = max(self.statistics_rate_floor, 1e-12)
        decayed = ops.rsqrt(1.0 / self.statistics_rate**2 + count)
        rate = ops.where(count > 0, ops.maximum(decayed, floor), 1.0)
        if self.freeze_after is not None:
            rate = ops.where(count >= self.freeze_after, 0.0, rate)
        return rate

    def get_config(self):
        return {
            "statistics_rate": self.statistics_rate,
            "statistics_rate_floor": self.statistics_rate_floor,
            "lagged": self.lagged,
            "freeze_after": self.freeze_after,
        }
