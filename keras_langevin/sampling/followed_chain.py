"""Which chain a sampler follows: whether a `fit` goes on where the last one ended."""

import hashlib

import keras
from keras import ops

from keras_langevin.optimizers.snapshots import as_sampler
from keras_langevin.weights import parameters


class FollowedChain:
    """The model of the last `fit` of a sampler, and where its weights were at the end."""

    def __init__(self):
        self.model = self.num_data = None
        self.end_of_fit = None  # None while one runs, and after one that was interrupted
        self.is_running = False

    def leave(self):
        """At the begin of a `fit`, which may run no epoch."""
        self.is_running = False

    def go_on(self, sampler, seen):
        """At the begin of an epoch.

        Args:
            sampler: The `kl.PosteriorSampler`, which has the model of this `fit`; it is given the
                earlier one back, whose its samples are, where this is refused.
            seen: How much it has seen of the chain, in words; None for nothing.

        Raises:
            ValueError: If this `fit` would not go on with the chain.
        """
        if self.is_running:
            return
        model, num_data = sampler.model, as_sampler(sampler.model.optimizer).num_data
        try:
            if seen is not None and self.model is not None:
                self._check(model, num_data, seen)
        except ValueError:
            keras.callbacks.Callback.set_model(sampler, self.model)
            raise
        self.model, self.num_data, self.end_of_fit = model, num_data, None
        self.is_running = True

    def end(self):
        """At the end of a `fit`."""
        if self.is_running:
            self.end_of_fit = _fingerprint(self.model)
        self.is_running = False

    def _check(self, model, num_data, seen):
        if not self._goes_on_with(model):
            raise ValueError(
                "A `kl.PosteriorSampler` must follow one chain: one model, whose weights begin "
                f"where its last `fit` ended. Received: model '{model.name}', after {seen}, with "
                f"{'other' if model is not self.model else 'its'} weights set anew. Make a new "
                "`kl.PosteriorSampler` for each model, each fold of the data and each new start; "
                "`kl.sample_chains` joins chains of one posterior."
            )
        if num_data != self.num_data:
            raise ValueError(
                "A `kl.PosteriorSampler` must follow one chain, of one posterior. Received: "
                f"num_data={num_data}, after {seen} with num_data={self.num_data}. Make a new "
                "`kl.PosteriorSampler` for other data."
            )

    def _goes_on_with(self, model):
        if self.end_of_fit is not None:
            return _fingerprint(model) == self.end_of_fit
        return [id(v) for v in parameters(model)] == [id(v) for v in parameters(self.model)]


def _fingerprint(model):
    digest = hashlib.blake2b()
    for variable in parameters(model):
        digest.update(ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()
