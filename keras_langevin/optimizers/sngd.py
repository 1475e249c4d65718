"""Stochastic natural gradient descent: natural gradients with the corrections they owe."""

import warnings

import keras

from keras_langevin.arguments import one_of
from keras_langevin.optimizers.natural_gradient import NaturalGradient
from keras_langevin.optimizers.sampler import DEFAULT_PRIOR
from keras_langevin.preconditioners.dense_fisher import check_memory
from keras_langevin.preconditioners.fisher_correction import by_autodiff, by_finite_difference

METHODS = ("finite_difference", "midpoint", "autodiff")


@keras.saving.register_keras_serializable(package="keras_langevin")
class SNGD(NaturalGradient):
    """Stochastic natural gradient descent: samples p(θ) ∝ exp(−U(θ)/T) |M(θ)|^½, a law in function
    space, the same in whatever coordinates the model is written.

        θ ← θ − η M⁻¹ ∇G + (ηT/N) k + noise,    M = F(θ) + δ I
        k = div M⁻¹ + ½ M⁻¹ ∇ log det M

    For use where the posterior should not depend on how the model is parametrised and data are
    few: k moves the mean by O(1/N), the posterior is 1/√N wide. |M|^½ is Jeffreys' prior; it is
    improper, and grows with the weights of many networks, so give a proper `prior` as well. With
    `correction="divergence"` the law is exp(−U/T), whose prior is flat in these coordinates.

    `noise="minibatch"` is the paper's: nothing is injected and T = (ηN/2B)(1 − B/N), with all of
    `kl.NGD`'s conditions; besides, the law holds away from the minimum only as far as the model's
    own labels vary as the data's do. `noise="gaussian"` injects N(0, (2ηT/N) M⁻¹), and has the law
    for any T and any model as η → 0; minibatches add about ηN/(2BT) to the temperature.

    Args:
        learning_rate, num_data, temperature, batch_size, structure, fisher, damping,
            num_examples, num_draws, output, noise_stddev: As in `kl.NGD`. With `noise="gaussian"`
            the temperature is free (1 by default), `learning_rate="auto"` is found as in
            `kl.Sampler`, and `minibatch_correction` is that of `kl.LangevinOptimizer`.
        prior, seed: See `kl.Sampler`.
        correction: `"jeffreys"` for k, `"divergence"` for its first term alone.
        noise: `"minibatch"` or `"gaussian"`.
        correction_method: How k is computed.
            `"finite_difference"`: the metric at two random neighbours, two more evaluations.
            `"midpoint"`: the step is taken with the metric half-way, one more evaluation; its noise
            then has the divergence in its mean, with no derivative computed (for
            `"jeffreys"` the volume term comes by finite difference, three in all).
            `"autodiff"`: exact derivatives, for `structure="dense"` and up to a few hundred
            weights; on TensorFlow with `jit_compile=False`.
        **kwargs: See `kl.Sampler`, and Keras' own.

    Example:

    >>> optimizer = kl.SNGD(0.1, num_data=len(x), noise="gaussian", damping=1e-3)
    >>> model.compile(optimizer=optimizer, loss=loss)
    >>> model.fit(x, y, batch_size=len(x), epochs=500, callbacks=[kl.PosteriorSampler(100)])

    References:
        S. Smith, D. Duckworth, S. Rezchikov, Q. Le, J. Sohl-Dickstein, "Stochastic natural
        gradient descent draws posterior samples in function space", arXiv:1806.09597v3, 2018,
        theorems 2, 3 and 5. That version contradicts itself in the signs of k: the ones here are
        those of its equation 23, under which the probability current of the stated law vanishes
        (`tests/preconditioners/test_fisher_correction.py`). The equations of later versions could
        not be read. Midpoint, finite difference and the choice of noise are this package's.
    """

    def __init__(
        self,
        learning_rate="auto",
        *,
        num_data,
        temperature=None,
        prior=DEFAULT_PRIOR,
        seed=None,
        batch_size=None,
        correction="jeffreys",
        noise="minibatch",
        correction_method="finite_difference",
        **kwargs,
    ):
        one_of("correction", correction, ("jeffreys", "divergence"))
        one_of("noise", noise, ("minibatch", "gaussian"))
        one_of("correction_method", correction_method, METHODS)
        kwargs.setdefault("name", "sngd")
        super().__init__(
            learning_rate,
            num_data=num_data,
            temperature=temperature,
            prior=prior,
            seed=seed,
            batch_size=batch_size,
            injects_noise=noise == "gaussian",
            **kwargs,
        )
        if correction_method == "autodiff" and self.structure != "dense":
            raise ValueError(
                'correction_method="autodiff" needs structure="dense". Received: structure='
                f'{self.structure!r}. Use "finite_difference" or "midpoint".'
            )
        self.correction, self.correction_method = correction, correction_method

    def prepare_fit(self, model):
        super().prepare_fit(model)
        is_compiled = keras.backend.backend() == "tensorflow" and model.jit_compile
        if self.correction_method == "autodiff" and is_compiled:
            warnings.warn(
                'On TensorFlow correction_method="autodiff" takes third derivatives that XLA '
                "compiles anew in every step. Received: jit_compile=True. Compile the model with "
                '`jit_compile=False`, or use correction_method="finite_difference".',
                stacklevel=2,
            )

    def build_state(self):
        if self.correction_method == "autodiff":
            num_weights = self.layout.num_weights
            words = ('correction_method="autodiff"', 'correction_method="finite_difference"')
            check_memory(num_weights, 2, 3, words)

    def move(self, values, slopes, metric, learning_rate):
        fisher = self.preconditioner
        step = self.displacement(slopes, metric, learning_rate)
        if self.correction_method == "midpoint":
            middle = [θ + 0.5 * d for θ, d in zip(values, step, strict=True)]
            step = fisher.solve(fisher.at(middle), fisher.multiply(metric, step))
        correction = self.correction_at(values, metric)
        if correction is not None:
            rate = self.correction_rate(learning_rate)
            step = [d + rate * k for d, k in zip(step, correction, strict=True)]
        return [θ + d for θ, d in zip(values, step, strict=True)]

    def correction_at(self, values, metric):
        """k, or what of it a step with the metric half-way does not have already."""
        jeffreys = self.correction == "jeffreys"
        if self.correction_method == "autodiff":
            return by_autodiff(self.preconditioner, values, metric, jeffreys)
        with_divergence = self.correction_method != "midpoint"
        if not jeffreys and not with_divergence:
            return None
        normals = self.directions([v.shape for v in values])
        return by_finite_difference(
            self.preconditioner, values, metric, normals, jeffreys, with_divergence
        )

    def directions(self, shapes):
        """Normal numbers independent of those of `normals`: their streams come after."""
        return [
            self.normal(shape, self.iterations, len(shapes) + i) for i, shape in enumerate(shapes)
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "correction": self.correction,
            "noise": "gaussian" if self.injects_noise else "minibatch",
            "correction_method": self.correction_method,
        }
