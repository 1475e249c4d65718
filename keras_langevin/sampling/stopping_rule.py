"""Whether more samples would still help: a test over held-out examples, in plain NumPy.

Of an example whose density under the m samples so far is p = mean of p_s, the logarithm misses, of
what ever more samples would give it, −E log p̂/p ≈ ½ Var(p̂)/p² (the delta method). The variance of
the mean is that of a sample over the number of independent ones that the m are worth, so with
r_s = p_s/p it is

    h = ½ mean_s (r_s − 1)² / m_eff,   and ½ where that is more.

Over C chains, Var(p̂) is the mean of their variances of the mean, over C. h falls as 1/m; the next
doubling gains half of it.

The samples were drawn without the held-out labels, so that, given samples and inputs, the h of the
examples are independent. Where their expectations average μ >= g, the wealth of who bets on less,

    W = Π_i (1 + λ (g − h_i)),   0 < λ <= 1/(c − g) for h <= c,

has the expectation Π (1 + λ (g − μ_i)) <= (1 + λ (g − μ))^n <= 1: it is an e-value, and so is its
mean over several λ. By Markov's (in the order of the examples Ville's) inequality W >= L/α has
probability α/L at most. With at most L looks, whatever decides when, the probability of ever
stopping while μ >= g is at most α. For W to reach L/α at all n must be large beside c/g; with few
examples c is therefore less than ½, and an example that misses more counts as c.
"""

import numpy as np

FEWEST_SAMPLES = 16  # of a chain
LARGEST = 0.5  # h of one label
LOOKS = 16  # L
GROWTH = 1.25  # of the samples from one look to the next
EVIDENCE = 15.0  # log W of examples that miss nothing: log(L/α) = 5.8, and as much to spare
FEWEST_EXAMPLES = 30  # so that c >= 2 g
STAKES = np.array([0.25, 0.5, 0.75, 1.0])  # λ, of the largest


def gain_left(log_densities, effective_samples) -> np.ndarray:
    """h, the nats that ever more samples would add to the log predictive density of each label.

    Args:
        log_densities: log p(y | x, θ_s), shape `(chains, samples, ...)`.
        effective_samples: How many independent samples those of each chain are worth, shape
            `(chains,)`.

    Returns:
        Shape `(...)`, from 0 to 0.5; 0.5 where no sample gives the label any density.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.exp(log_densities - _log_mean_exp(log_densities, (0, 1)))
        variances = np.var(ratios, axis=1).T / np.asarray(effective_samples)
    gains = 0.5 * np.mean(variances, axis=-1).T / len(log_densities)
    return np.where(gains < LARGEST, gains, LARGEST)  # NaN too


def log_e_value(gains, min_gain, largest) -> float:
    """log W, the evidence that the gains are less than `min_gain` on average.

    Args:
        gains: Shape `(examples,)`, >= 0. What is above `largest` counts as that.
    """
    if min_gain >= largest:  # nothing can gain as much
        return np.inf
    gains = np.minimum(gains, largest)
    stakes = STAKES / (largest - min_gain)
    with np.errstate(divide="ignore"):
        wealth = np.sum(np.log1p(stakes[:, None] * (min_gain - gains)), axis=1)
    return float(np.logaddexp.reduce(wealth) - np.log(len(stakes)))


class StoppingRule:
    """Decides, at no more than 16 looks, whether the gain that is left is too small to go on.

    Args:
        min_gain: g, nats an example.
        alpha: Largest probability of ever stopping while what is left is `min_gain` or more.
        largest: Of an example; 0.5 for each output.
    """

    def __init__(self, min_gain, alpha, largest=LARGEST):
        self.min_gain, self.alpha, self.largest = min_gain, alpha, largest
        self.num_looks, self._next = 0, FEWEST_SAMPLES

    def says_enough(self, age, gains) -> bool:
        """Whether it is time to look, and then whether it is enough.

        Args:
            age: How long it has sampled, in samples, those that were dropped again too.
            gains: h of at least 30 examples, shape `(examples,)`.
        """
        if age < self._next or self.num_looks == LOOKS:
            return False
        self.num_looks, self._next = self.num_looks + 1, GROWTH * age
        largest = min(self.largest, len(gains) * self.min_gain / EVIDENCE)
        return bool(log_e_value(gains, self.min_gain, largest) >= np.log(LOOKS / self.alpha))


def _log_mean_exp(values, axis):
    largest = np.max(values, axis=axis, keepdims=True)
    found = np.log(np.mean(np.exp(values - largest), axis=axis))
    return found + np.squeeze(largest, axis=axis)
