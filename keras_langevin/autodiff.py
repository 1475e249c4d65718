"""Derivatives of a model's loss outside of `fit`, the one place where backends differ in them."""

import contextlib
import functools
import logging

import keras
from keras import ops


def compiled(function):
    """The function as the backend runs it fastest: arrays (in lists, tuples) in and out."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, reduce_retracing=False)

    @functools.wraps(function)
    def without_graph(*args):
        import torch

        with torch.no_grad():
            return function(*args)

    return without_graph


def gradient(function, values):
    """∂function/∂values for a function of a list of arrays that returns one number."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.grad(function)(values)
    if backend == "torch":
        import torch

        leaves = [v.detach().requires_grad_(True) for v in values]
        with torch.enable_grad():
            found = torch.autograd.grad(function(leaves), leaves, allow_unused=True)
        return [ops.zeros_like(v) if g is None else g for v, g in zip(values, found, strict=True)]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    found = tape.gradient(result, values, unconnected_gradients="zero")
    return [tf.convert_to_tensor(g) for g in found]  # an Embedding's holds only the rows met


def gauss_newton_product(outputs, loss, values, vectors):
    """Jᵀ H J v: `outputs` maps a list of arrays to a list of arrays with Jacobian J, `loss` those
    to one number with Hessian H. Symmetric; positive semi-definite where the loss is convex in
    the outputs."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _gauss_newton_tensorflow(outputs, loss, values, vectors)
    if backend == "jax":
        from jax import grad, jvp, vjp
    else:
        from torch.func import grad, jvp, vjp
    predictions, tangents = jvp(outputs, (values,), (vectors,))
    _, curved = jvp(grad(loss), (predictions,), (tangents,))
    _, pullback = vjp(outputs, values)
    return list(pullback(curved)[0])


def _gauss_newton_tensorflow(outputs, loss, values, vectors):
    import tensorflow as tf

    def differentiate(target, sources, weights=None):
        found = tape.gradient(target, sources, weights, unconnected_gradients="zero")
        return [tf.convert_to_tensor(g) for g in found]

    # It warns of gradients within a persistent tape, which is the point here.
    with without_tensorflow_warnings(), tf.GradientTape(persistent=True) as tape:
        tape.watch(values)
        predictions = outputs(values)
        with tape.stop_recording():
            probe = [tf.zeros_like(p) for p in predictions]
            flat = [tf.stop_gradient(p) for p in predictions]
        tape.watch(probe)
        tape.watch(flat)
        slopes = differentiate(loss(flat), flat)
        pulled = differentiate(predictions, values, probe)  # linear in the probe: Jᵀ p
    tangents = differentiate(pulled, probe, vectors)
    curved = differentiate(slopes, flat, tangents)
    return differentiate(predictions, values, curved)


def pulled_back(outputs, values, examples, cotangents):
    """c J for every example and every row c of its cotangents, J the Jacobian of its outputs by
    the values.

    Args:
        outputs: `outputs(values, examples)`, shape `(n, outputs)`, one row an example.
        values: List of arrays.
        examples: Nested arrays, first axis n.
        cotangents: Shape `(n, rows, outputs)`.

    Returns:
        One array `(n, rows, *shape)` for each of the values.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _pulled_back_tensorflow(outputs, values, examples, cotangents)
    if backend == "jax":
        from jax import vjp, vmap
    else:
        from torch.func import vjp, vmap

    def one(example, rows):
        _, pullback = vjp(lambda values: _of_one_example(outputs, values, example), values)
        return vmap(lambda row: pullback(row)[0])(rows)

    return vmap(one)(examples, cotangents)


def _pulled_back_tensorflow(outputs, values, examples, cotangents):
    import tensorflow as tf

    def one(arguments):
        example, rows = arguments
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(values)
            output = _of_one_example(outputs, values, example)
        gradients = [
            tape.gradient(output, values, row, unconnected_gradients="zero")
            for row in tf.unstack(rows)
        ]
        return [tf.stack(parts) for parts in zip(*gradients, strict=True)]

    return tf.vectorized_map(one, (examples, cotangents))


def _of_one_example(outputs, values, example):
    batch = keras.tree.map_structure(lambda a: ops.expand_dims(a, 0), example)
    # A slice `[0]` in its place makes XLA compile anew in every step, when differentiated twice
    # inside a vectorized loop.
    return ops.squeeze(outputs(values, batch), axis=0)


def jacobian(function, vector):
    """∂function/∂vector, shape `(*function(vector).shape, len(vector))`, by a forward pass for
    each entry of the vector."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jacfwd(function)(vector)
    if backend == "torch":
        import torch

        return torch.func.jacfwd(function)(vector)
    import tensorflow as tf

    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            inner.watch(vector)
            result = function(vector)
        probe = tf.zeros_like(result)
        outer.watch(probe)
        pulled = inner.gradient(result, vector, probe, unconnected_gradients="zero")

    def column(direction):  # `pulled` is linear in the probe
        return outer.gradient(pulled, probe, direction, unconnected_gradients="zero")

    columns = tf.map_fn(column, tf.eye(vector.shape[0], dtype=vector.dtype))
    return tf.experimental.numpy.moveaxis(columns, 0, -1)


def kernel_vjp(op, kernel_shape, cotangent):
    """Gradient of sum(op(kernel) * cotangent) for an `op` linear in its kernel, float32."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        _, pullback = jax.vjp(op, jax.numpy.zeros(kernel_shape, "float32"))
        return pullback(cotangent)[0]
    if backend == "torch":
        import torch

        kernel = torch.zeros(kernel_shape, device=cotangent.device)
        with torch.enable_grad():
            _, pullback = torch.func.vjp(op, kernel)
            return pullback(cotangent)[0]
    import tensorflow as tf

    kernel = tf.zeros(kernel_shape)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        outputs = op(kernel)
    gradient = tape.gradient(outputs, kernel, output_gradients=cotangent)
    return tf.convert_to_tensor(gradient)  # a look-up's holds the rows that were met


@contextlib.contextmanager
def without_tensorflow_warnings():
    """Inside, TensorFlow logs errors alone."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
