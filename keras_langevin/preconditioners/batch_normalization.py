"""The metric under which a gradient step does what batch normalization would do (BNP)."""

import math

import keras
from keras import ops

from keras_langevin.arguments import boolean, non_negative_number
from keras_langevin.preconditioners.averaging import AveragingPreconditioner
from keras_langevin.preconditioners.preconditioner import SMALLEST
from keras_langevin.preconditioners.quasi_diagonal import QuasiDiagonal
from keras_langevin.statistics.block import (
    INPUT_MEAN,
    INPUT_SECOND_MOMENT,
    SHIFT,
    UNIT_SCALE,
)


@keras.saving.register_keras_serializable(package="keras_langevin")
class BatchNormalization(QuasiDiagonal, AveragingPreconditioner):
    """BNP: C = P Pᵀ / q² for every layer and unit, from the mean μ and variance s of the layer's
    inputs:

        P = [[1, −μᵀ], [0, I]] diag(1, 1/√s̃),    s̃ = s + ε₁ max_i(s_i) + ε₂

    on (bias, weights), so that C⁻¹ = q² [[1, μᵀ], [μ, diag(s̃) + μμᵀ]]: the quasi-diagonal second
    moments of (1, x), QDOP's metric with all δ² put to 1. Convolutions share one mean and
    variance of each input channel among all taps. A layer without bias uses E[x²] in the place
    of s and P = diag(1/√s̃), which is this package's; so is the running average, which starts at
    the first minibatch and counts the variance between batches, and the lag.

    q² = max(inputs of a unit / batch size, √positions), positions counting the places at which a
    convolution uses its kernel (1 for Dense), balances the layers. It multiplies the metric, so it
    divides drift by q² and noise by q and leaves the target alone.

    Layers whose inputs are not measured (Embedding, grouped and transposed convolutions) have
    C = I and are named in a warning.

    Args:
        relative_epsilon: ε₁. The paper has 1e-2. It is a floor under all variances of a layer, as
            a share of the largest, so that with 1e-2 no input may vary ten times less than the
            widest one and be rescaled: of inputs with standard deviations from 1e-2 to 1e2 it
            leaves most of the spread. The default keeps a range of 1000 in standard deviation; see
            `examples/studies/bnp/simulation.md`.
        epsilon: ε₂, in squared units of the inputs; the paper's 1e-4.
        prior_in_metric: Add the prior's precision over num_data to s̃ too (the default, not the
            paper's), as if the loss had the curvature 1 by its outputs. An input that hardly
            varies leaves its weights to the prior, and without this they are divided by ε₂ alone:
            on raw digits, whose corner pixels are always zero, learning rates above 0.1 then
            diverge, and with it 3 does not.
        averaging: How μ and s average over steps, a `kl.preconditioners.Averaging`, or None. The
            paper's constant average of 0.99 is `Averaging(rate=0.01, floor=0.01)`.

    References:
        S. Lange, K. Helfrich, Q. Ye, "Batch Normalization Preconditioning for Neural Network
        Training", JMLR 23 (2022), equations 12 and 15, algorithms 2 and 3.
    """

    statistics = "inputs"

    def __init__(self, relative_epsilon=1e-6, epsilon=1e-4, prior_in_metric=True, averaging=None):
        super().__init__(averaging)
        self.prior_in_metric = boolean("prior_in_metric", prior_in_metric)
        self.relative_epsilon = non_negative_number("relative_epsilon", relative_epsilon)
        self.epsilon = non_negative_number("epsilon", epsilon)

    def build_state(self, add_variable):
        states = []
        for block in self.layout.blocks:
            name = self.layout.names[block.kernel]
            features = (math.prod(block.shift_shape),)
            states.append(add_variable(features, f"{name}_input_mean"))
            states.append(add_variable(features, f"{name}_input_variance"))
            states.append(add_variable((), f"{name}_unit_scale"))
        return states

    def averages(self, gradients, statistics, rate):
        states, values = iter(self.states), []
        for block in self.layout.blocks:
            batch = {kind: statistics[i] for kind, i in block.statistics.items()}
            mean, variance, scale = next(states), next(states), next(states)
            offset = batch[INPUT_MEAN]
            new_variance = ops.maximum(batch[INPUT_SECOND_MOMENT] - ops.square(offset), 0.0)
            step = batch[SHIFT][0] + offset - mean
            between = rate * (1 - rate) * ops.square(step)
            values += [
                mean + rate * step,
                (1 - rate) * variance + rate * new_variance + between,
                (1 - rate) * scale + rate * batch[UNIT_SCALE],
            ]
        return values

    def metric(self, states):
        states, metric = iter(states), []
        for block in self.layout.blocks:
            mean, variance, scale = next(states), next(states), next(states)
            if block.bias is None:
                variance = variance + ops.square(mean)
            floor = self.relative_epsilon * ops.max(variance) + self.epsilon
            floor = floor + self.prior_in_metric * self.layout.prior_precisions[block.kernel]
            variance = ops.reshape(variance + floor, block.shift_shape)
            scale = ops.where(scale > 0, scale, 1.0)  # before the first minibatch
            schur = scale * ops.maximum(variance, SMALLEST)
            pairing = (ops.reshape(mean, block.shift_shape), scale)
            metric.append((schur,) if block.bias is None else (schur, *pairing))
        return metric

    def get_config(self):
        return {
            "relative_epsilon": self.relative_epsilon,
            "epsilon": self.epsilon,
            "prior_in_metric": self.prior_in_metric,
            **super().get_config(),
        }
