"""How curved the posterior is in units of the metric: what limits the learning rate."""

import dataclasses
import itertools
import math

import keras
import numpy as np
from keras import ops

from keras_langevin.arguments import integer, seed_number
from keras_langevin.autodiff import compiled, gauss_newton_product, gradient
from keras_langevin.optimizers.snapshots import sampler_of
from keras_langevin.statistics.check_fit import check_fit
from keras_langevin.statistics.track import untracked
from keras_langevin.training_data import training_data
from keras_langevin.weights import parameters


@dataclasses.dataclass(frozen=True)
class Curvature:
    """Eigenvalues of C H, H the curvature of U/N: per unit of learning rate, what a step takes
    of the way to the mode along each direction of the weights.

    Attributes:
        eigenvalues: Ritz values, ascending. The largest is close to that of C H, and never
            above it; the smallest is an upper bound of the smallest.
    """

    eigenvalues: np.ndarray

    @property
    def largest(self) -> float:
        return float(self.eigenvalues[-1])

    @property
    def smallest(self) -> float:
        return float(self.eigenvalues[0])

    @property
    def condition_number(self) -> float:
        """Largest over smallest: about how many steps of the largest stable size the slowest
        direction takes."""
        return self.largest / self.smallest

    @property
    def stability_limit(self) -> float:
        """2 / largest: with a larger learning rate the steps grow without bound."""
        return stability_limit(self.largest)


def stability_limit(largest: float) -> float:
    """2 / largest; infinite where no direction curves upward."""
    return 2.0 / largest if largest > 0 else math.inf


def curvature(model, x, y, sample_weight=None, num_steps=30, seed=0) -> Curvature:
    """Extreme eigenvalues of C H at the model's present weights, by Lanczos' method.

    C is the inverse of the metric that the optimizer holds, H the Gauss-Newton matrix of the mean
    loss on these data (layers in inference mode) plus the prior's precision over `num_data`. The
    metric must have been filled, by training or by `kl.warm_up_metric`.

    Args:
        model: Built, and compiled with an optimizer of this package.
        x, y, sample_weight: The probe batch, as for `fit`, arrays or nested arrays.
        num_steps: Products with H, each about three times the work of a gradient. 10 settle
            the largest eigenvalue to a per cent or so, the smallest takes many more.
        seed: Of the random first direction.

    Raises:
        ValueError: If the model has another optimizer, its metric is empty, or the data do not
            fit it.
        FloatingPointError: If the curvature is NaN or infinite.

    Example:

    >>> found = kl.diagnostics.curvature(model, x[:500], y[:500])
    >>> found.largest, found.condition_number, found.stability_limit
    """
    optimizer = sampler_of(model)
    if not optimizer.built or not optimizer.preconditioner.is_filled:
        raise ValueError(
            "The optimizer's metric must have been filled. Received: one that has seen no "
            "minibatch. Train first, or call `kl.warm_up_metric(model, x, y, batch_size)`."
        )
    num_steps = integer("num_steps", num_steps, at_least=1)
    seed = seed_number("seed", seed)
    data = training_data(x, y, sample_weight)
    check_fit(model, data)
    return CurvatureProbe(model).measure(*data, num_steps=num_steps, seed=seed)


