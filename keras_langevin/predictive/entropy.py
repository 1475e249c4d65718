"""Entropies in nats and their parts; logarithms of averages. Pure functions in `keras.ops`."""

import math

from keras import ops


def minus_p_log_p(p):
    """-p log p with 0 log 0 = 0, never NaN."""
    return ops.where(p > 0, -p * ops.log(ops.where(p > 0, p, ops.ones_like(p))), 0.0)


def categorical_entropy(p, axis=-1):
    """Over the axis of the classes, which goes; 0 (certain) to log(classes)."""
    return ops.relu(ops.sum(minus_p_log_p(p), axis=axis))


def bernoulli_entropy(p):
    """Of each probability by itself, shape kept; 0 to log 2."""
    return ops.relu(minus_p_log_p(p) + minus_p_log_p(1 - p))


def entropy_parts(p, entropy):
    """Members' probabilities, shape `(members, ...)`, to three entropies of the average.

    `total` = H[mean p], `aleatoric` = mean H[p], and `epistemic`, their difference: the mutual
    information between the label and which member is right, 0 when all members agree.
    """
    total = entropy(ops.mean(p, axis=0))
    aleatoric = ops.mean(entropy(p), axis=0)
    return {"total": total, "aleatoric": aleatoric, "epistemic": ops.relu(total - aleatoric)}


def log_mean_exp(logarithms):
    """log of the mean over the first axis of exp(logarithms)."""
    return ops.logsumexp(logarithms, axis=0) - math.log(logarithms.shape[0])


def times_log(weights, logarithms):
    """weights * logarithms where 0 * -inf = 0."""
    some = weights != 0
    return ops.where(some, weights * ops.where(some, logarithms, 0.0), 0.0)
