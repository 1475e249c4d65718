"""Natural Langevin dynamics: outer-product Fisher metrics from per-example gradients."""

import keras

from keras_langevin.optimizers.langevin_optimizer import DEFAULT_PRIOR, LangevinOptimizer
from keras_langevin.preconditioners.outer_product import (
    DiagonalOuterProduct,
    QuasiDiagonalOuterProduct,
)


class OuterProductLangevin(LangevinOptimizer):
    """What `DOPLangevin` and `QDOPLangevin` share: all but the metric's class."""

    metric_class = None

    def __init__(
        self,
        learning_rate="auto",
        *,
        num_data,
        temperature=1.0,
        prior=DEFAULT_PRIOR,
        seed=None,
        prior_in_metric=True,
        damping=1.0,
        epsilon=1e-8,
        statistics_stride=None,
        fisher="empirical",
        averaging=None,
        **kwargs,
    ):
        kwargs.setdefault("name", type(self).__name__.lower())
        super().__init__(
            learning_rate,
            num_data=num_data,
            temperature=temperature,
            prior=prior,
            seed=seed,
            preconditioner=self.metric_class(
                prior_in_metric, damping, epsilon, statistics_stride, fisher, averaging
            ),
            **kwargs,
        )

    def preconditioner_config(self):
        return self.preconditioner.get_config()


@keras.saving.register_keras_serializable(package="keras_langevin")
class DOPLangevin(OuterProductLangevin):
    """Langevin dynamics in the diagonal outer-product metric: samples p(θ) ∝ exp(−U(θ)/T).

        M ← (1 − γ) M + γ E_batch[g_n²],   C = 1 / (M + prior precision / N)
        θ ← θ − η C ∇G + √(2ηT/N) C^(1/2) ξ

    with g_n the gradient of one example's loss, measured during the ordinary backward pass
    (`kl.track_statistics`, installed by `kl.PosteriorSampler`). Invariant to the scale of
    every input and unit, not to their shift: prefer `kl.QDOPLangevin` unless memory matters
    (one copy of the weights less).

    Args:
        learning_rate: η, a float, a Keras schedule or `"auto"` (the default, see
            `kl.LangevinOptimizer`). In units where the metric is the curvature: 1 would be a
            Newton step; minibatches of size B widen the posterior by about ηN/(2BT), so
            η ≤ 0.2 B/N keeps that under 10 %. Stable rates are below 2/λ, λ the largest
            curvature in those units (`kl.diagnostics.step_size`), usually 100 to 1000.
        num_data: N, the number of training examples; required.
        temperature, prior, seed: See `kl.LangevinOptimizer`.
        prior_in_metric, damping, epsilon: What is added to M; see
            `kl.preconditioners.DiagonalOuterProduct`. `prior_in_metric=False` is the paper.
        statistics_stride: Measure every so many examples of a batch; 1 measures all, `None` (the
            default) at least 32.
        fisher: `"empirical"` (the default, and the paper) takes the gradients g_n under the data's
            labels, `"model"` under labels drawn from the model: the true Fisher information,
            which neither vanishes where the model fits its data nor follows wrong labels. One
            more forward and backward pass a step; see
            `kl.preconditioners.DiagonalOuterProduct`.
        averaging: How the metric averages over steps, a `kl.preconditioners.Averaging`, or None
            for its defaults. `lagged=False` is the paper.
        **kwargs: See `kl.LangevinOptimizer`: `batch_size`, Keras' own, and others.

    Weights that no statistics measure have a diagonal metric from the gradients of minibatches; a
    warning names their layers.

    Example:

    >>> model.compile(optimizer=kl.DOPLangevin(1e-3, num_data=len(x)), loss=loss)
    >>> model.fit(x, y, epochs=20, callbacks=[kl.PosteriorSampler(burn_in=5)])

    References:
        G. Marceau-Caron, Y. Ollivier, "Natural Langevin Dynamics for Neural Networks", GSI
        2017, arXiv:1712.01076, and the code released with it. F. Kunstner, L. Balles,
        P. Hennig, "Limitations of the empirical Fisher approximation for natural gradient
        descent", NeurIPS 2019, arXiv:1905.12558, for when to prefer `fisher="model"`.
    """

    metric_class = DiagonalOuterProduct


@keras.saving.register_keras_serializable(package="keras_langevin")
class QDOPLangevin(OuterProductLangevin):
    """Langevin dynamics in the quasi-diagonal outer-product metric (natural Langevin
    dynamics): samples p(θ) ∝ exp(−U(θ)/T).

        θ ← θ − η C ∇G + √(2ηT/N) L ξ,   C = L Lᵀ the quasi-diagonal inverse of E[g_n g_nᵀ]

    For each unit the metric keeps the diagonal and the pairing of its bias with its weights,
    which makes it the inverse Fisher for inputs that are uncorrelated, whatever their means
    and scales, and the whole noisy path invariant to shifting and scaling any input.

    Args:
        learning_rate, num_data, temperature, prior, seed, prior_in_metric, damping, epsilon,
            statistics_stride, fisher, averaging, **kwargs: As in `kl.DOPLangevin`.

    Example:

    >>> model.compile(optimizer=kl.QDOPLangevin("auto", num_data=len(x)), loss=loss)
    >>> sampler = kl.PosteriorSampler(burn_in=5)
    >>> model.fit(x, y, epochs=20, callbacks=[sampler])
    >>> sampler.ensemble().predict_uncertainty(x_test)

    References:
        G. Marceau-Caron, Y. Ollivier, "Natural Langevin Dynamics for Neural Networks", GSI
        2017, arXiv:1712.01076; "Practical Riemannian Neural Networks", arXiv:1602.08007, for
        the quasi-diagonal inverse. Lag, prior in the metric and centred storage are this
        package's.
    """

    metric_class = QuasiDiagonalOuterProduct
