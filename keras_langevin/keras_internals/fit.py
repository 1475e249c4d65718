"""Private names of Keras' trainers: the data of a running `fit`, which Keras shows no callback."""

import inspect
import itertools
import random

import keras
import numpy as np
from keras.src.trainers.epoch_iterator import EpochIterator


def batches_of_fit(model, count):
    """Up to `count` batches `(x, y, sample_weight)` of what a running `fit` trains the model on,
    as it would meet them in another epoch; an empty list outside of `fit`.

    Keras shows callbacks no data; they stand in the frame of `fit`. A generator cannot be read
    twice: of one these are the batches that Keras keeps of its beginning. The order in which
    `fit` goes on to meet arrays is the same as without.
    """
    adapter = _adapter_of_fit(model)
    if adapter is None:
        return []
    kept = getattr(adapter, "_first_batches", None)
    states = random.getstate(), np.random.get_state()  # of which Keras takes permutations
    try:
        batches = list(itertools.islice(kept or adapter.get_numpy_iterator(), count))
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    return [keras.utils.unpack_x_y_sample_weight(batch) for batch in batches]


def batch_size_of_fit(model):
    """Examples in a batch of a running `fit`; None where the data do not say."""
    known = getattr(_adapter_of_fit(model), "batch_size", None)
    return known or getattr(dataset_of_fit(model), "batch_size", None)


def dataset_of_fit(model):
    """The `PyDataset` that a running `fit` trains the model on, None for other data."""
    return getattr(_adapter_of_fit(model), "py_dataset", None)


def _adapter_of_fit(model):
    frame = _frame_of_fit(model)
    return None if frame is None else frame.f_locals["epoch_iterator"].data_adapter


def _frame_of_fit(model):
    frame = inspect.currentframe()
    while frame is not None:
        adapter = getattr(frame.f_locals.get("epoch_iterator"), "data_adapter", None)
        if adapter is not None and frame.f_locals.get("self") is model:
            return frame
        frame = frame.f_back
    return None


def validation_batches_of_fit(model):
    """The batches `(x, y, sample_weight)` that a running `fit` validates on, from the first, as an
    iterator; None where it has not validated yet."""
    iterator = getattr(model, "_eval_epoch_iterator", None)
    return None if iterator is None else _batches(iterator.data_adapter)


def has_validation_data(model):
    """Whether a running `fit` has data to validate on, be it in another epoch."""
    frame = _frame_of_fit(model)
    return frame is not None and frame.f_locals.get("validation_data") is not None


def data_batches(data, batch_size=None):
    """The batches `(x, y, sample_weight)`, NumPy, of a tuple of arrays or of a dataset."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    iterator = EpochIterator(
        x=x, y=y, sample_weight=sample_weight, batch_size=batch_size, shuffle=False
    )
    return _batches(iterator.data_adapter)


def data_in_memory(data):
    """`(x, y, sample_weight)` of a whole dataset in NumPy arrays."""
    parts = zip(*data_batches(data), strict=True)
    return tuple(None if part[0] is None else _concatenated(part) for part in parts)


def _batches(adapter):
    return map(keras.utils.unpack_x_y_sample_weight, adapter.get_numpy_iterator())


def _concatenated(batches):
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *batches)
