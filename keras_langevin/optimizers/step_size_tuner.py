"""Rules by which `kl.SMILE` chooses its step size from the energy error S of each step, and which
steps it takes back."""

import statistics

import keras
from keras import ops

from keras_langevin.arguments import shorten

LEAST, MOST = 1e-16, 100.0  # times the target: what one step may say about the energy
REJECTED = 1e4  # times the target: steps beyond it are taken back
STEPS_BEFORE_REJECTING = 20
_MEMORY = (10.0, 100.0)  # A and W cover about half as many steps; a tenth of those so far
_SHRINK, _GROW = 0.8, 1.02  # the most that one step changes the step size
_NORMAL = statistics.NormalDist()
_AVERAGE_POWER = 3.0  # the average of log ε over tuning weighs step t by t³


class NoTuner:
    """The step size is what the optimizer was given; every step with finite energy stands."""

    follows_learning_rate = True
    needs_potential = False  # whether S is of the potential itself, or of its slopes
    learns_from_rejected = False
    back_off = 0.8  # factor on the step size for every step in a row that was taken back

    def build(self, dimension, add_state):
        pass

    def is_unacceptable(self, energy, num_steps):
        return False

    def update(self, energy, used, step_size, is_tuning):
        """The next step size and the changes of state, after a step that stands."""
        return step_size, []


class AbsoluteEnergy(NoTuner):
    """Brings E[S²]/d to a target v*:

        A ← γA + x/ε⁶,  W ← γW + 1,  ε ← (A/W)^(-1/6),   x = min(S²/(d v*), 100)

    where a step changes ε by a factor within [0.8, 1.02]. γ forgets fast at first, so that a
    small ε grows: γ = (n−1)/(n+1), n a tenth of the steps so far, from 10 to 100. When tuning
    ends, ε is the average of log ε over the tuning, the later the heavier. The root of the rule
    does not depend on the power 6; S² grows with the power 4 (noise) to 6 (exact gradients) of ε.
    """

    follows_learning_rate = False

    def __init__(self, target_energy):
        self.target = target_energy  # a number, or a variable of one

    def build(self, dimension, add_state):
        self.dimension = dimension
        self.energy = add_state((), "tuner_energy")  # A, in units of the present ε^(-6)
        self.weight = add_state((), "tuner_weight")
        self.log_average = add_state((), "tuner_log_step_size")
        self.count = add_state((), "tuner_steps")

    def relative(self, energy):
        return ops.square(energy) / (self.dimension * self.target)

    def is_unacceptable(self, energy, num_steps):
        is_far = self.relative(energy) > REJECTED
        return ops.logical_and(is_far, num_steps >= STEPS_BEFORE_REJECTING)

    def update(self, energy, used, step_size, is_tuning):
        said = ops.clip(self.relative(energy), LEAST, MOST)
        memory = ops.clip(0.1 * self.count, *_MEMORY)
        kept = (memory - 1.0) / (memory + 1.0)
        total = kept * self.energy + said * (step_size / used) ** 6
        weight = kept * self.weight + 1.0
        wanted = step_size * (total / weight) ** (-1.0 / 6.0)
        tuned = ops.clip(wanted, _SHRINK * used, _GROW * used)
        total = total * (tuned / step_size) ** 6
        count = self.count + 1.0
        share = (_AVERAGE_POWER + 1.0) / (_AVERAGE_POWER + count)
        average = (1.0 - share) * self.log_average + share * ops.log(tuned)
        variables = (self.energy, self.weight, self.log_average, self.count)
        changes = [
            (variable, ops.where(is_tuning, new, ops.convert_to_tensor(variable)))
            for variable, new in zip(variables, (total, weight, average, count), strict=True)
        ]
        held = ops.where(self.count > 0, ops.exp(self.log_average), step_size)
        return ops.where(is_tuning, tuned, held), changes


