"""Filling a metric before the first step."""

import numpy as np

from keras_langevin.arguments import integer
from keras_langevin.keras_internals import train_on
from keras_langevin.optimizers.snapshots import sampler_of
from keras_langevin.statistics import track_statistics
from keras_langevin.statistics.check_fit import check_fit
from keras_langevin.training_data import num_examples, rows, training_data

METRIC_BATCHES = 16


def warm_up_metric(model, x, y, batch_size=32, sample_weight=None, num_batches=METRIC_BATCHES):
    """Fills the metric of a compiled model's optimizer from `num_batches` random minibatches,
    and moves no weight. Returns the model.

    For a model that another optimizer has trained: recompile it with a sampler, warm the metric
    up, and `fit` starts with a metric that knows the data. `learning_rate="auto"` does it by
    itself. Moving averages of layers (`BatchNormalization`) are updated as in training.

    Args:
        model: Built, and compiled with an optimizer of this package.
        x, y, sample_weight: Training data as for `fit`, arrays or nested arrays.
        batch_size: As in `fit`.
        num_batches: How many, >= 1; fewer where the data end.

    Raises:
        ValueError: If the optimizer is another, or the data do not fit the model.

    Example:

    >>> model.compile(optimizer="adam", loss=loss)
    >>> model.fit(x, y, batch_size=500, epochs=3)
    >>> model.compile(optimizer=kl.QDOPLangevin(1e-3, num_data=len(x)), loss=loss)
    >>> kl.warm_up_metric(model, x, y, batch_size=500)
    >>> model.fit(x, y, batch_size=500, epochs=50, callbacks=[kl.PosteriorSampler(burn_in=5)])
    """
    sampler_of(model)
    num_batches = integer("num_batches", num_batches, at_least=1)
    batches = split(x, y, sample_weight, batch_size, num_batches)
    check_fit(model, batches[0])
    fill_metric(model, batches, again=True)
    return model


def fill_metric(model, batches, again=False):
    """Trains on the batches with the optimizer at rest: its metric averages, no weight moves."""
    optimizer = sampler_of(model)
    track_statistics(model, model.optimizer)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    preconditioner = optimizer.preconditioner
    if not preconditioner.learns or (not again and preconditioner.is_filled):
        return
    with optimizer.filling_metric():
        train_on(model, batches)


def split(x, y, sample_weight, batch_size, count):
    """Up to `count` random batches of the same size."""
    batch_size = integer("batch_size", batch_size, at_least=1)
    data = training_data(x, y, sample_weight)
    total = num_examples(data)
    batch_size = min(batch_size, total)
    order = np.random.default_rng(0).permutation(total)
    count = min(count, total // batch_size)
    return [rows(data, order[i * batch_size : (i + 1) * batch_size]) for i in range(count)]


def of_one_size(batches):
    return [batch for batch in batches if num_examples(batch) == num_examples(batches[0])]
