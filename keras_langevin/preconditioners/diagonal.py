"""Metrics with one number for every weight: what solving and sampling share."""

from keras import ops

from keras_langevin.preconditioners.preconditioner import Preconditioner


class Diagonal(Preconditioner):
    """The metric is a list with an array M > 0 for each parameter; None stands for M = 1."""

    def solve(self, metric, vectors):
        return [x if m is None else x / m for m, x in zip(metric, vectors, strict=True)]

    def sample(self, metric, normals):
        return [x if m is None else x * ops.rsqrt(m) for m, x in zip(metric, normals, strict=True)]

    def whiten(self, metric, vectors):
        return self.sample(metric, vectors)

    def multiply(self, metric, vectors):
        return [x if m is None else x * m for m, x in zip(metric, vectors, strict=True)]

    def log_volume(self, metric, other):
        pairs = zip(metric, other, strict=True)
        return sum(ops.sum(ops.log(b / a)) for a, b in pairs if a is not None)
