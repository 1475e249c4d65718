"""Derivatives of a model's loss outside of `fit`, the one place where backends differ in them."""

import functools

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

    with tf.GradientTape(persistent=True) as tape:
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
