"""Shapes and types of what a network takes."""

import keras


def signature_of(member):
    """What `ExportArchive` needs to know of the inputs: a list of one structure, any batch size.

    Raises:
        ValueError: For a subclassed model that does not know its input shape.
    """
    if isinstance(member, keras.Sequential):
        return [member.inputs[0]]
    if hasattr(member, "inputs"):
        return [member.input]
    shape = (member.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise ValueError(
            "To export a subclassed model its inputs must be known. Received: input_signature=None "
            f"for {type(member).__name__}. Pass `input_signature=[keras.InputSpec(shape=(None, "
            'features), dtype="float32")]`.'
        )
    return [keras.InputSpec(shape=(None, *shape[1:]), dtype=member.input_dtype)]
