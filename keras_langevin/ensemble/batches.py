"""`predict` in batches that suit many networks at once."""

import keras
import numpy as np
from keras import ops, tree

from keras_langevin.ensemble.retracing import quiet_about_retracing


class BatchedModel(keras.Model):
    """A model that takes arrays in batches of `default_batch_size()` where no size is given.

    `predict` of arrays where nothing is to be printed (`verbose=0`) leaves out the data set that
    Keras makes, which takes 50 ms on TensorFlow.
    """

    def default_batch_size(self) -> int:
        """Examples in a batch of arrays."""
        raise NotImplementedError

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """As `keras.Model.predict`, with `default_batch_size()`."""
        batch_size = self._batch_size(x, batch_size, steps)
        is_silent = not (verbose or steps or callbacks)
        if is_silent and self._is_of_arrays(x) and isinstance(batch_size, int) and batch_size > 0:
            with quiet_about_retracing():
                return self._predict_arrays(x, batch_size)
        with quiet_about_retracing():
            return super().predict(x, batch_size, verbose, steps, callbacks)

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
    ):
        """As `keras.Model.evaluate`, with `default_batch_size()`."""
        batch_size = self._batch_size(x, batch_size, steps)
        with quiet_about_retracing():
            return super().evaluate(
                x, y, batch_size, verbose, sample_weight, steps, callbacks, return_dict
            )

    def _batch_size(self, x, batch_size, steps):
        """None where the data set has one, or Keras divides by `steps`."""
        arrays = all(isinstance(a, np.ndarray) or ops.is_tensor(a) for a in tree.flatten(x))
        return self.default_batch_size() if arrays and batch_size is steps is None else batch_size

    def _is_of_arrays(self, x):
        arrays = tree.flatten(x)
        if not all(isinstance(a, np.ndarray) and a.ndim and a.dtype.kind in "fiub" for a in arrays):
            return False
        sizes = {len(array) for array in arrays}
        return len(sizes) == 1 and 0 not in sizes and not self._is_distributed()

    def _predict_arrays(self, x, batch_size):
        parts = []
        for first in range(0, len(tree.flatten(x)[0]), batch_size):
            batch = slice(first, first + batch_size)
            part = tree.map_structure(lambda a, batch=batch: _standard_float(a[batch]), x)
            parts.append(self.predict_on_batch(part))
        return tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)

    def _is_distributed(self):
        replicas = getattr(self, "distribute_strategy", None)  # TensorFlow's
        if replicas is not None and replicas.num_replicas_in_sync > 1:
            return True
        return keras.distribution.distribution() is not None


def _standard_float(array):
    return array.astype(keras.config.floatx(), copy=False) if array.dtype.kind == "f" else array
