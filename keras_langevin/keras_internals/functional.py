"""Private names of Keras' functional models: which layer made a tensor."""

import keras


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
