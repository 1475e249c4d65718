"""Variables that several layers hold."""

from keras_langevin import keras_internals


def owners_of(layers):
    """From the id of a variable to the layers that hold it themselves."""
    owners = {}
    for layer in layers:
        for variable in keras_internals.own_trainable_variables(layer):
            owners.setdefault(id(variable), []).append(layer)
    return owners


def refuse_shared(block, layer, owners):
    """ValueError where another layer holds a weight of the block too."""
    for variable in (block.kernel, block.bias):
        names = [owner.name for owner in owners.get(id(variable), [])]
        if len(names) > 1:
            raise ValueError(
                f"The variable {variable.path!r} is shared between the layers "
                f"{' and '.join(map(repr, names))}, so that its per-example gradient is not "
                "the product of one layer's input and output gradient. Call one layer twice "
                "instead, or use an optimizer that needs no statistics (`kl.SGLD`, "
                "`kl.RMSPropLangevin`)."
            )
