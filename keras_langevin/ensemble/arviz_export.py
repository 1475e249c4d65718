"""Draws of an ensemble in ArviZ' format, InferenceData or DataTree."""

import importlib.metadata
import re
import warnings

import numpy as np

from keras_langevin.ensemble.options import checked_patterns


def to_arviz(ensemble, x, y, weights, batch_size):
    """See `BayesianEnsembleModel.to_arviz`."""
    weights = checked_patterns("weights", weights)
    convert = _converter()
    draws = _Draws(ensemble.chains)
    posterior = {
        name.replace("/", "."): draws.by_chain(stack)
        for name, stack in ensemble.weights_by_name().items()
        if any(re.search(pattern, name) for pattern in weights)
    }
    if weights and not posterior:
        raise ValueError(
            "`weights` must be patterns that are found in the names of weights. Received: "
            f"weights={list(weights)!r}, for {', '.join(ensemble.weights_by_name())}."
        )
    of_weights = set(posterior)
    groups = {"posterior": posterior}
    if x is not None:
        members = ensemble.heads.flat(ensemble.predict_members(x, batch_size, verbose=0))
        names = ensemble.heads.names
        posterior.update(_named("prediction", names, members, draws))
    if y is not None:
        found = ensemble.heads.flat(ensemble.log_likelihood(x, y, batch_size, verbose=0))
        labels = ensemble.heads.by_output(y)
        groups["log_likelihood"] = _named("y", names, found, draws)
        groups["observed_data"] = _labels(names, labels)
        drawn = _drawn_labels(ensemble.heads, members, labels)
        if drawn is not None:
            groups["posterior_predictive"] = _named("y", names, drawn, draws)
    if not posterior:
        raise ValueError(
            "There must be something to convert. Received: x=None, weights=(). Pass `x` for the "
            'members\' predictions, or `weights=["dense/kernel"]`.'
        )
    quantities = {name for group in groups.values() for name in group} - of_weights
    return convert(groups, {name: ["example"] for name in quantities})


def _drawn_labels(heads, members, labels):
    """What each member would have seen in the place of the labels, in their form; None where a
    likelihood cannot draw."""
    generator = np.random.default_rng(0)
    if not all(family.has_likelihood and family.can_sample for family in heads):
        return None
    return [
        _like_labels(family, np.asarray(family.sample(of_members, generator)), np.asarray(y))
        for family, of_members, y in zip(heads, members, labels, strict=True)
    ]


def _like_labels(family, drawn, y):
    """One-hot draws as numbers where the labels are numbers."""
    if drawn[0].size != y.size:
        drawn = np.argmax(drawn, axis=family.options.get("axis", -1))
    return drawn.reshape(len(drawn), *y.shape)


class _Draws:
    """Which member is which draw of which chain, as a rectangle."""

    def __init__(self, chains):
        places = [np.flatnonzero(chains == chain) for chain in np.unique(chains)]
        length = min(map(len, places))
        if any(len(place) > length for place in places):
            warnings.warn(
                f"ArviZ needs chains of one length: of those with more than {length} draws the "
                "last ones are left out.",
                stacklevel=5,
            )
        self.places = np.stack([place[:length] for place in places])

    def by_chain(self, members):
        """`(members, ...)` to `(chains, draws, ...)`."""
        return np.asarray(members)[self.places]


def _named(name, outputs, arrays, draws):
    """One variable for each output, and for each part of what a member says about it."""
    several = len(outputs) > 1
    found = {}
    for output, array in zip(outputs, arrays, strict=True):
        own = f"{name}_{output}" if several else name
        parts = array.items() if isinstance(array, dict) else [(None, array)]
        for part, values in parts:
            found[own if part is None else f"{own}_{part}"] = draws.by_chain(values)
    return found


def _labels(outputs, labels):
    names = [f"y_{output}" for output in outputs] if len(outputs) > 1 else ["y"]
    return {name: np.asarray(one) for name, one in zip(names, labels, strict=True)}


def _converter():
    """From a dict of groups, and the dimensions of their quantities, to what the installed ArviZ
    works with."""
    try:
        version = importlib.metadata.version("arviz")
        is_first = int(version.split(".")[0]) == 0
    except importlib.metadata.PackageNotFoundError:
        is_first = False  # `arviz-base` alone is enough
    try:
        if is_first:
            import arviz

            return lambda groups, dims: arviz.from_dict(**groups, dims=dims)
        import arviz_base

        return lambda groups, dims: arviz_base.from_dict(groups, dims=dims)
    except ImportError as error:
        raise ImportError(
            '`to_arviz` needs ArviZ: `pip install "keras_langevin[arviz]"`.'
        ) from error
