"""What is said of weights that no statistics are measured of."""

import math
import warnings

from keras_langevin import keras_internals

MOST = 0.5  # share of the weights without statistics from which on a metric is hardly one


def warn_about_unmeasured(layers, variables, reasons, instead, num_weights):
    """Names the variables and their layers.

    Args:
        layers: Of the model.
        variables: That nothing measures; there may be none.
        reasons: From the id of a variable to why not, where that is known.
        instead: How they are sampled.
        num_weights: Numbers in all variables that are sampled.
    """
    if not variables:
        return
    unmeasured = {id(v) for v in variables}
    names = {}
    for layer in layers:
        own = keras_internals.own_trainable_variables(layer)
        found = [reasons.get(id(v)) for v in own if id(v) in unmeasured]
        if found:
            reason = f" ({found[0]})" if found[0] else ""
            names[id(layer)] = f"{type(layer).__name__} {layer.name!r}{reason}"
    said = ", ".join(names.values())
    share = sum(math.prod(v.shape) for v in variables) / num_weights
    much = ""
    if share > MOST:
        much = (
            f" These are {share:.0%} of the weights: the metric is measured of the lesser part, "
            "and `kl.RMSPropLangevin` may do as well for less."
        )
    warnings.warn(
        f"No rule measures the variables {[v.path for v in variables]}"
        f"{f' of the layers {said}' if said else ''}. They are sampled {instead}.{much} A rule for "
        "a layer class is registered with `kl.statistics.register_rule(LayerClass)`.",
        stacklevel=4,
    )
