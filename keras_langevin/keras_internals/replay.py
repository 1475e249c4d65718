"""Batches that are in memory, given to `fit` as they are."""

import keras
from keras.src.trainers.data_adapters import data_adapter_utils
from keras.src.trainers.data_adapters.data_adapter import DataAdapter


class Replay(DataAdapter):
    """Of batches `(x, y, sample_weight)` of one size, as `batches_of_fit` gives them.

    Args:
        element_spec: That of the data set of a running `fit` on TensorFlow, so that its compiled
            step takes these batches too. By default what the batches say.
    """

    def __init__(self, batches, element_spec=None):
        self._element_spec = element_spec
        self._batches = [self._element(batch) for batch in batches]

    def get_numpy_iterator(self):
        return iter(self._batches)

    def get_jax_iterator(self):
        return iter(self._batches)

    def get_tf_dataset(self):
        import tensorflow as tf

        spec = self._element_spec or data_adapter_utils.get_tensor_spec(self._batches)
        return tf.data.Dataset.from_generator(lambda: iter(self._batches), output_signature=spec)

    def get_torch_dataloader(self):
        return data_adapter_utils.get_torch_dataloader(self._batches)

    @property
    def num_batches(self):
        return len(self._batches)

    @property
    def batch_size(self):
        return None

    def _element(self, batch):
        element = keras.utils.pack_x_y_sample_weight(*batch)
        if isinstance(self._element_spec, tuple) and not isinstance(element, tuple):
            element = (element,)
        return keras.tree.lists_to_tuples(element)
