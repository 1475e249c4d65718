"""Minibatches that are independent of each other."""

import math

import keras
import numpy as np

from keras_langevin.arguments import integer, seed_number
from keras_langevin.training_data import num_examples, rows, training_data


class RandomBatches(keras.utils.PyDataset):
    """Training data for `fit`, every batch drawn anew from all of them, without replacement.

    Keras shuffles the data and goes through them, so that the batches of one epoch balance each
    other out: their noise adds up to zero. A sampler whose noise is that of the minibatches
    (`kl.NGD`, `kl.SNGD`) needs batches that know nothing of each other. No batch is shorter than
    the others.

    Args:
        x, y, sample_weight: Arrays or nested arrays, first axis N; y and sample_weight may be
            None.
        batch_size: B, 1 to N.
        batches_per_epoch: How many batches `fit` counts as an epoch; N/B rounded up by default.
        seed: Integer, 0 to 2^64 − 1. Batch i of epoch e is a function of (seed, e, i).

    Raises:
        ValueError: If the arrays are not of the same examples, at least one, or a number is not
            what is said above.

    Example:

    >>> model.compile(optimizer=kl.SGLD(0.01, num_data=len(x)), loss=loss)
    >>> sampler = kl.PosteriorSampler(burn_in=5)
    >>> model.fit(kl.RandomBatches(x, y, batch_size=64), epochs=20, callbacks=[sampler])
    """

    def __init__(
        self, x, y=None, batch_size=32, sample_weight=None, batches_per_epoch=None, seed=0
    ):
        super().__init__()
        self.data = training_data(x, y, sample_weight)
        self.num_data = num_examples(self.data)
        self.batch_size = integer("batch_size", batch_size, 1, self.num_data + 1)
        if batches_per_epoch is None:
            batches_per_epoch = math.ceil(self.num_data / self.batch_size)
        self.batches_per_epoch = integer("batches_per_epoch", batches_per_epoch, at_least=1)
        self.seed = seed_number("seed", seed)
        self.epoch = 0

    def __len__(self):
        return self.batches_per_epoch

    def __getitem__(self, index):
        generator = np.random.default_rng((self.seed, self.epoch, index))
        numbers = generator.choice(self.num_data, self.batch_size, replace=False)
        return tuple(part for part in self._rows(numbers) if part is not None)

    def examples(self, count):
        """`(x, y)` of up to `count` different examples."""
        order = np.random.default_rng(self.seed).permutation(self.num_data)
        return self._rows(order[:count])[:2]

    def _rows(self, numbers):
        return rows(self.data, numbers)

    def on_epoch_end(self):
        self.epoch += 1

    def set_epoch(self, epoch):
        """Goes on at that epoch, counted from 0; a `kl.PosteriorSampler` says which."""
        self.epoch = integer("epoch", epoch)


def epoch_balance(learning_rate, batches_per_epoch) -> float:
    """The variance, over that of independent batches, of a natural gradient chain read at ends of
    epochs whose batches make up a shuffled data set.

    For θ ← (1 − η) θ − η β_t with the n values β_t of an epoch of variance c and covariance
    −c/(n − 1), as of a sum that is zero.
    """
    decay, n = 1.0 - learning_rate, batches_per_epoch
    if n == 1:
        return 1.0
    powers = decay ** np.arange(n)
    squares = np.sum(powers**2)
    balanced = squares - (np.sum(powers) ** 2 - squares) / (n - 1)
    return float(balanced / (1 - decay ** (2 * n)) * (1 - decay**2))
