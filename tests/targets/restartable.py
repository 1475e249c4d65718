"""Compiled models that begin anew: 95 % of a training test is compilation."""

import functools

import keras
import numpy as np


def restartable(make):
    """Makes a model once for each of its arguments, and sets it back at every later call.

    Weights, moving averages, the optimizer's state and the counters of random layers are what
    they were when the model was made; its compiled step is kept.

    Args:
        make: Returns a compiled model, with all statistics that its optimizer needs.
    """
    made = {}

    @functools.wraps(make)
    def start(*args, **kwargs):
        key = (args, *sorted(kwargs.items()))
        if key not in made:
            model = make(*args, **kwargs)
            model.optimizer.build(model.trainable_variables)
            made[key] = model, [_array(v).copy() for v in _variables(model)]
        model, beginning = made[key]
        for variable, value in zip(_variables(model), beginning, strict=True):
            variable.assign(value)
        return model

    return start


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _array(variable):
    return np.array(keras.ops.convert_to_numpy(variable))
