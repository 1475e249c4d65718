"""Metrics with one number for every weight: what solving and sampling share."""

import math

from keras import ops

from keras_langevin.arithmetic import scaled, with_product
from keras_langevin.preconditioners.preconditioner import Preconditioner


class Diagonal(Preconditioner):
    """A metric without pairs: a list with an M > 0 for each parameter, an array that broadcasts
    against it (a single number, say), or None for M = 1.

    Mix it into a class that says what M is, such as one of `AveragingPreconditioner`.
    """

    def solve(self, metric, vectors):
        return [x if m is None else x / m for m, x in zip(metric, vectors, strict=True)]

    def sample(self, metric, normals):
        return [x if m is None else x * ops.rsqrt(m) for m, x in zip(metric, normals, strict=True)]

    def displacement(self, metric, slopes, rate, normals, noise_scale):
        roots = [None if m is None else ops.rsqrt(m) for m in metric]
        return moves(roots, slopes, rate, normals, noise_scale)

    def whiten(self, metric, vectors):
        return self.sample(metric, vectors)

    def multiply(self, metric, vectors):
        return [x if m is None else x * m for m, x in zip(metric, vectors, strict=True)]

    def log_volume(self, metric, other):
        total = 0.0
        for before, after, shape in zip(metric, other, self.layout.shapes, strict=True):
            if before is not None:
                copies = math.prod(shape) / math.prod(before.shape)
                total = total + copies * ops.sum(ops.log(after / before))
        return total


def moves(roots, slopes, rate, normals, noise_scale):
    """−η C g + s L ξ for L = diag(`roots`), None for L = 1; without noise where `normals` is None.
    The normals are used up."""
    normals = [None] * len(slopes) if normals is None else normals
    whitened = [g if root is None else g * root for root, g in zip(roots, slopes, strict=True)]
    return [
        move(root, w, rate, normal, noise_scale)
        for root, w, normal in zip(roots, whitened, normals, strict=True)
    ]


def move(root, whitened, rate, normal, noise_scale):
    """L (−η w + s ξ) for one parameter, where w = Lᵀ g; ξ is used up."""
    if normal is None:
        step = -rate * whitened
    else:
        step = with_product(scaled(normal, noise_scale), -rate, whitened)
    return step if root is None else scaled(step, root)
