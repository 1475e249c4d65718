"""What a metric must answer, and how the parameters of a model fall into its blocks."""

import dataclasses
import math

from keras import ops

from keras_langevin.arithmetic import scaled, with_product
from keras_langevin.statistics.block import BATCH_SIZE, features_axis
from keras_langevin.weights import own_statistics

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
    statistics = [v.statistic for v in own_statistics(variables)]
    for index, statistic in enumerate(statistics):
        block = statistic.block
        if block is not None and _is_trained(block, positions):
            measured.setdefault(block, {})[statistic.kind] = index
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


def _is_trained(block, positions):
    """Whether a block's weights are among the parameters: all of them or none."""
    are_there = {id(v) in positions for v in (block.kernel, block.bias) if v is not None}
    if len(are_there) > 1:
        raise ValueError(
            "Kernel and bias must be trained as they were when the model was tracked. Received: "
            f"one of {block.kernel.path!r} and {block.bias.path!r} is frozen since. Call "
            "`kl.track_statistics(model, optimizer)` again, or `fit` with a `kl.PosteriorSampler`."
        )
    return are_there == {True}


def batch_size_place(variables):
    """Place among the statistics of the size of the batch, None where nothing measures it."""
    kinds = [v.statistic.kind for v in own_statistics(variables)]
    return kinds.index(BATCH_SIZE) if BATCH_SIZE in kinds else None


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a preconditioner is built on.

    Attributes:
        shapes, names: Of every parameter, in order.
        prior_precisions: Of every parameter: -d²log p(θ)/dθ² / num_data of one entry, in the
            units of the mean loss.
        blocks: The measured blocks.
        batch_size: Place among the statistics of the number of examples in the minibatch, which
            is measured where layers are left out of the blocks; None elsewhere.
    """

    shapes: list
    names: list
    prior_precisions: list
    blocks: list
    batch_size: int | None = None

    @property
    def num_weights(self):
        return sum(math.prod(shape) for shape in self.shapes)


def axes_in_weight(shape, position, layout):
    """Which axes of a weight an array of this shape has: all, or that of a number for each input
    feature; None for any other.

    Args:
        position: Of the weight in the `Layout`.
    """
    if shape == tuple(layout.shapes[position]):
        return range(len(shape))
    blocks = [b for b in layout.blocks if b.kernel == position and b.shift_shape is not None]
    if blocks and shape == (math.prod(blocks[0].shift_shape),):
        return (features_axis(blocks[0].shift_shape),)
    return None


def must_implement(preconditioner, method, needed_by, returns):
    """The error of a metric that lacks a method."""
    return NotImplementedError(
        f"`{type(preconditioner).__name__}` must implement `{method}`, which {needed_by} needs. It "
        f"returns {returns}; `kl.preconditioners.Preconditioner` lists what a metric may implement."
    )


class Preconditioner:
    """A metric M on the parameters, its inverse C = M⁻¹ and a factor L with L Lᵀ = C.

    Subclass it for a metric of your own; `examples/add_a_metric.py` is a whole one. All methods
    are pure functions of lists with one float32 array for each parameter, in the order of
    `self.layout.shapes`, so that dynamics (overdamped, underdamped, microcanonical) and metric are
    independent choices. `metric` stands for whatever `update` returns, of any type.

    Every metric implements

    - `solve(metric, vectors)`: C v, the drift;
    - `sample(metric, normals)`: L ξ, the noise;
    - `get_config()`: the arguments of `__init__`, if there are any.

    A metric that changes says so by `learns = True` and implements

    - `build(layout, add_variable)`: makes the state, after `super().build(layout, add_variable)`;
    - `update(values, gradients, statistics)`: the metric of this step, and the new state;
    - `current()`: the metric that the state holds;
    - `is_filled`: whether the state has seen data.

    `kl.preconditioners.AveragingPreconditioner` does these four for moving averages, and
    `kl.preconditioners.Diagonal` all that is linear algebra for one number a weight.

    Some dynamics need more:

    - `whiten(metric, vectors)`: Lᵀ v, for `kl.SGHMC`;
    - `divergence(metric, gradients, statistics)`: Σ_j ∂C_ij/∂θ_j, where it is not neglected;
    - `at(values)`, `multiply(metric, vectors)` and `log_volume(metric, other)`: for a metric that
      is a function of the weights (`kl.preconditioners.Fisher`).

    `displacement` and `squared_length` follow from `solve` and `sample`; override them if there
    is a faster way.

    Attributes, with their defaults here:
        statistics: Which set of statistics of the layers `update` reads: None, `"diagonal"`,
            `"quasi_diagonal"` or `"inputs"` (`kl.statistics`).
        statistics_stride: Measure every so many examples of a batch: 1, all; None, at least 32.
        fisher: Whose labels the measured gradients have: `"empirical"`, the data's, or `"model"`.
        approximates_fisher: Whether C V is about 1, V the covariance of one example's gradient:
            False. `minibatch_noise` in the logs is known from the first step on if it is.
        correction: Whether `divergence` adds a term to the drift: False.
        learns: Whether `update` changes the metric: False.
    """

    statistics = None
    statistics_stride = 1
    fisher = "empirical"
    approximates_fisher = False
    correction = False
    learns = False

    def build(self, layout: Layout, add_variable):
        """Makes the state by `add_variable(shape, name)`, which starts at zero."""
        self.layout = layout
        # 1 while training fills the metric and moves no weight (`kl.warm_up_metric`), −1 while the
        # metric is held.
        self.resting = add_variable((), "resting") if self.learns else None

    def require(self, *methods):
        """Raises what those of the methods that are not implemented would raise in a step."""
        for name in methods:
            if getattr(type(self), name) is getattr(Preconditioner, name):
                getattr(self, name)(None, None)

    def attach(self, model):
        """Gives a metric that reads the model by itself the built model; here, nothing."""

    def set_data(self, x, y=None):
        """Gives a metric that is averaged over training data of its own the data; here, nothing."""

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

    def begin_again(self):
        """Has the next minibatch set the metric, as the first one did: there are new parameters."""

    def hold(self):
        """Ends the learning of a metric that learns until burn-in ends; here, of none."""

    def release(self):
        """Lets a held metric learn again, since there is another burn-in."""

    def is_at_rest(self):
        """Whether this step fills the metric and moves no weight: a boolean, or a tensor of one."""
        return ops.convert_to_tensor(self.resting) > 0 if self.learns else False

    @property
    def is_filled(self) -> bool:
        """Whether the metric is one: at once, or after the first `update`."""
        if self.learns:
            needed_by = 'learning_rate="auto"'
            raise must_implement(self, "is_filled", needed_by, "whether the state has seen data")
        return True

    def current(self):
        """The metric that the state holds: what `solve` and `sample` take, outside of a step."""
        if self.learns:
            needed_by = 'learning_rate="auto", as does `kl.diagnostics`,'
            raise must_implement(self, "current()", needed_by, "the metric that the state holds")
        return None

    def at(self, values):
        """The metric at these weights. Needed of a metric that is a function of them."""
        returns = "the metric as a function of the weights"
        raise must_implement(self, "at(values)", "`kl.SNGD`", returns)

    def solve(self, metric, vectors):
        """C v for v, one array for each parameter."""
        returns = "C v, C the inverse of the metric, as a list with one array a parameter"
        raise must_implement(self, "solve(metric, vectors)", "every sampler", returns)

    def sample(self, metric, normals):
        """L ξ, which has covariance C for standard normal ξ: new arrays or ξ itself, since
        `displacement` uses them up."""
        returns = "L ξ, which has covariance C for standard normal ξ, as a list of arrays"
        raise must_implement(self, "sample(metric, normals)", "every sampler", returns)

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
        returns = "Lᵀ v, L the factor by which `sample` multiplies, as a list of arrays"
        raise must_implement(self, "whiten(metric, vectors)", "`kl.SGHMC`", returns)

    def multiply(self, metric, vectors):
        """M v, what `solve` undoes. Needed of a metric that depends on the position."""
        returns = "M v, what `solve` undoes, as a list of arrays"
        raise must_implement(self, "multiply(metric, vectors)", "`kl.SNGD`", returns)

    def log_volume(self, metric, other):
        """log det M' − log det M, M' the other metric. Needed of one that depends on the
        position; a sum of logarithms of ratios, since a difference of sums would round."""
        returns = "log det M' − log det M, M' the other metric"
        raise must_implement(self, "log_volume(metric, other)", "`kl.SNGD`", returns)

    def divergence(self, metric, gradients, statistics):
        """Σ_j ∂C_ij/∂θ_j for each parameter, or None where it is neglected."""
        return None

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
