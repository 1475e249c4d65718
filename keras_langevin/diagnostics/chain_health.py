"""Has the chain moved, and do its members differ? In plain words, from predictions."""

import dataclasses

import numpy as np

from keras_langevin.diagnostics.convergence import effective_sample_size, r_hat, stacked

FEW_DRAWS = 20  # with fewer in a chain nothing is said of how it moves
WORTH = 4.0  # a chain that is worth fewer independent draws has not moved
DRIFT = 0.5  # share of the variance in a straight line from which on a chain drifts
DISAGREEMENT = 1.2  # median of R-hat from which on chains disagree
POINT = 1e-3  # spread below which members say the same


@dataclasses.dataclass(frozen=True)
class ChainHealth:
    """What `chain_health` measures. "Median" is that over the predictions.

    Attributes:
        num_chains, num_draws: Draws are those of one chain.
        r_hat, r_hat_max: Median and largest R-hat, rank-normalized; of one chain that of its
            halves. NaN where nothing changes.
        effective_sample_size, effective_sample_size_min: Median and smallest, over all chains.
        worth: For each chain, how many independent draws its draws are worth: the median of
            n(1−ρ)/(1+ρ), ρ the correlation of a draw with the next.
        drift: For each chain, the median share of the variance that a straight line explains.
        spread: Mean standard deviation of a prediction, over the range of all predictions.
    """

    num_chains: int
    num_draws: int
    r_hat: float
    r_hat_max: float
    effective_sample_size: float
    effective_sample_size_min: float
    worth: tuple[float, ...]
    drift: tuple[float, ...]
    spread: float

    @property
    def is_point(self) -> bool:
        """Whether all members say practically the same."""
        return self.spread < POINT

    @property
    def has_moved(self) -> bool:
        """Whether every chain has, as far as its number of draws tells."""
        return not self._unmoved and not self._drifting

    @property
    def findings(self) -> list[str]:
        """What is wrong and what to do about it; empty when nothing is."""
        words = [self._in_words_unmoved(chain) for chain in self._unmoved]
        words += [self._in_words_drifting(chain) for chain in self._drifting]
        if self.num_draws < FEW_DRAWS:
            words.append(
                f"A chain of {self.num_draws} draws is too short to tell whether it moves: store "
                f"at least {FEW_DRAWS}. Lower `thinning` or train longer."
            )
        elif self.num_chains > 1 and self.r_hat > DISAGREEMENT:
            words.append(
                f"The chains disagree: R-hat is {self.r_hat:.2f}, and 1.00 when they sample the "
                "same posterior. Train longer, with a longer `burn_in`; if it stays, each has "
                "found predictions of its own, and more chains show more of them."
            )
        if self.is_point:
            words.append(
                f"The posterior is a point: members differ by {self.spread:.1g} of the range of "
                "their predictions, so that the ensemble says what one member says. Either the "
                "data leave no doubt, or the chain does not move: look at `temperature`, "
                "`num_data` and `learning_rate`."
            )
        return words

    @property
    def _unmoved(self):
        return [i for i, worth in enumerate(self.worth) if self._is_long and worth < WORTH]

    @property
    def _drifting(self):
        moved = (i for i in range(self.num_chains) if i not in self._unmoved)
        return [i for i in moved if self._is_long and self.drift[i] > DRIFT]

    @property
    def _is_long(self):
        return self.num_draws >= FEW_DRAWS

    def _in_words_unmoved(self, chain):
        way = "each is nearly a copy of the one before"
        if self.drift[chain] > DRIFT:
            way = "they drift in one direction"
        return (
            f"Chain {chain} has not moved: its {self.num_draws} draws are worth "
            f"{self.worth[chain]:.1f} independent ones, {way}. Raise `learning_rate`, or train "
            "longer with a larger `thinning` and `burn_in`."
        )

    def _in_words_drifting(self, chain):
        return (
            f"Chain {chain} is still on its way from where it started: a straight line explains "
            f"{self.drift[chain]:.0%} of how its predictions vary. Lengthen `burn_in`."
        )


