"""Which layers can be measured: a table from layer class to rule."""

import contextlib

import keras

from keras_langevin.arguments import boolean, instance, shorten
from keras_langevin.statistics.block import Block

_RULES = {}


class LayerRule:
    """What one class of layers must say so that its weights can be measured.

    The layer computes `activation(z)` with z = op(features, kernel) + bias. Most rules
    implement `blocks` alone; a layer that transforms its inputs first, or has two kernels in
    a row, also implements `features`. `examples/add_a_layer_rule.py` is a whole one, with the
    check that what it measures is right.

    Attributes:
        looks_up: Whether the layer looks rows up by whole numbers, as an Embedding does, whose
            numbers then reach `features` as they are. False, the default: integers and truth
            values are numbers that meet the kernel, and reach `features` in float32.

    Example:

    >>> class Projection(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.kernel = self.add_weight(shape=(input_shape[-1], 3), name="kernel")
    ...         self.bias = self.add_weight(shape=(3,), name="bias")
    ...     def call(self, inputs):
    ...         return keras.ops.matmul(inputs, self.kernel) + self.bias
    >>> @kl.statistics.register_rule(Projection)
    ... class ProjectionRule(kl.statistics.LayerRule):
    ...     def blocks(self, layer):
    ...         return [kl.statistics.Block(layer.kernel, keras.ops.matmul, layer.bias)]
    """

    looks_up = False

    def blocks(self, layer) -> list:
        """The layer's blocks of weights, in the order in which `features` returns theirs."""
        raise NotImplementedError(
            f"`{type(self).__name__}` must implement `blocks(layer)`, which returns a list of "
            "`kl.statistics.Block`, one for each kernel of the layer."
        )

    def features(self, layer, inputs, deltas) -> list[tuple]:
        """For each block, what meets its kernel and the derivative of the examples' losses by
        its z: pairs of (features, deltas). `inputs` is the layer's first argument as the
        layer received it, `deltas` the derivative by the pre-activation, float32."""
        return [(inputs, deltas)]

    def inputs(self, layer, inputs, deltas) -> list[tuple]:
        """The same pairs for statistics of the inputs alone: where `features` adds padding,
        those without."""
        return self.features(layer, inputs, deltas)

    def check(self, layer, inputs, kwargs):
        """Raise ValueError where a call of the layer has no per-example gradients."""

    @contextlib.contextmanager
    def pre_activation(self, layer):
        """Inside, calling the layer gives z; the context's value is the activation. That is
        `layer.activation`, if there is one; override this for a layer that has it elsewhere."""
        activation = getattr(layer, "activation", None)
        if activation is None:
            yield lambda z: z
            return
        # torch lets no function stand where a module stood.
        is_layer = isinstance(activation, keras.layers.Layer)
        layer.activation = None if is_layer else keras.activations.linear
        try:
            yield activation
        finally:
            layer.activation = activation


def register_rule(layer_class, replace=False):
    """Class decorator: `LayerRule` for a layer class and its subclasses.

    Args:
        layer_class: A `keras.layers.Layer` subclass, or a tuple of them.
        replace: Registering a class twice is an error unless this is True.

    Example: see `kl.statistics.LayerRule`.

    Raises:
        ValueError: If a class is none of layers, or the decorated one no `LayerRule`.
    """
    classes = layer_class if isinstance(layer_class, tuple) else (layer_class,)
    if not classes or not all(_is_class(cls, keras.layers.Layer) for cls in classes):
        raise ValueError(
            "`layer_class` must be a subclass of `keras.layers.Layer`, or a tuple of them. "
            f"Received: layer_class={shorten(layer_class)}"
        )
    boolean("replace", replace)

    def register(rule_class):
        if not _is_class(rule_class, LayerRule):
            raise ValueError(
                "A rule must be a subclass of `kl.statistics.LayerRule`. Received: rule_class="
                f"{shorten(rule_class)}"
            )
        rule = rule_class()
        for cls in classes:
            if cls in _RULES and not replace:
                raise ValueError(
                    f"A rule for {cls.__name__} is registered already: "
                    f"{type(_RULES[cls]).__name__}. Received: {rule_class.__name__}. Pass "
                    "`replace=True` to put yours in its place."
                )
        for cls in classes:
            _RULES[cls] = rule
        return rule_class

    return register


def _is_class(value, parent):
    return isinstance(value, type) and issubclass(value, parent)


def blocks_of(rule, layer) -> list:
    """What the rule says of the layer, checked."""
    blocks = rule.blocks(layer)
    if not isinstance(blocks, (list, tuple)) or not all(isinstance(b, Block) for b in blocks):
        raise ValueError(
            f"`{type(rule).__name__}.blocks` must return a list of `kl.statistics.Block`. "
            f"Received: {shorten(blocks)} for the layer {layer.name!r}."
        )
    return list(blocks)


def find_rule(layer):
    """The rule of the layer's class or of its nearest parent that has one, or None.

    Args:
        layer: A `keras.layers.Layer`.
    """
    instance("layer", layer, keras.layers.Layer, "a `keras.layers.Layer`")
    for cls in type(layer).__mro__:
        cls = _same_in_keras(cls)
        if cls in _RULES:
            return _RULES[cls]
    return None


def _same_in_keras(cls):
    """KerasHub had this class before Keras did, with the same attributes."""
    if cls.__name__ == "ReversibleEmbedding" and issubclass(cls, keras.layers.Embedding):
        return keras.layers.ReversibleEmbedding
    return cls
