"""Derivatives of a model's loss outside of `fit`, the one place where backends differ in them."""

import contextlib
import functools
import logging

import keras
import numpy as np
from keras import ops


def compiled(function, mode="fast"):
    """The function as the backend runs it: arrays (in lists, tuples) in and out.

    Args:
        mode: `"fast"` with the backend's compiler, `"graph"` without XLA on TensorFlow, `"eager"`
            without a graph, for layers that run Python of their own.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return _without_torch_graph(function)
    if mode == "eager":
        return function
    if backend == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    graph = tf.function(function, jit_compile=mode == "fast", reduce_retracing=False)
    return _without_strings(graph) if mode == "fast" else graph


def _without_strings(function):
    """XLA ends the process where it meets a string; an error lets the next way be tried."""

    @functools.wraps(function)
    def checked(*args):
        for value in keras.tree.flatten(args):
            if "string" in str(getattr(value, "dtype", "")):
                raise TypeError("XLA must not be given strings. Received: a tensor of them.")
        return function(*args)

    return checked


def _without_torch_graph(function):
    @functools.wraps(function)
    def without_graph(*args):
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        # The faster kernels of attention have first derivatives alone.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            return function(*args)

    return without_graph


class FirstThatWorks:
    """Calls the first of several functions that neither raises nor returns NaN or infinity, and
    keeps to it. What the last one does stands.

    Args:
        functions: Each returns a list.
        is_told_by: So many of its first arrays say whether all is finite; None for all of them.
    """

    def __init__(self, functions, is_told_by=None):
        self._functions = list(functions)
        self._is_told_by = is_told_by

    def __call__(self, *args):
        while len(self._functions) > 1:
            try:
                found = self._functions[0](*args)
                if np.isfinite(float(sum(ops.sum(a) for a in found[: self._is_told_by]))):
                    return found
            except Exception as error:  # whatever backends and layers may raise
                logging.getLogger(__name__).debug("A derivative is taken otherwise: %s", error)
            del self._functions[0]
        return self._functions[0](*args)


def ways_to_differentiate():
    """Pairs (method, mode) of `gauss_newton_product` and `compiled`, the best one first."""
    return {
        "jax": (
            ("forward", "fast"),
            ("reverse", "fast"),
            ("difference", "fast"),
            ("difference", "eager"),
        ),
        "tensorflow": (
            ("reverse", "fast"),
            ("reverse", "graph"),
            ("difference", "fast"),
            ("difference", "graph"),
            ("difference", "eager"),
        ),
        "torch": (("forward", "eager"), ("reverse", "eager"), ("difference", "eager")),
    }[keras.backend.backend()]


def ways_to_compile():
    """The modes among them."""
    return list(dict.fromkeys(mode for _, mode in ways_to_differentiate()))


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


def gauss_newton_product(outputs, loss, values, vectors, method="forward"):
    """Jᵀ H J v: `outputs` maps a list of arrays to a list of arrays with Jacobian J, `loss` those
    to one number with Hessian H. Symmetric; positive semi-definite where the loss is convex in
    the outputs.

    Args:
        method: `"forward"` over reverse, `"reverse"` over reverse, which layers with a gradient of
            their own may have where they lack the first, or the `"difference"` of two gradients,
            which asks for no second derivative (float32: three digits).
    """
    if method == "difference":
        predictions = outputs(values)
        tangents = _difference(outputs, values, vectors)
        curved = hessian_product(loss, predictions, tangents, method)
        return gradient(lambda values: _inner(outputs(values), curved), values)
    if keras.backend.backend() == "tensorflow":
        return _gauss_newton_tensorflow(outputs, loss, values, vectors)
    jvp, vjp = _forward_and_reverse()
    if method == "forward":
        predictions, tangents = jvp(outputs, (values,), (vectors,))
    else:
        predictions = outputs(values)
        probe = [ops.zeros_like(p) for p in predictions]
        _, linear = vjp(lambda probe: vjp(outputs, values)[1](probe)[0], probe)  # Jᵀ p
        tangents = linear(vectors)[0]
    curved = hessian_product(loss, predictions, tangents, method)
    _, pullback = vjp(outputs, values)
    return list(pullback(curved)[0])


def hessian_product(function, values, vectors, method="forward"):
    """H v of a function of a list of arrays that returns one number."""
    if method == "difference":
        return _difference(lambda values: gradient(function, values), values, vectors)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with without_tensorflow_warnings(), tf.GradientTape() as tape:
            tape.watch(values)
            slopes = gradient(function, values)
        found = tape.gradient(slopes, values, vectors, unconnected_gradients="zero")
        return [tf.convert_to_tensor(g) for g in found]
    jvp, vjp = _forward_and_reverse()

    def slope(values):
        return vjp(function, values)[1](ops.ones((), "float32"))[0]

    if method == "forward":
        return list(jvp(slope, (values,), (vectors,))[1])
    return list(vjp(slope, values)[1](vectors)[0])


def _forward_and_reverse():
    if keras.backend.backend() == "jax":
        from jax import jvp, vjp
    else:
        from torch.func import jvp, vjp
    return jvp, vjp


def _difference(function, values, vectors):
    """The derivative of a function of a list of arrays along the vectors, from two of its values:
    a thousandth of the length of the values to each side."""
    length = ops.sqrt(_inner(vectors, vectors))
    step = 1e-3 * ops.sqrt(_inner(values, values) + 1e-6) / ops.maximum(length, 1e-30)
    sides = [
        function([θ + sign * step * v for θ, v in zip(values, vectors, strict=True)])
        for sign in (1.0, -1.0)
    ]
    return [(high - low) / (2.0 * step) for high, low in zip(*sides, strict=True)]


def _inner(one, other):
    return sum(ops.sum(a * b) for a, b in zip(one, other, strict=True))


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
        from torch.func import vjp
        from torch.func import vmap as torch_vmap

        # Recurrent layers draw masks of dropout also where they do not use them.
        vmap = functools.partial(torch_vmap, randomness="different")

    def one(example, rows):
        _, pullback = vjp(lambda values: _of_one_example(outputs, values, example), values)
        return vmap(lambda row: pullback(row)[0])(rows)

    with _torch_gradients():
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


def summed(function, arrays, shapes):
    """Σ_n function([a[n] for a in arrays]), one n after another: it takes the memory of one.

    Args:
        function: Maps a list of arrays to a list of float32 arrays.
        arrays: A list of arrays of the same length.
        shapes: Those of the results.
    """
    zeros = [ops.zeros(shape, "float32") for shape in shapes]

    def add(totals, rows):
        found = function(list(rows))
        return [total + x for total, x in zip(totals, found, strict=True)]

    backend = keras.backend.backend()
    if backend == "torch":
        return functools.reduce(add, zip(*arrays, strict=True), zeros)
    if backend == "jax":
        from jax import lax

        return lax.scan(lambda totals, rows: (add(totals, rows), None), zeros, arrays)[0]
    import tensorflow as tf

    return tf.foldl(add, arrays, initializer=zeros)


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


def _torch_gradients():
    if keras.backend.backend() == "torch":
        import torch

        return torch.enable_grad()
    return contextlib.nullcontext()


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
