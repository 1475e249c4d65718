"""How many targets an example has, over which a loss takes a mean."""

import math

import keras
import numpy as np

from keras_langevin.keras_internals import compile_argument
from keras_langevin.predictive.categorical import Categorical
from keras_langevin.predictive.output import loss_name, one_per_output, resolve_families


class Targets:
    """Of the examples of a running `fit`.

    Args:
        model: A compiled model.
        labels: Arrays, one for each output.

    Attributes:
        most: Most numbers in the label of an example, which somebody may count.
        independent: How many of them the likelihood takes for observations of their own, though
            the loss is their mean; 1 where that is not known, and where the loss states one noise
            for all of them.
    """

    def __init__(self, model, labels):
        shapes = [a.shape[1:] for a in labels]
        self.most = max(map(math.prod, shapes), default=1)
        self.independent = 1
        try:
            families = keras.tree.flatten(resolve_families(model))
            losses = one_per_output(model, "loss", compile_argument(model, "loss"))
        except ValueError:  # whatever is not known is said elsewhere
            return
        if len(shapes) == len(families) == len(losses):
            self.independent = max(map(_independent, families, losses, shapes))

    def say_what_counts(self, num_data, examples):
        """Prints it where `num_data` counts examples.

        Args:
            examples: That `fit` trains on; None where nobody knows.
        """
        if self.independent > 1 and (examples is None or num_data <= 1.5 * examples):
            print(
                f"PosteriorSampler: the loss is the mean over the {self.independent:,} targets of "
                f"an example, and num_data={num_data:g} counts them as one observation. Where they "
                f"are independent given the inputs, multiply num_data by {self.independent:,}."
            )


def _independent(family, loss, shape):
    if loss is None or not family.has_likelihood or family.loss_sets_scale:
        return 1
    if isinstance(family, Categorical):
        is_one_hot = not loss_name(loss).lower().startswith("sparse")
    else:
        is_one_hot = family.sums_units  # their likelihoods add up
    return math.prod(shape[:-1] if is_one_hot else shape)


def numbers(values):
    """The nested arrays that are NumPy's, in a list."""
    return [a for a in keras.tree.flatten(values) if isinstance(a, np.ndarray)]
