"""Which weights a posterior is over, and the names they are stored under."""

import keras
import numpy as np


def is_statistic(variable: keras.Variable) -> bool:
    """True for a variable that `track_statistics` added to measure something."""
    return getattr(variable, "statistic", None) is not None


def own_statistics(variables) -> list[keras.Variable]:
    """The statistics of a model itself among its variables, where they stand first: not those of a
    tracked model inside of it."""
    found = [v for v in variables if is_statistic(v)]
    return [v for v in found if _tracking(v) is _tracking(found[0])]


def _tracking(statistic):
    return getattr(statistic, "tracking", None)


def parameters(model: keras.Model) -> list[keras.Variable]:
    """The variables that are sampled: `model.trainable_variables` without the statistics."""
    return [v for v in model.trainable_variables if not is_statistic(v)]


def named_weights(model: keras.Model) -> dict[str, keras.Variable]:
    """Everything a prediction depends on, by a unique name: parameters first, then the
    non-trainable weights such as the moving averages of `BatchNormalization`.

    The name is the variable's `path`. Where two variables share a path, the later ones carry
    a suffix: `"block/dense/kernel"`, `"block/dense/kernel#1"`. Random states and metrics are
    not weights and are left out.
    """
    chosen = parameters(model)
    seen = {id(v) for v in chosen}
    chosen += [v for v in model.weights if id(v) not in seen and not is_statistic(v)]
    named, repeats = {}, {}
    for variable in chosen:
        count = repeats[variable.path] = repeats.get(variable.path, -1) + 1
        named[f"{variable.path}#{count}" if count else variable.path] = variable
    return named


def weight_values(model: keras.Model) -> dict[str, np.ndarray]:
    """`named_weights` as NumPy arrays; within `fit` read it through the callback's `self.model`."""
    return {name: keras.ops.convert_to_numpy(v) for name, v in named_weights(model).items()}
