"""Stochastic gradient Langevin dynamics."""

import keras

from keras_langevin.optimizers.langevin_optimizer import LangevinOptimizer
from keras_langevin.optimizers.sampler import DEFAULT_PRIOR


@keras.saving.register_keras_serializable(package="keras_langevin")
class SGLD(LangevinOptimizer):
    """Stochastic gradient Langevin dynamics: samples p(θ) ∝ exp(−U(θ)/T).

        θ ← θ − η ∇G + √(2ηT/N) ξ

    The plain sampler: cheapest per step, and slow where curvatures differ. η must stay below
    2 / (largest curvature of the mean loss).

    Args:
        learning_rate: η, a float, a Keras schedule or `"auto"` (the default, see
            `kl.Sampler`); multiplies the gradient of the mean loss.
        num_data: N, the number of training examples; required.
        temperature, prior, seed: The target and its noise; see `kl.Sampler`.
        **kwargs: See `kl.LangevinOptimizer`, and Keras' own.

    Example:

    >>> model.compile(optimizer=kl.SGLD(0.01, num_data=len(x)), loss=loss)
    >>> sampler = kl.PosteriorSampler(burn_in=5)
    >>> model.fit(x, y, epochs=20, callbacks=[sampler])
    >>> ensemble = sampler.ensemble()

    References:
        M. Welling, Y. W. Teh, "Bayesian Learning via Stochastic Gradient Langevin Dynamics",
        ICML 2011, equation 4 (their step is 2η/N).
    """

    def __init__(
        self,
        learning_rate="auto",
        *,
        num_data,
        temperature=1.0,
        prior=DEFAULT_PRIOR,
        seed=None,
        **kwargs,
    ):
        kwargs.setdefault("name", "sgld")
        super().__init__(
            learning_rate,
            num_data=num_data,
            temperature=temperature,
            prior=prior,
            seed=seed,
            preconditioner=None,
            **kwargs,
        )

    def preconditioner_config(self):
        return {}
