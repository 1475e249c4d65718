"""Private names of Keras' functional models: which layer made a tensor."""

import keras
from keras.src.models.functional import Functional


def layers_called_alike(model):
    """The layers that a sequential or functional model calls in training when it is, those of such
    models within it too."""
    if type(model).call not in (Functional.call, keras.Sequential.call):
        return [] if isinstance(model, keras.Model) else [model]
    return [x for layer in model.layers for x in layers_called_alike(layer)]


def last_activation(tensor):
    """Of the layer that made an output of a functional model: `"softmax"`, `"sigmoid"`,
    `"linear"`, or None where it cannot be seen."""
    operation = tensor._keras_history.operation
    while hasattr(operation, "outputs") and len(keras.tree.flatten(operation.outputs)) == 1:
        operation = operation.outputs[0]._keras_history.operation  # a model within the model
    if isinstance(operation, keras.layers.TimeDistributed):
        operation = operation.layer
    if type(operation).__name__ in ("Softmax", "Sigmoid"):
        return type(operation).__name__.lower()
    activation = getattr(operation, "activation", None)
    for name in ("softmax", "sigmoid", "linear"):
        if activation is getattr(keras.activations, name):
            return name
    return "linear" if isinstance(operation, keras.layers.Dense) and activation is None else None


def operations_before_outputs(model, goes_on):
    """The operations that a sequential or functional model ends with, those of models within it in
    their place, and what comes before each as long as `goes_on(operation)`. None for others."""
    tensors, found, seen = keras.tree.flatten(getattr(model, "outputs", None)), [], set()
    if not tensors or tensors[0] is None:
        return None
    while tensors:
        tensor = tensors.pop()
        operation, place, _ = tensor._keras_history
        if id(tensor) in seen or not operation._inbound_nodes:
            continue
        seen.add(id(tensor))
        inner = keras.tree.flatten(getattr(operation, "outputs", None))
        if inner and inner[0] is not None:
            tensors += inner
        found.append(operation)
        if goes_on(operation):
            tensors += operation._inbound_nodes[place].input_tensors
    return found
