"""Which temperature: 1 unless held-out data say otherwise."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import keras
import numpy as np

from keras_langevin import arguments
from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.sampling.posterior_sampler import PosteriorSampler

TEMPERATURES = (1.0, 0.3, 0.1, 0.03)


@dataclasses.dataclass(frozen=True)
class TemperatureChoice:
    """What `kl.choose_temperature` found.

    Attributes:
        temperature: The one chosen.
        ensemble: Sampled at it.
        losses: From each temperature to minus the log predictive density of a held-out example,
            in nats.
        standard_errors: From each temperature to the standard error of its loss less the best
            one, over the examples; 0 of the best itself.
    """

    temperature: float
    ensemble: BayesianEnsembleModel
    losses: dict[float, float]
    standard_errors: dict[float, float]

    def __str__(self):
        lines = [
            f"T = {t:<6g} held-out NLL {loss:.4f}{'  chosen' * (t == self.temperature)}"
            for t, loss in self.losses.items()
        ]
        return "\n".join(lines)


def choose_temperature(
    train_fn: Callable, validation_data, temperatures=TEMPERATURES, verbose: int = 1
) -> TemperatureChoice:
    """Samples at several temperatures and takes the highest that predicts held-out data as well as
    the best one, to within a standard error.

    T = 1 is the posterior of Bayes' rule. Below 1 the samples crowd around the best weights: often
    a little better in prediction, always surer than the model's assumptions allow. So the choice
    needs a reason in data that are neither trained nor tested on.

    Args:
        train_fn: Function of a temperature. Builds a network, samples, for example with
            `kl.QDOPLangevin(num_data=len(x), temperature=temperature)`, and returns its
            `kl.PosteriorSampler`.
        validation_data: `(x, y)`, held-out.
        temperatures: Which to try, from the highest to the lowest. Trying ends, after two or more,
            with the first whose loss is above the best by more than two standard errors.
        verbose: 1 prints a line for each, 0 does not.

    Returns:
        A `TemperatureChoice`. A temperature whose chain diverges has an infinite loss, with a
        warning.

    Raises:
        ValueError: If an argument is not what is said above, or the outputs have no likelihood.
        FloatingPointError: If the chains of all temperatures diverge.

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")

    def train_fn(temperature):
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)]
        )
        model.compile(
            kl.QDOPLangevin(num_data=150, temperature=temperature),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        sampler = kl.PosteriorSampler()
        model.fit(x[:150], y[:150], epochs=20, callbacks=[sampler], verbose=0)
        return sampler

    found = kl.choose_temperature(train_fn, (x[150:], y[150:]), temperatures=(1.0, 0.1))
    found.temperature, found.ensemble, found.losses
    ```
    """
    arguments.function("train_fn", train_fn)
    arguments.verbosity("verbose", verbose)
    x, y = _checked_data(validation_data)
    temperatures = _checked_temperatures(temperatures)
    densities, ensembles = {}, {}
    for temperature in temperatures:
        try:
            ensemble = _sampler(train_fn(temperature)).ensemble()
        except FloatingPointError as error:
            warnings.warn(f"The chain at T = {temperature:g} diverged. {error}", stacklevel=2)
            continue
        ensembles[temperature] = ensemble
        densities[temperature] = _log_densities(ensemble, x, y)
        if verbose:
            print(f"T = {temperature:<6g} held-out NLL {-densities[temperature].mean():.4f}")
        if _is_worse(densities, temperature):
            break
    if not densities:
        raise FloatingPointError("The chains of all temperatures diverged; see the warnings.")
    best = max(densities, key=lambda t: densities[t].mean())
    errors = {t: _standard_error(densities[best] - d) for t, d in densities.items()}
    losses = {t: float(-densities[t].mean()) if t in densities else np.inf for t in temperatures}
    equal = [t for t in densities if losses[t] - losses[best] <= errors[t]]
    tried = {t: losses[t] for t in temperatures if t in densities or t > min(densities)}
    return TemperatureChoice(max(equal), ensembles[max(equal)], tried, errors)


def _log_densities(ensemble, x, y):
    """Of each example, over all of its labels."""
    outputs = keras.tree.flatten(ensemble.log_likelihood(x, y, verbose=0))
    averaged = [np.logaddexp.reduce(one, axis=0) - np.log(len(one)) for one in outputs]
    return sum(one.reshape(len(one), -1).sum(axis=1) for one in averaged)


def _is_worse(densities, temperature):
    best = max(densities, key=lambda t: densities[t].mean())
    gap = densities[best] - densities[temperature]
    return len(densities) > 1 and gap.mean() > 2 * _standard_error(gap) > 0


def _standard_error(values):
    return float(values.std() / max(len(values) - 1, 1) ** 0.5)


def _sampler(found):
    words = "a `kl.PosteriorSampler` that `fit` has run with"
    return arguments.instance("train_fn(temperature)", found, PosteriorSampler, words)


def _checked_data(data):
    if isinstance(data, tuple | list) and len(data) == 2:
        return data
    raise ValueError(
        "`validation_data` must be a pair of held-out inputs and labels. Received: "
        f"validation_data={arguments.shorten(data)}. Pass `(x_validation, y_validation)`."
    )


def _checked_temperatures(temperatures):
    found = []
    if isinstance(temperatures, tuple | list | np.ndarray) and np.ndim(temperatures) == 1:
        found = [arguments.positive_number("temperatures", t) for t in temperatures]
    if found and found == sorted(set(found), reverse=True):
        return found
    raise ValueError(
        "`temperatures` must be positive numbers from the highest to the lowest, such as "
        f"{TEMPERATURES}. Received: temperatures={arguments.shorten(temperatures)}."
    )
