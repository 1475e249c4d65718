"""Checks of the arguments of an ensemble that can be made before there is a sample."""

import numpy as np
from keras import tree

from keras_langevin.arguments import (
    array,
    boolean,
    instance,
    integer,
    path,
    real_array,
    shorten,
    text,
    verbosity,
)
from keras_langevin.keras_arguments import built_model, float_dtype, keras_name
from keras_langevin.predictive import checked_meaning

QUANTILES = (0.05, 0.5, 0.95)


def checked_options(output=None, noise_stddev=None, member_batch_size=None, **kwargs):
    """`kwargs`, for `keras.Model`, of those `BayesianEnsembleModel` takes beside model, samples
    and chains."""
    checked_meaning(output, noise_stddev)
    if member_batch_size is not None:
        integer("member_batch_size", member_batch_size, at_least=1)
    for name, value in kwargs.items():
        if name not in _KERAS_ARGUMENTS:
            raise TypeError(
                f"BayesianEnsembleModel got an unexpected keyword argument '{name}'. Received: "
                f"{name}={shorten(value)}. Keras' own are {', '.join(_KERAS_ARGUMENTS)}."
            )
    return {name: _KERAS_ARGUMENTS[name](name, value) for name, value in kwargs.items()}


def checked_chains(chains, num_members):
    found = array("chains", chains)
    if found.shape != (num_members,) or found.dtype.kind not in "iu" or found.min() < 0:
        raise ValueError(
            f"`chains` must be one integer >= 0 for each of the {num_members} samples. "
            f"Received: chains={shorten(chains)}."
        )
    return found


def checked_quantiles(quantiles):
    found = np.atleast_1d(real_array("quantiles", quantiles))
    if found.ndim > 1 or not np.all((found > 0) & (found < 1)):
        raise ValueError(
            "`quantiles` must be numbers between 0 and 1. Received: quantiles="
            f"{shorten(quantiles)}."
        )
    return tuple(found.tolist())


def checked_members(members, num_members):
    """A structure of arrays of shape `(members, ...)`."""
    found = tree.map_structure(lambda leaf: array("members", leaf), members)
    lengths = {leaf.shape[:1] for leaf in tree.flatten(found)}
    if lengths != {(num_members,)}:
        raise ValueError(
            f"`members` must be arrays of shape ({num_members}, ...), one entry for each member. "
            f"Received: members={shorten(members)}. Pass what `predict_members` returns."
        )
    return found


def checked_patterns(name, patterns):
    """Strings for `re.search`."""
    instance(name, patterns, (list, tuple), "a list of patterns")
    return [text(name, pattern) for pattern in patterns]


def check_report_arguments(training_data, batch_size, model, html, verbose):
    is_pair = isinstance(training_data, (tuple, list)) and len(training_data) == 2
    if training_data is not None and not is_pair:
        raise ValueError(
            "`training_data` must be a pair `(x, y)`, or None. Received: training_data="
            f"{shorten(training_data)}"
        )
    if batch_size is not None:
        integer("batch_size", batch_size, at_least=1)
    if model is not None:
        built_model("model", model)
    if html is not None:
        path("html", html)
    verbosity("verbose", verbose)


_KERAS_ARGUMENTS = {"name": keras_name, "trainable": boolean, "dtype": float_dtype}
