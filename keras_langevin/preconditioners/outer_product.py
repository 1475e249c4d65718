"""Outer-product Fisher metrics from per-example gradients: diagonal and quasi-diagonal.
Notation of Marceau-Caron and Ollivier (2017): M00, M0i, Mii."""

import keras
from keras import ops

from keras_langevin.arguments import boolean, integer, non_negative_number, one_of
from keras_langevin.arithmetic import at_least, mixed, scaled, with_product
from keras_langevin.preconditioners.averaging import AveragingPreconditioner
from keras_langevin.preconditioners.diagonal import Diagonal
from keras_langevin.preconditioners.minibatch_moments import minibatch_moments, with_all_parameters
from keras_langevin.preconditioners.preconditioner import SMALLEST
from keras_langevin.preconditioners.quasi_diagonal import QuasiDiagonal, centred, with_added
from keras_langevin.statistics.block import BIAS_SECOND_MOMENT, SECOND_MOMENT


class OuterProduct(AveragingPreconditioner):
    """What the two outer-product metrics share.

    Args:
        prior_in_metric: Add the prior's precision over num_data to the metric, which then
            approximates the posterior's precision over num_data (the default). A weight that
            no data reach then walks on its prior. False is the paper.
        damping: Multiple of the prior's precision that is added; more than 1 shortens steps
            along directions that the data leave free. The target stays as it is.
        epsilon: Added to the diagonal. Units of squared gradients of one example's loss.
        statistics_stride: Measure every so many examples of a batch, the first among them: an
            unbiased estimate, as batches are in random order, for less arithmetic. `None` measures
            at least 32 examples, all of a smaller batch: on MNIST with batches of 500, from
            500 down to 32 measured examples made no difference to the ensemble
            (`examples/studies/mnist/statistics_stride.py`).
        fisher: Whose labels the gradients g_n have: `"empirical"`, the data's (the default and
            the papers'), or `"model"`, labels drawn from the model at its present weights, anew
            in every step, which makes M an estimate of the true Fisher information, the
            curvature of a calibrated model's loss. The outer products under the data's labels
            vanish where the model fits them and follow wrong ones; those under the model's do
            neither (Kunstner et al. 2019). It costs one more forward and backward pass a step,
            and needs a loss that says what is drawn: cross-entropies, mean squared error,
            `kl.losses.GaussianNLL`. Weights of examples or of losses multiply log-likelihoods.
        averaging: How M averages over steps, a `kl.preconditioners.Averaging`, or None.
    """

    def __init__(
        self,
        prior_in_metric=True,
        damping=1.0,
        epsilon=1e-8,
        statistics_stride=None,
        fisher="empirical",
        averaging=None,
    ):
        super().__init__(averaging)
        if statistics_stride is not None:
            statistics_stride = integer("statistics_stride", statistics_stride, at_least=1)
        self.statistics_stride = statistics_stride
        self.fisher = one_of("fisher", fisher, ("empirical", "model"))
        self.prior_in_metric = boolean("prior_in_metric", prior_in_metric)
        self.damping = non_negative_number("damping", damping)
        self.epsilon = non_negative_number("epsilon", epsilon)

    def build(self, layout, add_variable):
        super().build(with_all_parameters(layout), add_variable)

    def update(self, values, gradients, statistics):
        moments = minibatch_moments(self.layout, gradients, statistics)
        return super().update(values, gradients, [*statistics, *moments])

    @property
    def approximates_fisher(self):
        return self.fisher == "empirical"

    def added(self, position):
        """What the prior and ε add to the diagonal of this parameter's metric."""
        prior = self.damping * self.layout.prior_precisions[position] * self.prior_in_metric
        return prior + self.epsilon

    def get_config(self):
        return {
            "prior_in_metric": self.prior_in_metric,
            "damping": self.damping,
            "epsilon": self.epsilon,
            "statistics_stride": self.statistics_stride,
            "fisher": self.fisher,
            **super().get_config(),
        }


