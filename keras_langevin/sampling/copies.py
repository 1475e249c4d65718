"""Copies of a sampler: each follows a model of its own, so it starts empty."""

import copy

import keras

TUNER = (
    "For KerasTuner, which copies the callbacks of `search` for each trial, make the sampler "
    "inside `HyperModel.fit`, or sample with the best model after the search."
)


def empty_copy(sampler, memo):
    """A deep copy of a `kl.PosteriorSampler` as it was before any `fit`."""
    directory = sampler.samples.directory
    if directory is not None:
        raise ValueError(
            "A `kl.PosteriorSampler` with a `directory` must be the only one that writes into it, "
            f"so it has no deep copies. Received: directory={str(directory)!r}. {TUNER}"
        )
    copied = type(sampler).__new__(type(sampler))
    memo[id(sampler)] = copied
    keras.callbacks.Callback.__init__(copied)
    copied._given = sampler._given
    copied._start()
    own = {name: value for name, value in vars(sampler).items() if name not in vars(copied)}
    vars(copied).update(copy.deepcopy(own, memo))
    return copied
