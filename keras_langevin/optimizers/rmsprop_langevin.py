"""Langevin dynamics with the RMSProp metric (pSGLD)."""

import keras

from keras_langevin.optimizers.langevin_optimizer import DEFAULT_PRIOR, LangevinOptimizer
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
        temperature, prior, seed: See `kl.LangevinOptimizer`.
        epsilon: ε, squared units of the mean loss' gradient.
        divergence: Adds the divergence term of Li et al. (their Γ); see
            `kl.preconditioners.RMSProp`. It needs a metric that is not lagged.
        averaging: How the metric averages over steps, a `kl.preconditioners.Averaging`. None (the
            default) lags by one step, but for `divergence=True`.
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
        *,
        num_data,
        temperature=1.0,
        prior=DEFAULT_PRIOR,
        seed=None,
        epsilon=1e-8,
        divergence=False,
        averaging=None,
        **kwargs,
    ):
        kwargs.setdefault("name", "rmsprop_langevin")
        super().__init__(
            learning_rate,
            num_data=num_data,
            temperature=temperature,
            prior=prior,
            seed=seed,
            preconditioner=RMSProp(epsilon, divergence, averaging),
            **kwargs,
        )

    def preconditioner_config(self):
        return self.preconditioner.get_config()
