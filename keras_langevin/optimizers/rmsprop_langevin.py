"""Langevin dynamics with the RMSProp metric (pSGLD)."""

import keras

from keras_langevin.arguments import boolean
from keras_langevin.optimizers.langevin_optimizer import LangevinOptimizer
from keras_langevin.preconditioners.rmsprop import RMSProp


@keras.saving.register_keras_serializable(package="keras_langevin")
class RMSPropLangevin(LangevinOptimizer):
    """Langevin dynamics in the RMSProp metric: samples p(θ) ∝ exp(−U(θ)/T).

        v ← (1 − γ) v + γ ḡ²,   C = (v + ε)^(-1/2)
        θ ← θ − η C ∇G + √(2ηT/N) C^(1/2) ξ

    Adapts to the scale of each weight's gradient and needs no statistics of the layers. C
    depends on the batch size and is no inverse Fisher, so its learning rates compare with
    those of RMSprop and Adam rather than of `kl.QDOPLangevin`. The metric is lagged by one step
    and averaged, so that the neglected divergence term is of order γ.

    Args:
        learning_rate: η, a float, a Keras schedule or `"auto"` (the default, see
            `kl.LangevinOptimizer`).
        num_data: N, the number of training examples; required.
        epsilon: ε, squared units of the mean loss' gradient.
        correction: Adds the divergence term of Li et al. (their Γ); see
            `kl.preconditioners.RMSProp`. Sets `lagged=False`.
        statistics_rate, statistics_rate_floor, lagged, freeze_after: How the metric averages
            over steps; see `kl.preconditioners.AveragingPreconditioner`. `lagged=None` (the
            default) is True without the correction.
        **kwargs: See `kl.LangevinOptimizer`.

    Example:

    >>> model.compile(optimizer=kl.RMSPropLangevin(1e-4, num_data=len(x)), loss="mse")

    References:
        C. Li, C. Chen, D. Carlson, L. Carin, "Preconditioned Stochastic Gradient Langevin
        Dynamics for Deep Neural Networks", AAAI 2016, algorithm 1 (theirs adds ε outside the
        root and scales by their step); G. Marceau-Caron, Y. Ollivier, "Natural Langevin
        Dynamics for Neural Networks", GSI 2017 (ε inside, the moving average used here).
    """

    def __init__(
        self,
        learning_rate="auto",
        num_data=None,
        epsilon=1e-8,
        correction=False,
        statistics_rate=0.5,
        statistics_rate_floor=0.01,
        lagged=None,
        freeze_after=None,
        **kwargs,
    ):
        kwargs.setdefault("name", "rmsprop_langevin")
        metric = RMSProp(
            epsilon=epsilon,
            correction=correction,
            statistics_rate=statistics_rate,
            statistics_rate_floor=statistics_rate_floor,
            lagged=not boolean("correction", correction) if lagged is None else lagged,
            freeze_after=freeze_after,
        )
        super().__init__(learning_rate, num_data=num_data, preconditioner=metric, **kwargs)

    def preconditioner_config(self):
        return self.preconditioner.get_config()
