"""Learning rates that change from step to step, for samplers.

A schedule counts training batches from 0, as every Keras schedule does; without gradient
accumulation that is the number of optimizer updates made before. One with a method
`is_sampling(step)` has phases: samplers inject no noise in the steps where it is false, and
`kl.PosteriorSampler` stores nothing that such a step led to.
"""

import math

import keras
from keras import ops

from keras_langevin.arguments import integer, number, positive_number

__all__ = ["CyclicalCosine", "PolynomialDecay"]

_register = keras.saving.register_keras_serializable(package="keras_langevin")


@_register
class PolynomialDecay(keras.optimizers.schedules.LearningRateSchedule):
    """η_t = a (b + t)^(−γ): the decay under which the step-size bias of SGLD vanishes.

    For γ in (½, 1] the sum of η_t diverges and that of η_t² converges, the authors' conditions:
    the chain goes as far as it must, and its noise wins over that of minibatches. Samples get
    closer and closer together, so averages over them should weigh each by
    `sample.learning_rate`, as the authors do; `kl.BayesianEnsembleModel` weighs all alike. To fall
    from η_0 to η_K in K steps take b = K / ((η_0 / η_K)^(1/γ) − 1) and a = η_0 b^γ.

    Args:
        scale: a > 0, in units of the learning rate.
        offset: b > 0, in steps: after about as many the decay sets in.
        power: γ in (½, 1].

    Example:

    >>> rate = kl.schedules.PolynomialDecay(scale=0.1, offset=100.0)
    >>> model.compile(optimizer=kl.SGLD(rate, num_data=len(x)), loss="mse")

    References:
        M. Welling, Y. W. Teh, "Bayesian Learning via Stochastic Gradient Langevin Dynamics",
        ICML 2011, equation 2 and the text after it (their step is 2η/N).
    """

    def __init__(self, scale, offset, power=0.55):
        self.scale = positive_number("scale", scale)
        self.offset = positive_number("offset", offset)
        self.power = number("power", power)
        if not 0.5 < self.power <= 1:
            raise ValueError(
                "`power` must be in (0.5, 1], for which the sum of the learning rates diverges and "
                f"that of their squares converges. Received: power={power!r}"
            )

    def __call__(self, step):
        return self.scale * (self.offset + ops.cast(step, "float32")) ** -self.power

    def get_config(self):
        return {"scale": self.scale, "offset": self.offset, "power": self.power}


@_register
class CyclicalCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Cyclical SG-MCMC: each cycle goes to another mode with large steps, then samples there.

        η_t = (η_0 / 2) [cos(π r_t) + 1],   r_t = mod(t, C) / C,   t = 0, 1, ...

    While r_t < β the optimizer injects no noise: it descends on the potential of the posterior.
    From then on it samples at its temperature. `kl.PosteriorSampler` stores only what a
    sampling step led to; `(sample.step − 1) // C` is the cycle of a sample. With
    `kl.SGLD` this is cSGLD.

    The rate falls towards zero but never is zero, and noise falls with it: the last samples of a
    cycle lie close together. Of the sum of η_t over a cycle, the sampling phase with β = ½ has
    18 %, the last quarter of the cycle 2.5 %.

    Args:
        initial_learning_rate: η_0, at the start of every cycle; multiplies the gradient of the
            mean loss.
        cycle_steps: C, steps of a cycle: K steps in M cycles are `math.ceil(K / M)`.
        exploration: β in [0, 1), the share of a cycle that explores, rounded up to whole steps.

    Example:

    >>> steps_per_epoch = -(-len(x) // 32)
    >>> rate = kl.schedules.CyclicalCosine(0.1, cycle_steps=50 * steps_per_epoch)
    >>> model.compile(optimizer=kl.SGLD(rate, num_data=len(x)), loss=loss)
    >>> sampler = kl.PosteriorSampler(burn_in=0)
    >>> model.fit(x, y, epochs=200, callbacks=[sampler])  # 4 cycles of 25 samples each

    References:
        R. Zhang, C. Li, J. Zhang, C. Chen, A. G. Wilson, "Cyclical Stochastic Gradient MCMC for
        Bayesian Deep Learning", ICLR 2020, arXiv:1902.03932, algorithm 1 (their k counts from 1).
        Their CIFAR code explores for 0.9 of a cycle and samples at a temperature of 1/N unless
        told otherwise.
    """

    def __init__(self, initial_learning_rate, cycle_steps, exploration=0.5):
        self.initial_learning_rate = positive_number("initial_learning_rate", initial_learning_rate)
        self.cycle_steps = integer("cycle_steps", cycle_steps, at_least=1)
        self.exploration = number("exploration", exploration)
        # Rounded first: 0.07 * 100 is a little more than 7.
        self.exploration_steps = math.ceil(round(self.exploration * self.cycle_steps, 6))
        if self.exploration < 0 or self.exploration_steps >= self.cycle_steps:
            raise ValueError(
                "`exploration` must be in [0, 1) and leave at least one step of a cycle for "
                f"sampling. Received: exploration={exploration!r}, cycle_steps={cycle_steps}"
            )

    def __call__(self, step):
        # sin² of the half angle from the end: cos + 1 would lose its digits there.
        remaining = ops.cast(self.cycle_steps - step % self.cycle_steps, "float32")
        sine = ops.sin(math.pi / 2 / self.cycle_steps * remaining)
        return self.initial_learning_rate * sine**2

    def is_sampling(self, step):
        """Whether noise is injected in this step, an integer or an integer tensor."""
        return step % self.cycle_steps >= self.exploration_steps

    def get_config(self):
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "cycle_steps": self.cycle_steps,
            "exploration": self.exploration,
        }
