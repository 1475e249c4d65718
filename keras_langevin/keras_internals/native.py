"""Arrays as Keras' data adapters take them, turned into what the backend computes with."""

import keras
import numpy as np
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils

_SPARSE = (
    data_adapter_utils.is_scipy_sparse,
    data_adapter_utils.is_tensorflow_sparse,
    data_adapter_utils.is_jax_sparse,
)


def has_rows(array):
    """Whether it is a sparse matrix or a ragged tensor, which NumPy does not hold."""
    return _is_sparse(array) or data_adapter_utils.is_tensorflow_ragged(array)


def _is_sparse(array):
    return any(is_sparse(array) for is_sparse in _SPARSE)


def sliceable(array):
    """The array in a form of which `rows_of` takes examples, with the shape that Keras gives it:
    a `Series` becomes a column."""
    if data_adapter_utils.is_scipy_sparse(array):
        return array.tocsr()
    if data_adapter_utils.is_tensorflow_ragged(array):
        return array
    if _is_sparse(array):
        return _scipy_matrix(array)
    if hasattr(array, "iloc") and len(array.shape) == 1:
        return np.expand_dims(array.to_numpy(), axis=-1)
    if data_adapter_utils.is_torch_tensor(array):
        return array.detach().cpu().numpy()
    return array


def _scipy_matrix(array):
    """Of another sparse kind; dense where it is no matrix."""
    if len(array.shape) != 2:
        return keras.ops.convert_to_numpy(array)
    import scipy.sparse

    values = getattr(array, "values", getattr(array, "data", None))  # TensorFlow's, JAX's
    places = np.asarray(array.indices)
    coordinates = (np.asarray(values), (places[:, 0], places[:, 1]))
    return scipy.sparse.coo_matrix(coordinates, shape=tuple(array.shape)).tocsr()


def rows_of(array, index):
    """Those examples of one array, by a slice or by numbers."""
    if data_adapter_utils.is_tensorflow_ragged(array) and not isinstance(index, slice):
        import tensorflow as tf

        return tf.gather(array, index)
    return array[index]


def native_batch(batch):
    """A batch as `fit` meets it, `(x, y, sample_weight)`: NumPy arrays, but for what NumPy does not
    hold: strings on TensorFlow, sparse matrices and ragged tensors."""
    batch = keras.tree.map_structure(_native, batch, none_is_leaf=False)
    return keras.utils.unpack_x_y_sample_weight(batch)


def _native(array):
    array = array if _is_sparse(array) else sliceable(array)
    if has_rows(array):
        return native_tensor(array)
    return with_strings(array if isinstance(array, np.ndarray) else np.asarray(array))


def native_tensor(array):
    """A tensor of the backend."""
    if data_adapter_utils.is_tensorflow_ragged(array):
        return array if keras.backend.backend() == "tensorflow" else array.to_tensor().numpy()
    if _is_sparse(array):
        return _native_sparse(array)
    if isinstance(array, np.ndarray):
        array = with_strings(array)
    if getattr(array, "dtype", None) == "string":
        return array
    return keras.ops.convert_to_tensor(array)


def _native_sparse(array):
    backend = keras.backend.backend()
    matrix = array if data_adapter_utils.is_scipy_sparse(array) else None
    if backend == "tensorflow":
        if matrix is not None:
            return data_adapter_utils.scipy_sparse_to_tf_sparse(matrix)
        is_other = data_adapter_utils.is_jax_sparse(array)
        return data_adapter_utils.jax_sparse_to_tf_sparse(array) if is_other else array
    if backend == "jax":
        if matrix is not None:
            return data_adapter_utils.scipy_sparse_to_jax_sparse(matrix)
        is_other = data_adapter_utils.is_tensorflow_sparse(array)
        return data_adapter_utils.tf_sparse_to_jax_sparse(array) if is_other else array
    matrix = sliceable(array)
    return keras.ops.convert_to_tensor(np.asarray(matrix.todense()))


def with_strings(array):
    """The array; strings as the tensor that TensorFlow's layers take."""
    if array.dtype.kind in "USO" and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.constant(array)
    return array


def array_batches(inputs, iterator):
    """The batches that `iterator(take, sliceables)` of Keras' adapter of arrays goes through."""

    def take(one, indices=None):
        part = one[indices]
        return part if has_rows(part) else one.convert_to_numpy(part)

    sliceables = array_slicing.convert_to_sliceable(inputs, target_backend="numpy")
    return iterator(take, sliceables)