class EnergyVariance(NoTuner):
    """The published rule (Sommer et al. 2026, algorithm 1): a Gamma law is fitted to |ΔE| by
    moving averages of its mean and variance, and Wilson and Hilferty's approximation gives its
    quantiles q. A step with |ΔE| > q(ρ) is taken back; |ΔE| > q(1 − 2a/3) shrinks ε by the
    factor 1 − δ, |ΔE| < q(a/3) lets it grow by 1 + δ; it goes on while sampling.

    ΔE contains how much the log-likelihood of one minibatch differs from the next one's, which
    does not depend on ε: the rule follows the shape of that law, not an integration error.
    Heavy tails shrink ε without end, and one outlier of 1000 times the typical |ΔE| makes the
    fitted quantiles negative, so that all that follows is taken back. For comparison only.
    """

    follows_learning_rate = False
    needs_potential = True
    learns_from_rejected = True
    back_off = 1.0
    reset_probability, adaption_probability, adaption_strength = 0.98, 0.1, 0.02  # ρ, a, δ
    smoothing = 0.01
    first_step = 10  # steps before which nothing is tuned or taken back

    def build(self, dimension, add_state):
        self.mean = add_state((), "tuner_mean")
        self.stddev = add_state((), "tuner_stddev")
        self.count = add_state((), "tuner_steps")

    def quantile(self, normal_quantile):
        """q(p) of the fitted Gamma law for Φ⁻¹(p)."""
        mean = ops.convert_to_tensor(self.mean)
        variance = ops.square(self.stddev) + 1e-6
        shape = ops.maximum(mean, 1e-6) ** 2 / variance
        scale = variance / ops.maximum(mean, 1e-6)
        root = 1.0 - 1.0 / (9.0 * shape) + normal_quantile / (3.0 * ops.sqrt(shape))
        return scale * shape * root**3

    def is_unacceptable(self, energy, num_steps):
        limit = self.quantile(_NORMAL.inv_cdf(self.reset_probability))
        return ops.logical_and(ops.abs(energy) > limit, self.count + 1 >= self.first_step)

    def update(self, energy, used, step_size, is_tuning):
        size, count = ops.abs(energy), self.count + 1.0
        high = self.quantile(_NORMAL.inv_cdf(1.0 - 2.0 * self.adaption_probability / 3.0))
        low = self.quantile(_NORMAL.inv_cdf(self.adaption_probability / 3.0))
        factor = ops.where(size < low, 1.0 + self.adaption_strength, 1.0)
        factor = ops.where(size > high, 1.0 - self.adaption_strength, factor)
        factor = ops.where(count >= self.first_step, factor, 1.0)
        rate = self.smoothing
        mean = ops.where(count < 3, size, (1 - rate) * self.mean + rate * size)
        mean = ops.clip(mean, 1e-6, 1e6)
        variance = (1 - rate) * ops.square(self.stddev) * ops.cast(count > 1, "float32")
        variance = variance + rate * ops.square(size - mean)
        early = ops.minimum(ops.maximum(count - 4.0, 1.0), 60.0)
        variance = variance / ops.where(count < 5, 1.0, 1.0 - 0.5**early)
        stddev = ops.clip(ops.sqrt(variance), 1e-6, 1e7)
        changes = [(self.mean, mean), (self.stddev, stddev), (self.count, count)]
        return ops.clip(step_size * factor, 1e-8, 10.0), changes


def target_energy_for(num_steps) -> float:
    """v* for a run of K steps, 60,000 where nobody knows: 1e-4 (60,000/K)^1.2, at most 0.01.

    K steps leave a squared Monte Carlo error of order 1/(εK), and a squared bias of order ε⁴ with
    exact gradients (ε² in the variances) or ε² with the noise of minibatches. The sum is smallest
    at ε ∝ K^(-1/5) or K^(-1/3), and v* goes with ε⁶ or ε⁴: with the power -1.2 or -4/3 of K.
    """
    return min(1e-4 * (60_000 / (num_steps or 60_000)) ** 1.2, 1e-2)


def first_step_size(learning_rate, tuner):
    """The checked `learning_rate` of `kl.SMILE`, from which a tuner begins."""
    is_automatic = isinstance(learning_rate, str) and learning_rate == "auto"
    is_schedule = isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule)
    if is_automatic and tuner is not None:
        return 1e-3
    if isinstance(learning_rate, str) or (tuner is not None and is_schedule):
        raise ValueError(
            "`learning_rate` must be a number, the distance that the weights move in one step "
            '(with a tuner, in the first, which "auto" chooses). A schedule needs tuner=None. '
            f"Received: learning_rate={learning_rate!r}, tuner={shorten(tuner)}"
        )
    return learning_rate
