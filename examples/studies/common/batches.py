"""Minibatches without end."""

import keras
import numpy as np


def shuffled_batches(x, y, batch_size, seed):
    """One shuffled pass over the rows of nested arrays after the other, and none is left out."""
    generator = np.random.default_rng(seed)
    rows = np.empty(0, int)
    while True:
        while len(rows) < batch_size:
            rows = np.concatenate([rows, generator.permutation(len(y))])
        now, rows = rows[:batch_size], rows[batch_size:]
        yield keras.tree.map_structure(lambda a, now=now: a[now], (x, y))
