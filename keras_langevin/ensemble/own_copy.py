"""The network that an ensemble evaluates: a copy of the user's, shown to compute the same."""

import keras
import numpy as np
from keras import ops

from keras_langevin.ensemble.signature import signature_of
from keras_langevin.keras_internals import flatten_layers
from keras_langevin.statistics import untracked
from keras_langevin.weights import named_weights

PROBE_EXAMPLES = 2
UNKNOWN_LENGTHS = (16, 64, 1)  # of an axis of any length, until the network takes one
WHOLE_NUMBERS = 10  # below which those of a probe are, unless an `Embedding` has fewer rows
TOLERANCE = 1e-4  # the same operations in the same order differ by nothing


def own_copy(model):
    """A clone of the network, whose own weights do not matter.

    The model itself where it has assets, cannot be cloned from its config, or its clone does not
    give the same outputs with the same weights: a layer may compute with numbers that neither
    config nor weights hold.
    """
    if has_assets(model):
        return model
    try:
        with untracked(model):
            clone = keras.models.clone_model(model)
            values = [ops.convert_to_numpy(v) for v in named_weights(model).values()]
            if not clone.built or not _same_shapes(clone, values):
                return model
            take_constants(clone, values)
            return clone if _computes_the_same(model, clone, values) else model
    except Exception:  # whatever a `get_config`, an `__init__` or a `call` of the user's may raise
        return model


def has_assets(model):
    """Whether it holds state that is neither config nor weights: vocabularies."""
    return any(hasattr(layer, "save_assets") for layer in flatten_layers(model))


def take_constants(member, values):
    """Gives layers that compute with constants made from their weights, such as a `Normalization`
    that was adapted, these weights and has them make the constants anew.

    Args:
        member: The network.
        values: An array for each of its weights, in the order of `named_weights`.
    """
    layers = [x for x in flatten_layers(member) if hasattr(x, "finalize_state") and x.weights]
    theirs = {id(variable) for layer in layers for variable in layer.weights}
    for variable, value in zip(named_weights(member).values(), values, strict=True):
        if id(variable) in theirs:
            variable.assign(value)
    for layer in layers:
        layer.finalize_state()


def _same_shapes(clone, values):
    found = [tuple(v.shape) for v in named_weights(clone).values()]
    return found == [value.shape for value in values]


def _computes_the_same(model, clone, values):
    """On random inputs; False where there are none that the model takes."""
    for length in UNKNOWN_LENGTHS:
        x = _probe(model, length)
        try:
            expected = _outputs(model, x)
        except Exception:  # of a length that does not fit
            continue
        with keras.StatelessScope(list(zip(named_weights(clone).values(), values, strict=True))):
            found = _outputs(clone, x)
        return len(found) == len(expected) and all(map(_close, found, expected))
    return False


def _outputs(model, x):
    return [ops.convert_to_numpy(o) for o in keras.tree.flatten(model(x, training=False))]


def _close(found, expected):
    scale = TOLERANCE * np.abs(expected.astype("float64")).max(initial=0.0)
    return np.isfinite(expected).all() and np.allclose(found, expected, TOLERANCE, scale)


def _probe(model, length):
    generator = np.random.default_rng(0)
    rows = [x.input_dim for x in flatten_layers(model) if isinstance(x, keras.layers.Embedding)]
    most = min([WHOLE_NUMBERS, *rows])

    def array(spec):
        shape = [length if n is None else n for n in spec.shape[1:]]
        dtype = keras.backend.standardize_dtype(spec.dtype or "float32")
        if dtype == "string":
            raise ValueError("Strings are not drawn.")
        if keras.backend.is_float_dtype(dtype):
            return generator.normal(size=(PROBE_EXAMPLES, *shape)).astype(dtype)
        return generator.integers(2 if dtype == "bool" else most, size=(PROBE_EXAMPLES, *shape))

    return keras.tree.map_structure(array, signature_of(model)[0])
