"""Targets and outputs in one shape, as Keras' own losses take them."""

from keras import ops


def aligned_targets(y, mean):
    """The targets in the shape and type of the predicted means.

    As Keras' losses have it, either may lack the last axis where the other has one number in it:
    targets `(batch,)` for means `(batch, 1)`, or `(batch, 1)` for `(batch,)`.

    Raises:
        ValueError: If the shapes differ otherwise; nothing is broadcast.
    """
    y = ops.cast(y, mean.dtype)
    if len(y.shape) == len(mean.shape) - 1 and mean.shape[-1] == 1:
        y = ops.expand_dims(y, -1)
    elif len(y.shape) == len(mean.shape) + 1 and y.shape[-1] == 1:
        y = ops.squeeze(y, -1)
    check_same_shape(y, mean)
    return y


def check_same_shape(y, mean):
    """ValueError where an axis behind the batch's differs, as far as the lengths are known."""
    pairs = zip(y.shape[1:], mean.shape[1:], strict=False)
    differs = any(None not in pair and pair[0] != pair[1] for pair in pairs)
    if len(y.shape) != len(mean.shape) or differs:
        raise ValueError(
            "The targets must have the shape of the predicted means. Received: "
            f"y.shape={tuple(y.shape)}, mean.shape={tuple(mean.shape)}. Give one target for each "
            "number that the model predicts."
        )


def split_parts(outputs, names, instead=""):
    """The last axis in as many parts of one length as there are names, which say what they are."""
    width = outputs.shape[-1] if len(outputs.shape) > 1 else 1
    if width is None or width % len(names):
        length = "an even length" if len(names) == 2 else f"a length that {len(names)} divides"
        raise ValueError(
            f"The last axis of the outputs must have {length}, the {names[0]} and then as many "
            f"{' and '.join(names[1:])}. Received: outputs.shape={tuple(outputs.shape)}. Give the "
            f"last layer {len(names)} units for each target{instead}."
        )
    part = width // len(names)
    return [outputs[..., i * part : (i + 1) * part] for i in range(len(names))]
