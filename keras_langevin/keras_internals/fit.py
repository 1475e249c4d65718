"""Private names of Keras' trainers: the data of a running `fit`, which Keras shows no callback."""

import inspect
import itertools
import types

import keras
import numpy as np
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.trainers.data_adapters.generator_data_adapter import GeneratorDataAdapter
from keras.src.trainers.epoch_iterator import EpochIterator

from keras_langevin.keras_internals.model import is_built
from keras_langevin.keras_internals.native import native_batch, native_tensor, with_strings
from keras_langevin.keras_internals.read_ahead import (
    first_batches,
    py_dataset_batches,
    repeats,
)
from keras_langevin.keras_internals.replay import Replay
from keras_langevin.storage.random_state import kept_random_state


def batches_of_fit(model, count):
    """Up to `count` batches `(x, y, sample_weight)` of what a running `fit` trains the model on;
    an empty list outside of `fit`. What `fit` goes on to meet is the same as without.

    Keras shows callbacks no data; they stand in the frame of `fit`. Arrays are NumPy's; of what
    NumPy does not hold (strings, sparse matrices, ragged tensors) they are the backend's.
    """
    frame = _frame_of_fit(model)
    if frame is None:
        return []
    batches = first_batches(frame.f_locals["epoch_iterator"], count)
    return [native_batch(batch) for batch in batches]


def train_on(model, batches):
    """`fit` on batches of one size, one epoch; within a running `fit` by its compiled step."""
    frame = _frame_of_fit(model)
    iterator = None if frame is None else frame.f_locals["epoch_iterator"]
    dataset = getattr(iterator, "_distributed_dataset", None)
    element_spec = dataset.element_spec if hasattr(dataset, "_inputs") else None
    history = getattr(model, "history", None)  # `fit` may be running: it returns this one
    with kept_random_state():
        model.fit(Replay(batches, element_spec), shuffle=False, verbose=0)
    model.history = history


def build_for_fit(model):
    """Builds a model that the running `fit` would build in its first step, as Keras does: from the
    shapes of a batch. Outside of `fit` it stays as it is."""
    if is_built(model):
        return
    batches = batches_of_fit(model, 1)
    if batches:
        build_on(model, batches[0])


def build_on(model, batch):
    """Builds a model from the shapes of `(x, y, sample_weight)`, unless it is built."""
    if is_built(model):
        return
    try:
        model._symbolic_build(data_batch=tuple(part for part in batch if part is not None))
    except Exception:  # a `call` that takes nothing but values
        if keras.backend.backend() != "tensorflow":
            raise
        model(keras.tree.map_structure(native_tensor, batch[0]), training=False)


def batch_size_of_fit(model):
    """Examples in a batch of a running `fit`; None where the data do not say."""
    known = getattr(_adapter_of_fit(model), "batch_size", None)
    return known or getattr(dataset_of_fit(model), "batch_size", None)


def dataset_of_fit(model):
    """The `PyDataset` that a running `fit` trains the model on, None for other data."""
    return getattr(_adapter_of_fit(model), "py_dataset", None)


def is_in_fit(model):
    """Whether a `fit` of the model runs."""
    return _frame_of_fit(model) is not None


def has_data_in_memory(model):
    """Whether reading the data of a running `fit` costs nothing."""
    adapter = _adapter_of_fit(model)
    return isinstance(adapter, ArrayDataAdapter | GeneratorDataAdapter)


def passes_of_fit(model):
    """`(examples, batches)` of one pass through the data of a running `fit`: examples where the
    data count them, else batches, where these are counted; None for what is not known. Data of
    TensorFlow that repeat themselves have no passes."""
    adapter = _adapter_of_fit(model)
    for counted in (getattr(adapter, name, None) for name in ("py_dataset", "_dataloader")):
        examples = getattr(counted, "num_data", None)  # of `kl.RandomBatches`
        if examples is None:
            data = getattr(counted, "dataset", None)  # of a loader of torch
            examples = len(data) if hasattr(data, "__len__") else None
        if examples is not None:
            return int(examples), None
    if adapter is None or isinstance(adapter, ArrayDataAdapter):
        return getattr(adapter, "_num_samples", None), None
    if repeats(_frame_of_fit(model).f_locals["epoch_iterator"]):
        return None, None
    batches = adapter.num_batches
    return None, batches if batches is not None and batches > 0 else None


def labels_of_fit(model, most):
    """`(y, sample_weight)` of up to `most` examples of a running `fit`, evenly from all of them,
    where its data are arrays; None for other data."""
    adapter = _adapter_of_fit(model)
    if not isinstance(adapter, ArrayDataAdapter):
        return None
    index = np.linspace(0, adapter._num_samples - 1, min(most, adapter._num_samples)).astype(int)
    _, *labels = keras.utils.unpack_x_y_sample_weight(adapter._inputs)
    _, *labels = native_batch((index, *labels))
    return keras.tree.map_structure(
        lambda a: a[index] if isinstance(a, np.ndarray) else a, tuple(labels), none_is_leaf=False
    )


def callbacks_of_fit(model):
    """The callbacks of a running `fit`, those that Keras has added among them."""
    frame = _frame_of_fit(model)
    found = None if frame is None else frame.f_locals.get("callbacks")
    return list(getattr(found, "callbacks", ()))


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
    iterator, no more than its `validation_steps`; None where it has not validated yet."""
    iterator = getattr(model, "_eval_epoch_iterator", None)
    return None if iterator is None else _batches(iterator.data_adapter, iterator.steps_per_epoch)


def validates_on_generator(model):
    """Whether a running `fit` validates on a generator, which cannot be read a second time."""
    frame = _frame_of_fit(model)
    data = None if frame is None else frame.f_locals.get("validation_data")
    return isinstance(data, types.GeneratorType)


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


def is_endless(data):
    """Whether a data set says that it has no end."""
    if hasattr(data, "cardinality"):
        return int(data.cardinality()) == -1
    return isinstance(data, keras.utils.PyDataset) and data.num_batches is None


def data_in_memory(data):
    """`(x, y, sample_weight)` of a whole dataset in NumPy arrays; strings on TensorFlow are its
    tensors."""
    parts = zip(*data_batches(data), strict=True)
    return tuple(None if part[0] is None else _concatenated(part) for part in parts)


def _batches(adapter, count=None):
    """A `PyDataset` is read by itself: its adapter has workers that go on where they were."""
    if hasattr(adapter, "py_dataset"):
        return map(native_batch, py_dataset_batches(adapter, count))
    return map(native_batch, itertools.islice(_iterator(adapter), count))


def _iterator(adapter):
    """Of NumPy arrays, without a change to the order that `fit` goes on in."""
    with kept_random_state():
        iterator = iter(adapter.get_numpy_iterator())
        first = list(itertools.islice(iterator, 1))  # the order is drawn here
    yield from first
    yield from iterator


def _concatenated(batches):
    return keras.tree.map_structure(lambda *a: with_strings(np.concatenate(a)), *batches)
