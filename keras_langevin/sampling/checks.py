"""What a `kl.PosteriorSampler` asks of its arguments and of the compiled loss."""

import keras
import numpy as np

from keras_langevin import arguments
from keras_langevin.optimizers.sampler_arguments import refuse_double_precision
from keras_langevin.weights import parameters


def check_integer(argument, value, least, also=""):
    """Raises unless the value is an integer of at least `least`."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < least:
        raise ValueError(
            f"`{argument}` must be {also}an integer >= {least}. Received: {argument}="
            f"{arguments.shorten(value)}."
        )


def check_mean_loss(model):
    """Raises where a compiled loss is not the mean over the batch, or a weight is float64."""
    refuse_double_precision(parameters(model))
    means = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
    for loss in keras.tree.flatten(model.loss):
        if isinstance(loss, keras.losses.Loss) and loss.reduction not in means:
            raise ValueError(
                "A sampling optimizer must have a loss that is the MEAN over the batch: its "
                "`learning_rate` multiplies the gradient of the mean loss, and `num_data` makes "
                f"that the posterior's. Received: reduction={loss.reduction!r} in loss "
                f"'{loss.name}'. Construct the loss with reduction='sum_over_batch_size'."
            )