class CurvatureProbe:
    """Measures curvature and gradient noise on batches of one shape; compiled once.

    Args:
        model: A compiled, built model whose optimizer is one of this package's, built.
    """

    def __init__(self, model):
        self.model = model
        self.optimizer = sampler_of(model)
        self.product = compiled(self._product)
        self.slope = compiled(self._slope)

    def measure(self, x, y, sample_weight=None, num_steps=20, tolerance=0.0, seed=0) -> Curvature:
        """Lanczos' method for C H, self-adjoint in the inner product of the metric.

        H is the Gauss-Newton matrix of the mean loss on this batch (layers in inference mode)
        plus the prior's precision over `num_data`; `num_steps` products with it are made,
        fewer when the largest eigenvalue moves by less than `tolerance`, relative.
        """
        preconditioner = self.optimizer.preconditioner
        metric = preconditioner.current()
        data = _arrays((x, y, sample_weight))
        weights = self._weights()
        generator = np.random.default_rng(seed)
        dual = [generator.standard_normal(w.shape, "float32") for w in weights[0]]
        dual, vector = _normalised(_arrays(dual), preconditioner, metric)[:2]
        before, beta, diagonal, off_diagonal, largest = None, 0.0, [], [], 0.0
        for _ in range(min(num_steps, sum(int(np.prod(w.shape)) for w in weights[0]))):
            curved = self.product(*weights, vector, data)
            diagonal.append(checked_finite("curvature", _inner(curved, vector)))
            values = _ritz_values(diagonal, off_diagonal)
            if abs(values[-1] - largest) <= tolerance * values[-1]:
                break
            largest = values[-1]
            curved = [h - diagonal[-1] * d for h, d in zip(curved, dual, strict=True)]
            if before is not None:
                curved = [h - beta * b for h, b in zip(curved, before, strict=True)]
            before = dual
            dual, vector, beta = _normalised(curved, preconditioner, metric)
            if not beta > 1e-6 * largest:
                break  # the space is exhausted
            off_diagonal.append(beta)
        return Curvature(values)

    def gradient_noise(self, batches) -> float:
        """tr(C V) / d: V is the covariance of one example's gradient, d the number of weights.
        From the differences of the batches' gradients; 0 when there is one batch."""
        preconditioner = self.optimizer.preconditioner
        metric = preconditioner.current()
        slopes = [self.slope(*self._weights(), _arrays(batch)) for batch in batches]
        lengths = []
        for one, other in itertools.pairwise(slopes):
            difference = [a - b for a, b in zip(one, other, strict=True)]
            lengths.append(_inner(difference, preconditioner.solve(metric, difference)) / 2)
        num_weights = sum(int(np.prod(g.shape)) for g in slopes[0])
        examples = len(next(a for a in keras.tree.flatten(batches[0]) if a is not None))
        return float(np.mean(lengths)) * examples / num_weights if lengths else 0.0

    def _weights(self):
        chosen = parameters(self.model)
        fixed = self.model.non_trainable_variables
        return [[ops.convert_to_tensor(v) for v in group] for group in (chosen, fixed)]

    def _product(self, values, fixed, vectors, data):
        precisions = self.optimizer.preconditioner.layout.prior_precisions
        with untracked(self.model):
            outputs, loss = self._parts(fixed, data)
            curved = gauss_newton_product(outputs, loss, _float32(values), vectors)
        return [h + p * v for h, p, v in zip(curved, precisions, vectors, strict=True)]

    def _slope(self, values, fixed, data):
        with untracked(self.model):
            outputs, loss = self._parts(fixed, data)
            return gradient(lambda values: loss(outputs(values)), _float32(values))

    def _parts(self, fixed, data):
        """The mean loss as loss(outputs(weights)), both of lists of arrays."""
        x, y, sample_weight = data
        dtypes = [v.dtype for v in parameters(self.model)]
        structure = None

        def outputs(values):
            nonlocal structure
            values = [ops.cast(θ, dtype) for θ, dtype in zip(values, dtypes, strict=True)]
            structure, _ = self.model.stateless_call(values, fixed, x, training=False)
            return _float32(keras.tree.flatten(structure))

        def loss(predictions):
            predictions = keras.tree.pack_sequence_as(structure, predictions)
            with keras.StatelessScope():
                value = self.model.compute_loss(x, y, predictions, sample_weight, training=False)
            return ops.cast(value, "float32")

        return outputs, loss


def checked_finite(what, values):
    """Numbers that have to do with the loss."""
    if not np.isfinite(values).all():
        raise FloatingPointError(
            f"The {what} of the loss must be finite. Received: NaN or infinity at the present "
            "weights. Look for NaN or infinity in the data, and for weights that have diverged."
        )
    return values


def _float32(arrays):
    return [ops.cast(a, "float32") for a in arrays]


def _arrays(structure):
    return keras.tree.map_structure(
        lambda a: None if a is None else ops.convert_to_tensor(a), structure
    )


def _normalised(dual, preconditioner, metric):
    """(w, C w, its length) with ⟨w, C w⟩ = 1."""
    vector = preconditioner.solve(metric, dual)
    length = max(_inner(dual, vector), 0.0) ** 0.5
    scale = 1.0 / max(length, 1e-30)
    return [w * scale for w in dual], [v * scale for v in vector], length


def _inner(a, b):
    return float(sum(float(ops.sum(x * y)) for x, y in zip(a, b, strict=True)))


def _ritz_values(diagonal, off_diagonal):
    tridiagonal = np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    return np.linalg.eigvalsh(tridiagonal)
