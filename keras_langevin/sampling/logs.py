"""What a run says of its sampler: numbers for the logs of `fit`, and a warning at its start."""

import math
import warnings

import numpy as np
from keras import ops

from keras_langevin.diagnostics.temperatures import stated_kinetic_temperature
from keras_langevin.keras_internals import batch_size_of_fit, inner_optimizer
from keras_langevin.learning_rate.limits import NOISE_WARNING
from keras_langevin.optimizers.drift_clip import HARMLESS
from keras_langevin.optimizers.snapshots import as_sampler
from keras_langevin.sampling.phases import phases

# Largest values that a progress bar need not show.
NORMAL = {
    "learning_rate": math.inf,
    "temperature": math.inf,
    "noise_scale": math.inf,
    "kinetic_temperature_low": math.inf,
    "kinetic_temperature_high": math.inf,
    "nonfinite_steps": 0,
    "drift_clipped": HARMLESS,
    "minibatch_noise": NOISE_WARNING,
}


class SamplerLogs:
    """Asks the optimizer of a running `fit` for what it can state. What is not known is left out.

    Args:
        callback: The `kl.PosteriorSampler`, through whose `model` everything is read: on JAX that
            fetches the values of the moment.
    """

    def __init__(self, callback):
        self.callback = callback
        self.batch_size = batch_size_of_fit(callback.model)  # None where nobody knows
        steps, num_data = callback.params.get("steps"), self._sampler().num_data
        if self.batch_size is None and steps and num_data:
            self.batch_size = num_data / steps  # on average
        self._normal = set()

    def _sampler(self):
        return as_sampler(self.callback.model.optimizer)

    def quantities(self):
        """For the logs, by name."""
        sampler = self._sampler()
        found = {
            "num_samples": len(self.callback.samples),
            "learning_rate": inner_optimizer(self.callback.model.optimizer).learning_rate,
            "temperature": sampler.temperature,
            "minibatch_noise": self.minibatch_noise(),
            **_kinetic_temperature(sampler),
            **sampler.sampler_logs(),
        }
        found = {name: _number(value) for name, value in found.items() if value is not None}
        self._normal = {name for name in found if _is_normal(name, found)}
        return found

    def is_normal(self, name, value=None):
        """Whether an entry of the logs is one of these, and a reader of each epoch need not see
        it."""
        return name in self._normal

    def minibatch_noise(self):
        """Minibatch noise over injected noise, None where it is not known."""
        if self.batch_size is None:
            return None
        return self._sampler().minibatch_noise(self.batch_size)

    def warn_about_minibatch_noise(self):
        """Before hours are spent on samples that spread wider than the posterior."""
        ratio, optimizer = self.minibatch_noise(), inner_optimizer(self.callback.model.optimizer)
        if ratio is None or ratio <= NOISE_WARNING or phases(optimizer):
            return  # the last: no sample is drawn at the rate that a cycle begins with
        warnings.warn(
            f"Minibatches of about {self.batch_size:.0f} examples add {ratio:.1f} times the noise "
            f"that temperature {self._sampler().temperature:g} asks for: the samples will spread "
            "wider than that posterior. For samples that are as wide as they say, divide the "
            f"learning rate by {ratio:.1f} or more, or enlarge the batches.",
            stacklevel=3,
        )


def _kinetic_temperature(sampler):
    found = stated_kinetic_temperature(sampler) if sampler.temperature else None
    if found is None:
        return {}
    return {
        "kinetic_temperature": found.value,
        "kinetic_temperature_low": found.low,
        "kinetic_temperature_high": found.high,
    }


def _is_normal(name, found):
    if name == "kinetic_temperature":
        return found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    return name in NORMAL and found[name] <= NORMAL[name]


def _number(value):
    return float(np.asarray(ops.convert_to_numpy(value)))
