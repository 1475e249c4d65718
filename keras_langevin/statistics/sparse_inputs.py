"""Sparse inputs of a layer: TensorFlow's `SparseTensor`, JAX's `BCOO`."""

import keras
from keras import ops


def is_sparse(x):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return isinstance(x, tf.SparseTensor)
    if backend == "jax":
        from jax.experimental.sparse import JAXSparse

        return isinstance(x, JAXSparse)
    return False


def dense_rows(x, rows, examples):
    """The rows of a sparse matrix as an array; of a matrix alone without making all of it dense.

    Args:
        x: Sparse or not.
        rows: Integers.
        examples: How many rows x has.
    """
    if is_sparse(x) and len(x.shape) == 2:
        chosen = ops.expand_dims(rows, 1) == ops.expand_dims(ops.arange(0, examples), 0)
        return ops.matmul(ops.cast(chosen, "float32"), ops.cast(x, "float32"))
    return ops.take(ops.convert_to_tensor(x, sparse=False), rows, axis=0)
