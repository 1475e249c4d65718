"""How a call of something public may end: it succeeds, and what it made can be used, or it is
refused in words of this package."""

import json
import pathlib
import warnings

import keras
import numpy as np
from keras import ops
from targets.public_api_cases import data

import keras_langevin as kl

PACKAGE = str(pathlib.Path(kl.__file__).parent)


def wrong_with(function, arguments, errors=(), then=lambda result: None):
    """What is wrong with how a call ends, in words; None if it succeeds, or is refused as it
    should be: by a `ValueError` of this package that says what it has received."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)  # NumPy's, of overflow and the like
            then(function(**arguments))
    except ValueError as error:
        if not str(pathlib.Path(innermost_file(error))).startswith(PACKAGE):
            return f"{type(error).__name__} from {innermost_file(error)}: {error}"
        if "Received" not in str(error):
            return f"does not say what it received: {error}"
    except errors:
        return None
    except Exception as error:
        return f"{type(error).__name__} from {innermost_file(error)}: {error}"
    return None


def innermost_file(error):
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename


# ------------------------------------------------------- what must work after construction


def look_after(made):
    """What was made is saved and made again; a sampler takes a step that ends in finite weights."""
    if isinstance(made, keras.optimizers.Optimizer):
        assert_same_config(made)
        take_a_step(made)
    elif hasattr(made, "get_config") and not isinstance(made, keras.Model):
        assert_same_config(made)


def assert_same_config(made):
    if isinstance(made, kl.priors.TFPDistribution):
        return
    config = made.get_config()
    assert type(made).from_config(made.get_config()).get_config() == config
    json.dumps(keras.saving.serialize_keras_object(made))


def take_a_step(optimizer):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    if not optimizer.has_learning_rate:
        optimizer.learning_rate = 0.01
    kl.track_statistics(model, optimizer)
    if hasattr(optimizer.preconditioner, "set_data"):
        optimizer.preconditioner.set_data(data()["x"], data()["y"])
    variables = model.trainable_variables
    optimizer.build(variables)
    optimizer.apply([ops.ones(v.shape) for v in variables], variables)
    assert all(np.isfinite(ops.convert_to_numpy(v)).all() for v in model.weights)
