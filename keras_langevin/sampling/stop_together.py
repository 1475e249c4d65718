"""What the samples of chains that run in step are worth, and whether it is enough."""

import dataclasses
import math
import warnings

import numpy as np

from keras_langevin.diagnostics.convergence import effective_sample_size, r_hat
from keras_langevin.sampling.held_out_scores import HeldOutScores
from keras_langevin.sampling.stopping_rule import (
    FEWEST_EXAMPLES,
    FEWEST_SAMPLES,
    LARGEST,
    StoppingRule,
)

FEWEST_DRAWS = 4  # for R-hat
MEASURED_AGAIN = 1.05  # growth of the samples between measurements, of tens of milliseconds


@dataclasses.dataclass(frozen=True)
class Found:
    """What the samples are worth at the end of an epoch. NaN where there are too few."""

    num_samples: int
    num_chains: int
    r_hat: float
    effective_samples: float
    gain_left: float
    is_enough: bool


NOTHING = Found(0, 1, math.nan, math.nan, math.nan, False)


class StopTogether:
    """Lets the chains of `kl.sample_chains(..., vectorized=True)` decide together.

    Made outside of `train_fn` and passed to the `kl.StopWhenEnough` of every chain. R-hat is then
    between the chains too, effective samples are those of all, the ensemble whose gain is tested is
    that of all, and all stop in the same epoch. All must have the same burn-in and thinning: what
    some chains have not sampled yet is left out. Chains that run one after another, or in other
    processes, decide by themselves: only those take part that are in the same epoch, or one apart.

    The arguments that count are those of the chain that looks first; give all the same.

    Example:

    ```python
    x, y = np.random.normal(size=(300, 3)), np.random.normal(size=(300, 1))
    together = kl.StopTogether()

    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(kl.SGLD(1e-2, num_data=200), kl.losses.GaussianNLL(stddev=1.0))
        sampler = kl.PosteriorSampler(burn_in=10)
        enough = kl.StopWhenEnough(sampler, (x[200:], y[200:]), together=together)
        model.fit(x[:200], y[:200], epochs=60, callbacks=[sampler, enough], verbose=0)
        return sampler

    ensemble = kl.sample_chains(train_fn, 4, vectorized=keras.backend.backend() == "jax")
    ```
    """

    def __init__(self):
        self._held_out = []  # of each model a pair with its `HeldOutScores`
        self._forget()

    def _forget(self):
        self._epochs = {}  # of the callbacks that run, the last that each has ended, or None
        self._rule = None
        self._found = None, (), NOTHING  # an epoch, the chains that took part, what they `Found`
        self._age = 0.0  # of the last measurement

    def begin(self, callback):
        """A `fit` begins with the callback. Those in step with it have not ended an epoch either;
        who has, is left from a `fit` that failed."""
        if any(last is not None for last in self._epochs.values()):
            self._forget()
        if not self._epochs:
            self._forget()
            self._held_out = []
        self._epochs[callback] = None

    def end(self, callback):
        """The `fit` has ended."""
        self._epochs.pop(callback, None)

    def held_out(self, callback):
        """The `HeldOutScores` of the callback's model; of one model all chains have the same."""
        for model, scores in self._held_out:
            if model is callback.model:
                return scores
        scores = HeldOutScores(callback.model, callback.batches, callback.num_examples)
        _check_number(scores.num_examples)
        self._held_out.append((callback.model, scores))
        return scores

    def look(self, callback, epoch):
        """What the chains that run with the callback's have `Found` in this epoch."""
        is_first = self._epochs.get(callback) is None
        self._epochs[callback] = epoch
        if self._found[0] != epoch or callback not in self._found[1]:
            chains = [
                chain
                for chain, last in self._epochs.items()
                if (is_first if last is None else abs(last - epoch) <= 1)
            ]
            self._found = epoch, chains, self._measured(callback, chains)
        return self._found[2]

    def _measured(self, callback, chains):
        """`Found` as it was before, until there are 5 % more samples."""
        common = set.intersection(*(set(chain.scores) for chain in chains))
        if len(common) < FEWEST_DRAWS:
            return NOTHING
        age = callback.age(max(common))
        if age < MEASURED_AGAIN * self._age:
            return self._found[2]
        self._age = age
        return self._measure(callback, chains, sorted(common))

    def _measure(self, callback, chains, positions):
        length = len(positions)
        scores = [[chain.scores[position] for position in positions] for chain in chains]
        draws = [np.stack([s.predictions for s in chain]) for chain in scores]
        of_chains = _effective_samples(draws)
        found = dataclasses.replace(
            NOTHING,
            num_samples=length * len(scores),
            num_chains=len(scores),
            r_hat=float(_over_predictions(np.nanmedian, r_hat(draws))),
            effective_samples=float(np.sum(of_chains)),
        )
        if length < FEWEST_SAMPLES:
            return found
        held_out = self.held_out(callback)
        _check_likelihood(held_out.weights)
        gains = held_out.gains_left(scores, of_chains)
        found = dataclasses.replace(found, gain_left=float(np.mean(gains)))
        if self._rule is None:
            largest = LARGEST * sum(held_out.weights)
            self._rule = StoppingRule(callback.min_gain, callback.alpha, largest)
        has_settled = callback.max_r_hat is None or found.r_hat <= callback.max_r_hat
        is_enough = (
            has_settled
            and found.effective_samples >= callback.min_effective_samples
            and self._rule.says_enough(self._age, gains)
        )
        return dataclasses.replace(found, is_enough=is_enough)


def _effective_samples(draws):
    """Of each chain by itself, the median over predictions, shape `(chains,)`."""
    sizes = effective_sample_size(np.concatenate(draws, axis=1), kind="bulk")
    return _over_predictions(np.nanmedian, sizes.reshape(len(draws), -1), axis=1)


def _over_predictions(function, values, **kwargs):
    """A prediction that never changes, of NaN, says nothing; where all are so, it is NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return function(values, **kwargs)


def _check_number(count):
    if count < FEWEST_EXAMPLES:
        raise ValueError(
            f"`StopWhenEnough` must have at least {FEWEST_EXAMPLES} validation examples, since "
            f"fewer say nothing of a gain. Received: {count} examples. Hold more out, or watch "
            "`val_ensemble_loss` of `kl.EnsembleValidation`."
        )


def _check_likelihood(weights):
    if not weights:
        raise ValueError(
            "`StopWhenEnough` must have a loss whose likelihood is known, to know what samples "
            "gain. Received: outputs without one. See `kl.predictive.register_family`."
        )
