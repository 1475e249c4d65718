"""The RMSProp metric: C = v^(-1/2), v the moving average of the squared minibatch gradient."""

import keras
from keras import ops

from keras_langevin.arguments import boolean, positive_number
from keras_langevin.arithmetic import scaled, with_product
from keras_langevin.preconditioners.averaging import Averaging, AveragingPreconditioner, get
from keras_langevin.preconditioners.diagonal import moves
from keras_langevin.statistics.block import BIAS_SECOND_MOMENT, SECOND_MOMENT


@keras.saving.register_keras_serializable(package="keras_langevin")
class RMSProp(AveragingPreconditioner):
    """v ← (1 − γ) v + γ ḡ², C = (v + ε)^(-1/2), entry by entry; ḡ is the gradient of the mean
    loss on the minibatch, without the prior.

    Near a mode v is the variance of ḡ, so C falls with the root of the batch size: it is a
    square-root preconditioner and no inverse Fisher.

    Args:
        epsilon: ε, in squared units of the mean loss' gradient. It bounds C by ε^(-1/2) where
            no gradient arrives.
        divergence: Adds the drift (ηT/N) ∂C/∂θ that keeps the target when C depends on θ (Li
            et al. 2016, Γ), through the dependence of v on this minibatch:
            ∂C/∂θ = −γ ḡ h v^(-3/2), with the per-example second moment in the place of the
            second derivative h of the loss. It needs a metric that is not lagged, since a lagged
            C does not depend on the present gradient.
        averaging: How v averages over steps, a `kl.preconditioners.Averaging`. None (the default)
            lags by one step without the divergence term, and not with it.
    """

    def __init__(self, epsilon=1e-8, divergence=False, averaging=None):
        self.correction = boolean("divergence", divergence)
        super().__init__(get(averaging, default=Averaging(lagged=not self.correction)))
        self.epsilon = positive_number("epsilon", epsilon)
        if self.correction and self.averaging.lagged:
            raise ValueError(
                "`divergence=True` needs `lagged=False`: a metric from before this minibatch "
                "does not depend on the present weights through it. Received: "
                f"divergence={divergence}, averaging={self.averaging}. Leave `averaging` out, or "
                "pass `averaging=kl.preconditioners.Averaging(lagged=False)`."
            )

    @property
    def statistics(self):
        return "diagonal" if self.correction else None

    def build_state(self, add_variable):
        layout = self.layout
        return [
            add_variable(shape, f"{name}_mean_square")
            for shape, name in zip(layout.shapes, layout.names, strict=True)
        ]

    def averages(self, gradients, statistics, rate):
        # One gradient entry is close to zero by chance, and C would be huge there: the first
        # minibatch sets one scale for each variable.
        first = ops.convert_to_tensor(self.count) == 0
        squares = [ops.square(g) for g in gradients]
        flat = [ops.reshape(g, (-1,)) for g in gradients]
        means = [ops.vdot(g, g) / g.shape[0] for g in flat]
        first = ops.cast(first, "float32")
        values = []
        for state, square, mean in zip(self.states, squares, means, strict=True):
            value = scaled(square, rate * (1 - first))
            value = with_product(value, 1 - rate, ops.convert_to_tensor(state))
            values.append(with_product(value, first, mean))
        return values

    def metric(self, states):
        return [v + self.epsilon for v in states]

    def solve(self, metric, vectors):
        return [x * ops.rsqrt(v) for v, x in zip(metric, vectors, strict=True)]

    def sample(self, metric, normals):
        return [x * ops.sqrt(ops.rsqrt(v)) for v, x in zip(metric, normals, strict=True)]

    def displacement(self, metric, slopes, rate, normals, noise_scale):
        roots = [ops.sqrt(ops.rsqrt(v)) for v in metric]
        return moves(roots, slopes, rate, normals, noise_scale)

    def whiten(self, metric, vectors):
        return self.sample(metric, vectors)

    def divergence(self, metric, gradients, statistics):
        if not self.correction:
            return None
        rate = self.averaging_rate()
        terms = [ops.zeros_like(v) for v in metric]
        for block in self.layout.blocks:
            for position, kind in ((block.kernel, SECOND_MOMENT), (block.bias, BIAS_SECOND_MOMENT)):
                if position is not None:
                    v, g = metric[position], gradients[position]
                    curvature = statistics[block.statistics[kind]]
                    terms[position] = -rate * g * curvature * v**-1.5
        return terms

    def get_config(self):
        return {"epsilon": self.epsilon, "divergence": self.correction, **super().get_config()}
