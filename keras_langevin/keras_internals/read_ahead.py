"""Reading the first batches of a running `fit` without taking any from it."""

import collections
import copy
import itertools
import random

import numpy as np
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.trainers.data_adapters.generator_data_adapter import GeneratorDataAdapter
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from keras_langevin.keras_internals.native import array_batches
from keras_langevin.storage.random_state import kept_random_state

# What a data set of TensorFlow is made of that gives other elements when it is read once more.
_REMEMBERS = ("Shuffle", "Cache", "FlatMap", "Snapshot", "Save", "Random")


def first_batches(epoch_iterator, count):
    """Up to `count` batches that an `EpochIterator` of Keras will give, as its adapter has them.

    Arrays and a `PyDataset` are read by themselves; of a generator these are the two batches that
    Keras keeps of its beginning. Of any other source the iterator that `fit` would make is made
    now, and gives the batches that are read here once more when `fit` asks for them: also a stream
    that can be read once loses none, and a shuffled one has the order that it had. Later calls
    give the same batches.
    """
    adapter = epoch_iterator.data_adapter
    if isinstance(adapter, GeneratorDataAdapter):
        return adapter._first_batches[:count]
    with kept_random_state():
        if isinstance(adapter, ArrayDataAdapter):
            batches = array_batches(adapter._inputs, adapter._get_iterator)
            return list(itertools.islice(batches, count))
        if isinstance(adapter, PyDatasetAdapter):
            dataset = _with_own_generators(adapter.py_dataset)
            return list(py_dataset_batches(adapter, count, dataset))
        if _can_be_read_again(epoch_iterator):
            return list(itertools.islice(adapter.get_numpy_iterator(), count))
    # What this one draws, `fit` would have drawn.
    ahead = epoch_iterator.__dict__.get("_keras_langevin_ahead")
    if ahead is None:
        ahead = epoch_iterator._keras_langevin_ahead = _read_from(epoch_iterator)
    return ahead.first(count)


def py_dataset_batches(adapter, count=None, dataset=None):
    """Batches of a `PyDataset`, without the adapter's workers, which go on where they were; in the
    order of `fit` but for the shuffling, which draws anew."""
    dataset = adapter.py_dataset if dataset is None else dataset
    total = dataset.num_batches
    count = total if count is None else count if total is None else min(count, total)
    order = range(count)
    if adapter.shuffle and total is not None:
        order = random.Random(0).sample(range(total), count)
    return (adapter._standardize_batch(dataset[i]) for i in order)


def _with_own_generators(dataset):
    """A copy, so that what the original draws stays as it would be."""
    dataset = copy.copy(dataset)
    for name, value in vars(dataset).items():
        if isinstance(value, (np.random.Generator, np.random.RandomState, random.Random)):
            setattr(dataset, name, copy.deepcopy(value))
    return dataset


def _can_be_read_again(epoch_iterator):
    """A data set of TensorFlow, which its compiled step reads by itself, that remembers nothing."""
    distributed = getattr(epoch_iterator, "_distributed_dataset", None)
    if distributed is None:
        return False
    is_spread = not hasattr(distributed, "_inputs")  # over replicas
    return is_spread or not any(word in n for n in _kinds(distributed) for word in _REMEMBERS)


def repeats(epoch_iterator):
    """Whether the data are a data set of TensorFlow with a `repeat`."""
    dataset = getattr(epoch_iterator.data_adapter, "_dataset", None)
    return hasattr(dataset, "_inputs") and any("Repeat" in name for name in _kinds(dataset))


def _kinds(dataset):
    yield type(dataset).__name__
    for one in dataset._inputs():
        yield from _kinds(one)


class _ReadAhead:
    """An iterator that shows its first elements before it gives them."""

    def __init__(self, iterator):
        self._iterator, self._waiting = iterator, collections.deque()
        self._shown, self._has_started = [], False

    def first(self, count):
        while len(self._shown) < count and not self._has_started:
            try:
                element = next(self._iterator)
            except StopIteration:
                break
            self._shown.append(element)
            self._waiting.append(element)
        if self._has_started:
            del self._shown[count:]
        return self._shown[:count]

    def __iter__(self):
        return self

    def __next__(self):
        self._has_started = True
        return self._waiting.popleft() if self._waiting else next(self._iterator)


def _read_from(epoch_iterator):
    """Puts a `_ReadAhead` in the place of the next iterator that `fit` takes its batches from."""
    goes_on = epoch_iterator.steps_per_epoch and epoch_iterator._current_iterator is not None
    make = epoch_iterator._get_iterator
    source = epoch_iterator._current_iterator if goes_on else iter(make())
    ahead = _ReadAhead(source)
    restored = _dataset_of(ahead, epoch_iterator)
    if goes_on:
        epoch_iterator._current_iterator = iter(restored)
        return ahead

    def get_iterator():
        del epoch_iterator._get_iterator
        return restored

    epoch_iterator._get_iterator = get_iterator
    return ahead


def _dataset_of(ahead, epoch_iterator):
    """What `fit` takes an iterator of: on TensorFlow a data set with elements of the same kind."""
    dataset = getattr(epoch_iterator, "_distributed_dataset", None)
    if dataset is None:
        return ahead
    import tensorflow as tf

    return tf.data.Dataset.from_generator(lambda: ahead, output_signature=dataset.element_spec)
