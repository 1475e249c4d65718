"""The whole Fisher matrix, for models of up to a few thousand weights."""

import math

import keras
import numpy as np
from keras import ops

from keras_langevin import autodiff
from keras_langevin.arguments import integer
from keras_langevin.preconditioners.fisher import Fisher
from keras_langevin.predictive import scores

MEMORY_LIMIT = 2**31  # bytes; more is refused
_CHUNK = 2**24  # numbers in the Jacobians that are held at once


@keras.saving.register_keras_serializable(package="keras_langevin")
class DenseFisher(Fisher):
    """Every entry of F, from the Jacobians of the examples' outputs.

    With `fisher="model"` the expectation over labels is exact, (1/n) Σ_i J_iᵀ Λ_i J_i with the
    Fisher information Λ of the outputs in closed form, or an average over `num_draws` draws an
    example, fixed once, where a model has many outputs.

    Args:
        num_draws: None for the exact expectation, or how many draws an example.
        fisher, damping, num_examples, output, noise_stddev: See `Fisher`.

    Memory: 12 d² bytes for d weights, and time of order n d² + d³ a step.
    """

    def __init__(self, num_draws=None, **kwargs):
        super().__init__(**kwargs)
        if num_draws is not None:
            num_draws = integer("num_draws", num_draws, at_least=1)
        self.num_draws = num_draws

    def prepare(self):
        if self.fisher == "model" and keras.tree.is_nested(self.families):
            raise ValueError(
                "A dense Fisher matrix needs a model with one output. Received: "
                f"{len(keras.tree.flatten(self.families))} outputs. Use "
                'structure="quasi_diagonal".'
            )

    def build(self, layout, add_variable):
        super().build(layout, add_variable)
        self.sizes = [math.prod(shape) for shape in layout.shapes]
        words = ("A dense Fisher matrix", 'structure="quasi_diagonal"')
        check_memory(layout.num_weights, 3, 2, words)

    def evaluate(self, values, data):
        identity = ops.eye(self.layout.num_weights, dtype=values[0].dtype)
        matrix = self.matrix(values, data) + self.damping * identity
        return matrix, ops.cholesky(matrix)

    def matrix(self, values, data):
        """F, shape (d, d)."""
        total, count = 0.0, keras.tree.flatten(data)[0].shape[0]
        size = max(_CHUNK // (self._num_rows(values, data) * self.layout.num_weights), 1)
        for start in range(0, count, size):
            factor = self._factor(values, _rows(data, start, min(start + size, count)), start)
            total = total + ops.matmul(ops.transpose(factor), factor)
        return total / count

    def _num_rows(self, values, data):
        if self.fisher == "empirical":
            return 1
        return self.num_draws or math.prod(self.outputs(values, _rows(data, 0, 1)).shape)

    def _factor(self, values, data, seed):
        """Rows r with Σ r rᵀ = n F, shape (rows, d)."""
        x = data if self.fisher == "model" else data[0]
        outputs = self.outputs(values, x)
        if self.fisher == "empirical":
            count = outputs.shape[0]
            cotangents = autodiff.gradient(
                lambda flat: count * self.loss(x, data[1], flat[0]), [outputs]
            )
            cotangents = ops.expand_dims(cotangents[0], 0)
        else:
            cotangents = scores(self.families, outputs, self._draws(outputs, seed))
        cotangents = ops.reshape(cotangents, (*cotangents.shape[:2], -1))
        parts = autodiff.pulled_back(
            lambda values, x: _flat(self.outputs(values, x)),
            values,
            x,
            ops.moveaxis(cotangents, 0, 1),
        )
        flat = [ops.reshape(p, (-1, n)) for p, n in zip(parts, self.sizes, strict=True)]
        return ops.concatenate(flat, axis=1)

    def _draws(self, outputs, seed):
        """Draws in front of the axes of the outputs; the sum of their outer products is the
        identity, exactly or in expectation."""
        shape = tuple(outputs.shape[1:])
        if self.num_draws is None:
            draws = np.eye(math.prod(shape)).reshape(-1, 1, *shape)
            draws = np.broadcast_to(draws, (len(draws), *outputs.shape))
        else:
            generator = np.random.default_rng(seed)
            signs = 2 * generator.integers(0, 2, (self.num_draws, *outputs.shape)) - 1
            draws = signs / self.num_draws**0.5
        return ops.cast(ops.convert_to_tensor(draws), outputs.dtype)

    # ------------------------------------------------------------------ lists and vectors

    def vector(self, arrays):
        return ops.concatenate([ops.reshape(a, (-1,)) for a in arrays])

    def arrays(self, vector):
        ends = np.cumsum(self.sizes)[:-1].tolist()
        parts = ops.split(vector, ends) if ends else [vector]  # TensorFlow splits into 2 or more
        return [ops.reshape(p, s) for p, s in zip(parts, self.layout.shapes, strict=True)]

    def solve(self, metric, vectors):
        half = _triangular(metric[1], self.vector(vectors))
        return self.arrays(_triangular(ops.transpose(metric[1]), half, lower=False))

    def sample(self, metric, normals):
        return self.arrays(_triangular(ops.transpose(metric[1]), self.vector(normals), lower=False))

    def whiten(self, metric, vectors):
        return self.arrays(_triangular(metric[1], self.vector(vectors)))

    def multiply(self, metric, vectors):
        return self.arrays(ops.matmul(metric[0], self.vector(vectors)))

    def log_volume(self, metric, other):
        return 2.0 * ops.sum(ops.log(ops.diagonal(other[1]) / ops.diagonal(metric[1])))

    def get_config(self):
        return {"num_draws": self.num_draws, **super().get_config()}


def _rows(data, start, stop):
    return keras.tree.map_structure(lambda a: a[start:stop], data)


def _flat(outputs):
    return ops.reshape(outputs, (outputs.shape[0], -1))


def _triangular(matrix, vector, lower=True):
    solution = ops.solve_triangular(matrix, ops.expand_dims(vector, -1), lower=lower)
    return ops.squeeze(solution, -1)


def check_memory(num_weights, copies, power, instead):
    """Refuses `copies` arrays of d^power numbers that would not fit."""
    size = 4 * copies * num_weights**power
    if size > MEMORY_LIMIT:
        raise ValueError(
            f"{instead[0]} would take about {size / 2**30:.1f} GiB for this model, expected at "
            f"most {MEMORY_LIMIT / 2**30:.0f}. Received: {num_weights:,} weights. Use {instead[1]}."
        )