def chain_health(draws) -> ChainHealth:
    """Whether chains have moved, agree, and spread, from predictions on a probe batch.

    It looks at what the network says, not at its weights, whose symmetries mean nothing. That the
    samples spread too widely, by too large a learning rate or the noise of minibatches, it does
    not see: that is for `kl.diagnostics.configurational_temperature`.

    The limits come from networks of 16 hidden units, regression and classification, with 50 draws
    in each of two chains. At a right learning rate a chain is worth 18 to 32 draws, at 1/30 of it
    3 to 10, at 1/1000 of it 0.7 to 3.3, as a random walk is whatever its length; a straight line
    explains up to 0.22 of the first, up to 0.84 of the last. R-hat, 1.02 to 1.22 in its median at
    a right learning rate, 1.26 and more in the others, falls to 1 with the number of draws: chains
    that agree pass 1.2 by chance where they are worth about 5 draws, 42 times in 100, where they
    are worth 10, hardly ever.

    Args:
        draws: Predictions, shape `(draws, examples, ...)` of one chain, or a list of such arrays,
            one a chain, as `ensemble.split_chains(ensemble.predict_members(x_probe))` gives. A
            hundred examples are plenty; probabilities or means rather than classes.

    Raises:
        ValueError: If there are fewer than 4 draws, no examples, or NaN or infinity.

    Example:

    >>> members = ensemble.predict_members(x_test[:100])
    >>> print(*kl.diagnostics.chain_health(ensemble.split_chains(members)).findings, sep="\\n")
    """
    chains = stacked(draws)
    if chains.ndim < 3 or not chains.size:
        raise ValueError(
            "`draws` must be predictions of shape (draws, examples, ...). Received: shape "
            f"{(len(chains), *chains.shape[2:])}. Pass `ensemble.predict_members(x_probe)`."
        )
    chains = chains.reshape(*chains.shape[:2], -1)
    sizes = effective_sample_size([chains[:, i] for i in range(chains.shape[1])])
    reductions = r_hat([chains[:, i] for i in range(chains.shape[1])])
    return ChainHealth(
        num_chains=chains.shape[1],
        num_draws=len(chains),
        r_hat=_over_predictions(np.median, reductions),
        r_hat_max=_over_predictions(np.max, reductions),
        effective_sample_size=_over_predictions(np.median, sizes),
        effective_sample_size_min=_over_predictions(np.min, sizes),
        worth=tuple(_worth(chains[:, i]) for i in range(chains.shape[1])),
        drift=tuple(_drift(chains[:, i]) for i in range(chains.shape[1])),
        spread=_spread(chains),
    )


def _over_predictions(function, values, otherwise=np.nan):
    """Of those that change."""
    values = values[~np.isnan(values)]
    return float(function(values)) if len(values) else otherwise


def _changing(chain):
    """Predictions of one chain as offsets from their mean, without those that never change."""
    chain = chain[:, np.any(chain != chain[0], axis=0)]
    return chain - chain.mean(axis=0)


def _worth(chain):
    """n(1−ρ)/(1+ρ), what n draws of an autoregressive chain are worth; 1 where none differs."""
    offsets = _changing(chain)
    steps = np.sum(np.square(np.diff(offsets, axis=0)), axis=0)
    distance = np.minimum(steps / (2 * np.sum(np.square(offsets), axis=0)), 1.0)  # 1 − ρ
    return _over_predictions(np.median, len(chain) * distance / (2 - distance), otherwise=1.0)


def _drift(chain):
    offsets = _changing(chain)
    line = np.linspace(-1.0, 1.0, len(chain))
    along = np.square(line @ offsets) / np.sum(np.square(line))
    return _over_predictions(np.median, along / np.sum(np.square(offsets), axis=0), otherwise=0.0)


def _spread(chains):
    extent = np.ptp(chains)
    return float(np.mean(np.std(chains, axis=(0, 1))) / extent) if extent else 0.0
