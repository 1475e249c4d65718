"""Natural gradient descent as a sampler."""

import keras

from keras_langevin.optimizers.natural_gradient import NaturalGradient
from keras_langevin.optimizers.sampler import DEFAULT_PRIOR


@keras.saving.register_keras_serializable(package="keras_langevin")
class NGD(NaturalGradient):
    """Natural gradient descent on minibatches, whose own noise samples: near a minimum
    p(θ) ∝ exp(−U(θ)/T) with a temperature that learning rate and batch size set.

        θ ← θ − η M⁻¹ (∇G + √(δc) ξ),   M = F(θ) + δ I,   c = (1/B)(1 − B/N)

        T = (ηN/2B)(1 − B/N),   and so   B = N/(2T/η + 1)

    F is the Fisher information of the mean loss at the present weights. Where the model's
    predictions are the true conditional distribution, the gradient of a minibatch has the
    covariance c F, and a step of natural gradient descent moves like one of Langevin dynamics at
    temperature T without any noise of ours. The completion noise √(δc) ξ, ours, covers the damping:
    without it the variance along an eigenvector of F with eigenvalue f falls to f/(f + δ) of T's.

    What to know:
    - The temperature holds for batches drawn independently of each other, without replacement
      within a batch: pass `kl.RandomBatches(x, y, optimizer.batch_size)` to `fit`. Keras goes
      through shuffled data instead, so that the batches of an epoch balance each other out: at
      T = 1 and η = 0.1, their noise then gives samples taken at ends of epochs 0.27 of the variance
      that T says, and a smaller last batch has a noise of its own. `kl.PosteriorSampler` checks the
      batch size and warns of both.
    - Chains of networks can leave for weights so large that the loss is finite and useless, where
      η/δ is above 1: look at the loss, raise δ or lower η.
    - It is a law near a minimum, for η ≪ 1 and 1 ≪ B ≪ N. A model whose noise is wrong by a factor
      samples at a temperature wrong by that factor. `kl.SNGD(noise="gaussian")` has none of these
      conditions.
    - Where F changes with the weights an uncorrected step does not sample exp(−U/T), and depends
      on the coordinates: see `kl.SNGD`.

    Args:
        learning_rate: η, a float, or a schedule with `batch_size`; 2 is the stability limit, 1 a
            Newton step. Multiplies the gradient of the mean loss. `"auto"` (the default) is the
            rate at which batches of `batch_size` sample at `temperature`, both given.
        num_data: N, the number of training examples; required.
        temperature: T. Sets `optimizer.batch_size`, rounded to an integer, which `fit` must then
            be given. With `batch_size` too, both are checked against each other.
        prior, seed: See `kl.Sampler`.
        batch_size: B. Sets `optimizer.temperature`.
        structure: `"dense"` (models of up to a few thousand weights), or `"quasi_diagonal"` or
            `"diagonal"` for larger ones, whose metric is not the covariance of the minibatch
            noise, so that T holds on average over the weights only.
        fisher: `"model"` or `"empirical"`, see `kl.preconditioners.Fisher`.
        damping: δ, in the units of F. The paper has 1e-4 for logistic regression, 0.1 for networks.
        num_examples: How many training inputs F is averaged over; they are fixed at the start.
        num_draws: For `"dense"`: None for the exact expectation over labels, or a number of draws.
        output, noise_stddev: What the outputs mean, where the loss does not say.
        **kwargs: See `kl.Sampler`, and Keras' own.

    Example:

    >>> optimizer = kl.NGD(0.1, num_data=len(x), temperature=1.0)
    >>> model.compile(optimizer=optimizer, loss=loss)
    >>> batches = kl.RandomBatches(x, y, optimizer.batch_size)
    >>> model.fit(batches, epochs=50, callbacks=[kl.PosteriorSampler(burn_in=10)])

    References:
        S. Smith, D. Duckworth, S. Rezchikov, Q. Le, J. Sohl-Dickstein, "Stochastic natural
        gradient descent draws posterior samples in function space", arXiv:1806.09597v3, 2018,
        equations 11 to 14 and theorem 4. (They print N/B in equation 12 where 1/B is needed.)
        Completion noise and the correction for Keras' epochs are this package's.
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
        **kwargs,
    ):
        kwargs.setdefault("name", "ngd")
        super().__init__(
            learning_rate,
            num_data=num_data,
            temperature=temperature,
            prior=prior,
            seed=seed,
            batch_size=batch_size,
            injects_noise=False,
            **kwargs,
        )
