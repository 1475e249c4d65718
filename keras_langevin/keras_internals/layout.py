"""Private names of Keras' distribution: how variables lie on the devices."""

import keras


def layout_along(variable, axes):
    """The layout of an array each of whose axes is one of the variable's, so that it lies on the
    devices as the variable does; None where nothing is distributed.

    Args:
        axes: For each axis of the array the variable's axis, or None for one that is not split.
    """
    if keras.distribution.distribution() is None:
        return None
    layout = getattr(variable, "_layout", None)
    if not isinstance(layout, keras.distribution.TensorLayout):
        return undivided(len(axes))
    split = [None if axis is None else layout.axes[axis] for axis in axes]
    return keras.distribution.TensorLayout(split, layout.device_mesh)


def undivided(rank):
    """The layout of an array that every device holds; None where nothing is distributed. Said of
    what is no weight, it keeps Keras from going by a pattern that is meant for one."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    return keras.distribution.TensorLayout([None] * rank, distribution.device_mesh)
