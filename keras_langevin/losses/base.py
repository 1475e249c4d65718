"""What the losses of this package have in common."""

import keras
from keras import ops

from keras_langevin import arguments, keras_arguments

REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None)


class NegativeLogLikelihood(keras.losses.Loss):
    """A loss whose arguments are checked. `call` gives one number in nats for each example, or
    position, constants included."""

    def __init__(self, reduction, name, dtype):
        super().__init__(
            name=keras_arguments.keras_name("name", name),
            reduction=arguments.one_of("reduction", reduction, REDUCTIONS),
            dtype=keras_arguments.float_dtype("dtype", dtype),
        )


def sum_of_units(log_densities):
    """Over the last axis; of outputs of the shape `(batch,)` each number is an example."""
    return ops.sum(log_densities, axis=-1) if len(log_densities.shape) > 1 else log_densities
