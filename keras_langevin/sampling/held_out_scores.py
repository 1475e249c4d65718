"""What samples say of held-out examples, each sample evaluated once."""

import dataclasses
import itertools

import keras
import numpy as np

from keras_langevin.ensemble.member_scores import MemberScores
from keras_langevin.sampling.stopping_rule import gain_left
from keras_langevin.training_data import joined, num_examples, rows

PREDICTIONS = 100  # numbers whose R-hat and effective samples are looked at


@dataclasses.dataclass(frozen=True)
class SampleScores:
    """Of one sample.

    Attributes:
        predictions: Shape `(numbers,)`, up to 100: probabilities or means, from the first examples.
        log_densities: A list with an entry for each batch, lists of an array `(batch, ...)` for
            each output that has a likelihood.
    """

    predictions: np.ndarray
    log_densities: list


class HeldOutScores:
    """Evaluates samples on some examples, which it keeps.

    Args:
        model: Whose weights the samples are.
        read: Function that gives an iterator over batches `(x, y, sample_weight)`, from the first.
        most: How many examples to keep at most, chosen at random.

    Attributes:
        num_examples: How many there are.
        weights: The factor of each output that has a likelihood.
    """

    def __init__(self, model, read, most):
        self._scores = MemberScores(model)
        self._batches = _some_examples(read, most)
        self._counted = None
        self.num_examples = sum(map(num_examples, self._batches))
        self.weights = []

    def evaluate(self, weights):
        """The `SampleScores` of a mapping from weight name to array."""
        self._scores.become(weights)
        found = [self._scores.scores(x, y) for x, y, _ in self._batches]
        if self._counted is None:
            heads = self._scores.member.heads
            pairs = zip(heads, heads.loss_weights, strict=True)
            self.weights = [weight for family, weight in pairs if family.has_likelihood]
            self._counted = [[s.get("counted") for s in _with_likelihood(b)] for b in found]
        densities = [[s["log_density"] for s in _with_likelihood(batch)] for batch in found]
        return SampleScores(_some_numbers(found), densities)

    def gains_left(self, chains, effective_samples):
        """`gain_left` of each example: over its labels that count the mean, over outputs the sum.

        Args:
            chains: For each chain a list of `SampleScores`, equally many.
            effective_samples: Of each chain.

        Returns:
            Shape `(examples,)`, without those of which no label counts.
        """
        return np.concatenate(
            [self._gains_of_batch(chains, effective_samples, b) for b in range(len(self._batches))]
        )

    def _gains_of_batch(self, chains, effective_samples, batch):
        total, is_counted = 0.0, False
        pairs = zip(self.weights, self._counted[batch], strict=True)
        for output, (weight, mask) in enumerate(pairs):
            densities = [[s.log_densities[batch][output] for s in chain] for chain in chains]
            gains = gain_left(np.asarray(densities, "float64"), effective_samples)
            mask = np.ones(gains.shape) if mask is None else _as_wide(mask, gains)
            axes = tuple(range(1, gains.ndim))
            count = np.sum(mask, axis=axes)
            total = total + weight * np.sum(gains * mask, axis=axes) / np.maximum(count, 1.0)
            is_counted = is_counted | (count > 0)
        return total[is_counted]


def _with_likelihood(scores):
    return [score for score in scores if "log_density" in score]


def _as_wide(mask, like):
    mask = np.asarray(mask, "float64")
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim)), like.shape)


def _some_examples(read, most):
    """Up to `most` of them, chosen at random, in batches as large as their shapes permit; of what
    NumPy does not hold, whole batches until there are so many."""
    sizes, are_arrays = [], True
    for batch in read():
        sizes.append(num_examples(batch))
        are_arrays = are_arrays and _is_numpy(batch)
    parts = []
    for batch, chosen in zip(read(), _chosen(sizes, most, are_arrays), strict=True):
        if chosen.all():
            parts.append(batch)
        elif chosen.any():
            parts.append(rows(batch, np.flatnonzero(chosen)))
    if not are_arrays:
        return parts
    groups = (list(group) for _, group in itertools.groupby(parts, _shapes))
    return [tuple(map(joined, zip(*group, strict=True))) for group in groups]


def _chosen(sizes, most, are_arrays):
    """For each batch booleans, one an example."""
    generator, count = np.random.default_rng(0), 0
    found = [np.zeros(size, bool) for size in sizes]
    if are_arrays:
        flat = np.zeros(sum(sizes), bool)
        flat[generator.permutation(len(flat))[:most]] = True
        return np.split(flat, np.cumsum(sizes)[:-1])
    for index in generator.permutation(len(sizes)):
        found[index][:] = count < most
        count += sizes[index]
    return found


def _is_numpy(batch):
    return all(a is None or isinstance(a, np.ndarray) for a in keras.tree.flatten(batch))


def _shapes(batch):
    return [a if a is None else a.shape[1:] for a in keras.tree.flatten(batch)]


def _some_numbers(found):
    """Of the predictions, the same numbers every time, from as many examples as there are."""
    rows = [np.reshape(s["mean"], (len(s["mean"]), -1)) for batch in found for s in batch]
    flat = np.concatenate([np.ravel(r[:PREDICTIONS]) for r in rows]).astype("float64")
    chosen = np.linspace(0, len(flat) - 1, min(len(flat), PREDICTIONS)).astype(int)
    return flat[chosen]
