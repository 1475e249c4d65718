"""Checks of labels."""

import numpy as np


def check_whole_labels(y):
    """The average of logarithms weighted by shares is not the logarithm of an average."""
    if not np.array_equal(y, np.round(y)):
        raise ValueError(
            "Labels must be classes, as numbers or one-hot. Received: shares of several "
            "classes. Validate on the labels as they were given."
        )