@keras.saving.register_keras_serializable(package="keras_langevin")
class DiagonalOuterProduct(Diagonal, OuterProduct):
    """DOP: C = 1 / M, M = E[g_n²] entry by entry, g_n the gradient of one example's loss."""

    statistics = "diagonal"

    def build_state(self, add_variable):
        names, shapes = self.layout.names, self.layout.shapes
        self.positions, self.sources, moments = [], [], []
        for block in self.layout.blocks:
            for position, kind in ((block.kernel, SECOND_MOMENT), (block.bias, BIAS_SECOND_MOMENT)):
                if position is not None:
                    self.positions.append(position)
                    self.sources.append(block.statistics[kind])
                    name = f"{names[position]}_second_moment"
                    moments.append(add_variable(shapes[position], name))
        return moments

    def averages(self, gradients, statistics, rate):
        return [
            mixed(ops.convert_to_tensor(moment), statistics[source], rate)
            for moment, source in zip(self.states, self.sources, strict=True)
        ]

    def metric(self, states):
        metric = [None] * len(self.layout.shapes)
        for position, moment in zip(self.positions, states, strict=True):
            metric[position] = at_least(moment + self.added(position), SMALLEST)
        return metric


@keras.saving.register_keras_serializable(package="keras_langevin")
class QuasiDiagonalOuterProduct(QuasiDiagonal, OuterProduct):
    """QDOP: for every unit, the entries of E[g_n g_nᵀ] that pair its bias with itself and
    with each of its weights, and each weight with itself; the other entries are those of the
    maximum-entropy completion M0i M0j / M00.

    Stored centred, so that float32 does not cancel: M00, μ_i = M0i / M00 (the δ²-weighted
    mean of input i) and S_i = Mii − M0i²/M00 (M00 times its variance); solving and sampling are
    those of `QuasiDiagonal`.

    A kernel without bias has nothing to pair with and is DOP. Invariant to shift and scale of
    every input (with ε = 0 and the prior out of the metric or transformed along).
    """

    statistics = "quasi_diagonal"

    def build_state(self, add_variable):
        names, shapes = self.layout.names, self.layout.shapes
        states = []
        for block in self.layout.blocks:
            kernel = names[block.kernel]
            states.append(add_variable(shapes[block.kernel], f"{kernel}_schur"))
            if block.bias is not None:
                states.append(add_variable(shapes[block.kernel], f"{kernel}_mean"))
                name = f"{names[block.bias]}_second_moment"
                states.append(add_variable(shapes[block.bias], name))
        return states

    def averages(self, gradients, statistics, rate):
        states, values = iter(self.states), []
        for block in self.layout.blocks:
            batch = {kind: statistics[i] for kind, i in block.statistics.items()}
            new = centred(block, batch)
            old = [ops.convert_to_tensor(next(states)) for _ in new]
            if block.bias is None:
                values.append(mixed(*old, *new, rate))
            else:
                values += _merge(block, *old, *new, rate)
        return values

    def metric(self, states):
        states, metric = iter(states), []
        for block in self.layout.blocks:
            moments = [next(states) for _ in range(1 if block.bias is None else 3)]
            metric.append(with_added(block, moments, self.added))
        return metric


def _merge(block, schur, mean, moment, new_schur, new_mean, new_moment, rate):
    """The average of two weighted sets of inputs, centred on their common mean (Welford). The new
    set is used up."""
    old_share, new_share = (1 - rate) * moment, rate * new_moment
    merged = old_share + new_share
    weight = new_share / ops.where(merged > 0, merged, 1.0)
    weight = ops.reshape(weight, block.bias_shape)
    step = with_product(new_mean, -1, mean)
    between = ops.reshape(old_share, block.bias_shape) * weight
    schur = with_product(scaled(new_schur, rate), 1 - rate, schur)
    schur = with_product(schur, between, step * step)
    return schur, with_product(scaled(step, weight), 1, mean), merged
