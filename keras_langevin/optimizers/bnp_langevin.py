"""Langevin dynamics with the batch-normalization metric (BNP-SGLD)."""

import keras

from keras_langevin.optimizers.langevin_optimizer import DEFAULT_PRIOR, LangevinOptimizer
from keras_langevin.preconditioners.batch_normalization import BatchNormalization


@keras.saving.register_keras_serializable(package="keras_langevin")
class BNPLangevin(LangevinOptimizer):
    """Langevin dynamics in the batch-normalization metric: samples p(θ) ∝ exp(−U(θ)/T).

        θ ← θ − η C ∇G + √(2ηT/N) (P/q) ξ,    C = P Pᵀ / q²

    P centres and scales the inputs of every layer by their running mean and variance, as batch
    normalization does to activations, but in the step alone: the network stays as it is, every
    example keeps its own likelihood, and batches of any size work. For use where inputs differ in
    mean and scale and per-example gradients (`kl.QDOPLangevin`) cost too much; it adds two passes
    over each layer's inputs. With `temperature=0` it is plain BNP training.

    C depends on the weights of earlier layers alone, so the divergence term that a metric which
    follows the weights owes (see `kl.preconditioners.RMSProp`) is zero: in any network that does
    not share weights between layers nothing is neglected.

    What is whose: metric, ε₁, ε₂ and q are of Lange, Helfrich and Ye (2022), who train with it.
    That it improves SGLD is the claim of Lange, Deng, Ye and Lin (2023), whose abstract alone
    could be read: update rule, noise P/q and the handling of prior and temperature here are
    derived, not copied, and need not be theirs.

    Args:
        learning_rate: η, a float, a Keras schedule or `"auto"` (the default, see
            `kl.LangevinOptimizer`). The metric holds the scale of the inputs and not that of the
            loss, so rates compare with SGD on normalized inputs: 0.01 to 0.5.
        num_data: N, the number of training examples; required.
        temperature, prior, seed: See `kl.LangevinOptimizer`.
        relative_epsilon, epsilon, prior_in_metric: What is added to the variances; see
            `kl.preconditioners.BatchNormalization` for why ε₁ is not the paper's 1e-2.
        averaging: How the metric averages over steps, a `kl.preconditioners.Averaging`, or None
            for its defaults. `lagged=False` is the paper.
        **kwargs: See `kl.LangevinOptimizer`, Keras' own among them.

    Example:

    >>> model.compile(optimizer=kl.BNPLangevin(num_data=len(x)), loss=loss)
    >>> sampler = kl.PosteriorSampler(burn_in=5)
    >>> model.fit(x, y, epochs=20, callbacks=[sampler])

    References:
        S. Lange, K. Helfrich, Q. Ye, "Batch Normalization Preconditioning for Neural Network
        Training", JMLR 23 (2022), arXiv:2108.01110, algorithms 2 and 3.
        S. Lange, W. Deng, Q. Ye, G. Lin, "Batch Normalization Preconditioning for Stochastic
        Gradient Langevin Dynamics", J. Mach. Learn. 2 (2023), abstract.
    """

    def __init__(
        self,
        learning_rate="auto",
        *,
        num_data,
        temperature=1.0,
        prior=DEFAULT_PRIOR,
        seed=None,
        relative_epsilon=1e-6,
        epsilon=1e-4,
        prior_in_metric=True,
        averaging=None,
        **kwargs,
    ):
        kwargs.setdefault("name", "bnp_langevin")
        super().__init__(
            learning_rate,
            num_data=num_data,
            temperature=temperature,
            prior=prior,
            seed=seed,
            preconditioner=BatchNormalization(
                relative_epsilon, epsilon, prior_in_metric, averaging
            ),
            **kwargs,
        )

    def preconditioner_config(self):
        return self.preconditioner.get_config()
