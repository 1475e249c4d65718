"""What of a model is measured, and how: a layer by the rule of its class, or as a whole.

A whole layer is a wrapper or a recurrent layer, with all that is inside of it, or a layer without a
rule, with the weights that it holds itself.
"""

import dataclasses

import keras

from keras_langevin import keras_internals
from keras_langevin.statistics.registry import LayerRule, blocks_of, find_rule
from keras_langevin.statistics.trial import try_layer
from keras_langevin.statistics.whole_layer import variables_of, whole_blocks

_CALLS_IN_ITS_OWN_WAY = (
    keras.layers.Wrapper,
    keras.layers.Bidirectional,
    keras.layers.RNN,
)
# Layers without a rule whose gradients are tested, so that no trial is needed.
_KNOWN = (*_CALLS_IN_ITS_OWN_WAY, keras.layers.PReLU)


@dataclasses.dataclass
class Unit:
    """A layer that gets a probe.

    Attributes:
        layer: The layer.
        rule: The rule of its class, or None where it is measured as a whole.
        blocks: What is measured; empty for a layer whose calls are only checked.
        one_by_one: As of `WholeLayerProbe`; None to follow from the layer.
    """

    layer: keras.layers.Layer
    rule: LayerRule | None
    blocks: list
    one_by_one: bool | None = None


class Units:
    """The units of a model.

    Args:
        model: A built model.
        measures_whole: Whether layers without a rule can be measured.

    Attributes:
        found: List of `Unit`, in the order of the model's layers.
        reasons: From the id of a variable to why it is not measured, where there is more to
            say than that its layer has no rule.
    """

    def __init__(self, model, measures_whole=True):
        self.found, self.reasons, self.measures_whole = [], {}, measures_whole
        layers = list({id(x): x for x in keras_internals.flatten_layers(model)}.values())
        inside = _inside(x for x in layers if _is_whole(x))
        self._twice = inside & _reached_from(model)
        for layer in layers:
            if layer.built:
                self._add(layer, id(layer) in inside)

    def _add(self, layer, is_inside):
        rule = find_rule(layer)
        if rule is not None and (is_inside or not keras_internals.has_replaced_weights(layer)):
            blocks = [] if is_inside else blocks_of(rule, layer)
            self.found.append(Unit(layer, rule, blocks))
            if is_inside or blocks:
                return
        if not is_inside:
            self._add_whole(layer)

    def _add_whole(self, layer):
        layers = keras_internals.flatten_layers(layer) if _is_whole(layer) else [layer]
        layers = list({id(x): x for x in layers}.values())
        blocks = whole_blocks(layers)
        if not blocks or not self.measures_whole:
            return
        trained = [v for block in blocks for v in variables_of(block)]
        reason, one_by_one = self._refusal(layer, layers), None
        if reason is None and not _is_known(layers):
            reason, one_by_one = try_layer(layer, trained)
        if reason is None:
            self.found.append(Unit(layer, None, blocks, one_by_one))
        else:
            self.reasons.update((id(v), reason) for v in trained)

    def _refusal(self, layer, layers):
        if any(getattr(x, "stateful", False) is True for x in layers):
            return "stateful=True carries numbers from batch to batch"
        if keras_internals.random_outside_of_training(layer):
            return "it draws random numbers, and has no argument `training`"
        if any(id(x) in self._twice for x in layers):
            return "a layer inside of it is also called from outside"
        return None


def _is_whole(layer):
    """Whether it calls the layers inside of it in its own way: in a loop over time, or with
    weights that it changes first."""
    return isinstance(layer, _CALLS_IN_ITS_OWN_WAY) and find_rule(layer) is None


def _is_known(layers):
    """Whether these are layers of Keras that are tested."""

    def known(layer):
        if not keras_internals.is_of_keras(layer) or _is_quantized(layer):
            return False
        if isinstance(layer, _KNOWN) or not keras_internals.own_trainable_variables(layer):
            return True
        rule = find_rule(layer)
        if rule is None:  # the cell of a recurrent layer
            return any(isinstance(x, keras.layers.RNN) for x in layers)
        return keras_internals.has_replaced_weights(layer) or bool(blocks_of(rule, layer))

    return all(map(known, layers))


def _is_quantized(layer):
    return getattr(layer, "quantization_mode", None) is not None


def _inside(wholes):
    return {id(x) for whole in wholes for x in keras_internals.flatten_layers(whole)[1:]}


def _reached_from(model):
    """Ids of the layers that are reached from the model without passing through a whole one."""
    reached, waiting = set(), [model]
    while waiting:
        layer = waiting.pop()
        if id(layer) not in reached:
            reached.add(id(layer))
            waiting += [] if _is_whole(layer) else keras_internals.sublayers(layer)
    return reached
