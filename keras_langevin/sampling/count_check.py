"""Whether `num_data` is the number of training examples."""

import warnings

from keras_langevin.keras_internals import batch_size_of_fit, passes_of_fit
from keras_langevin.training_data import num_examples

TOLERANCE = 0.05


def num_data_is_wrong(model, num_data, steps, batches, targets=1, counted=1.0):
    """Whether it differs from what the data of a running `fit` say, if they do; with a warning.

    Args:
        steps: In an epoch; None where nobody knows.
        batches: The first ones; an empty list where they are not read.
        targets: In one example, each of which may be counted.
        counted: Share of the examples with a weight that is not 0.
    """
    batch_size = num_examples(batches[0]) if batches else batch_size_of_fit(model)
    examples, num_batches = passes_of_fit(model)
    least = most = examples
    is_number_of_batches = num_data == steps and (batch_size or 1) > 1
    if examples is None and num_batches and batch_size:
        examples = num_batches * batch_size
        least, most = examples - batch_size + 1, examples + batch_size - 1  # a part of a batch
        passes = round(examples / num_data)
        repeats = passes > 1 and abs(examples - passes * num_data) < batch_size <= num_data
        if repeats and not is_number_of_batches:
            return False
    if examples is None:
        is_wrong, said = is_number_of_batches, "the number of batches of an epoch"
    else:
        low, high = (1 - TOLERANCE) * counted * least, (1 + TOLERANCE) * targets * most
        is_wrong, said = not low <= num_data <= high, f"an epoch of {examples:,} examples"
        if is_number_of_batches:
            said += " in as many batches"
    if is_wrong:
        _warn(num_data, said, examples, high_enough=num_data > (examples or 0))
    return is_wrong


def _warn(num_data, said, examples, high_enough):
    taken = " (`validation_split` takes examples away)" if high_enough and examples else ""
    value = "the number of training examples" if examples is None else f"{examples}"
    warnings.warn(
        "`num_data` must be the number of training examples, which sets how narrow the posterior "
        f"is. Received: num_data={num_data:g} and {said}. Pass num_data={value}{taken}; what is "
        "colder or hotter on purpose is stated by `temperature`.",
        stacklevel=5,
    )
