"""How curved the posterior is in units of the metric: what limits the learning rate."""

import contextlib
import dataclasses
import functools
import itertools
import math

import numpy as np
from keras import ops

from keras_langevin.arguments import integer, seed_number
from keras_langevin.autodiff import (
    FirstThatWorks,
    compiled,
    gauss_newton_product,
    gradient,
    hessian_product,
    ways_to_compile,
    ways_to_differentiate,
)
from keras_langevin.model_loss import ModelLoss
from keras_langevin.optimizers.snapshots import sampler_of
from keras_langevin.statistics.check_fit import check_fit
from keras_langevin.statistics.track import untracked
from keras_langevin.training_data import num_examples, tensors, training_data
from keras_langevin.weights import parameters


@dataclasses.dataclass(frozen=True)
class Curvature:
    """Eigenvalues of C H, H the curvature of U/N: per unit of learning rate, what a step takes
    of the way to the mode along each direction of the weights.

    Attributes:
        eigenvalues: Ritz values, ascending. The largest is close to that of C H, and never
            above it; the smallest is an upper bound of the smallest.
        shares: Of the weights' directions that each of them stands for: Lanczos' quadrature of
            the spectrum, from one random direction.
    """

    eigenvalues: np.ndarray
    shares: np.ndarray

    @property
    def largest(self) -> float:
        return float(self.eigenvalues[-1])

    @property
    def smallest(self) -> float:
        return float(self.eigenvalues[0])

    @property
    def median(self) -> float:
        """Half of the directions curve less, as far as one random direction tells."""
        return float(self.eigenvalues[np.searchsorted(np.cumsum(self.shares), 0.5)])

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
    loss on these data (layers in inference mode) plus the prior's precision over `num_data`, and
    the whole curvature of what regularizers and `add_loss` add. A derivative that the backend
    lacks is taken by finite differences. The metric must have been filled, by training or by
    `kl.warm_up_metric`.

    Args:
        model: Built, and compiled with an optimizer of this package.
        x, y, sample_weight: The probe batch, as for `fit`, arrays or nested arrays.
        num_steps: Products with H, each about three times the work of a gradient. 10 settle
            the largest eigenvalue to a per cent or so, the smallest takes many more.
        seed: Of the random first direction.

    Raises:
        ValueError: If the model has another optimizer, its metric is empty, the data do not fit
            it, or its loss is known to a `train_step` of its own alone.
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
        ways = ways_to_differentiate()
        self.step = FirstThatWorks(
            (compiled(functools.partial(self._step, method), mode) for method, mode in ways),
            is_told_by=1,
        )
        self.slope = FirstThatWorks(compiled(self._slope, mode) for mode in ways_to_compile())

    def measure(self, x, y, sample_weight=None, num_steps=20, tolerance=0.0, seed=0) -> Curvature:
        """Lanczos' method for C H, self-adjoint in the inner product of the metric.

        `num_steps` products with H are made, fewer when the largest eigenvalue moves by less
        than `tolerance`, relative.
        """
        preconditioner = self.optimizer.preconditioner
        metric = preconditioner.current()
        data = tensors((x, y, sample_weight))
        weights = self._weights()
        generator = np.random.default_rng(seed)
        dual = [generator.standard_normal(w.shape, "float32") for w in weights[0]]
        dual = tensors(dual)
        vector = preconditioner.solve(metric, dual)
        scale = max(float(_inner(dual, vector)), 1e-60) ** -0.5
        dual, vector = ([scale * a for a in arrays] for arrays in (dual, vector))
        before, beta = [ops.zeros_like(d) for d in dual], 0.0
        diagonal, off_diagonal, largest = [], [], 0.0
        for _ in range(min(num_steps, sum(int(np.prod(w.shape)) for w in weights[0]))):
            carried = dual, vector, before, ops.convert_to_tensor(beta, "float32")
            numbers, *arrays = self.step(*weights, data, metric, *carried)
            alpha, beta = ops.convert_to_numpy(numbers).tolist()
            diagonal.append(checked_finite("curvature", alpha))
            values, shares = _ritz_values(diagonal, off_diagonal)
            if abs(values[-1] - largest) <= tolerance * values[-1]:
                break
            largest = values[-1]
            if not beta > 1e-6 * largest:
                break  # the space is exhausted
            before, dual, vector = dual, arrays[: len(dual)], arrays[len(dual) :]
            off_diagonal.append(beta)
        return Curvature(values, shares)

    def gradient_noise(self, batches) -> float:
        """tr(C V) / d: V is the covariance of one example's gradient, d the number of weights.
        From the differences of the batches' gradients; 0 when there is one batch."""
        preconditioner = self.optimizer.preconditioner
        metric = preconditioner.current()
        slopes = [self.slope(*self._weights(), tensors(batch)) for batch in batches]
        lengths = []
        for one, other in itertools.pairwise(slopes):
            difference = [a - b for a, b in zip(one, other, strict=True)]
            length = _inner(difference, preconditioner.solve(metric, difference))
            lengths.append(float(length) / 2)
        num_weights = sum(int(np.prod(g.shape)) for g in slopes[0])
        examples = num_examples(batches[0])
        return float(np.mean(lengths)) * examples / num_weights if lengths else 0.0

    def _weights(self):
        chosen = parameters(self.model)
        fixed = self.model.non_trainable_variables
        return [[ops.convert_to_tensor(v) for v in group] for group in (chosen, fixed)]

    def _step(self, method, values, fixed, data, metric, dual, vector, before, beta):
        """From the basis vector w = `dual`, `vector` = C w and the one `before`: the entries of
        the tridiagonal matrix that they give, and after them the next w and C w."""
        curved = self._product(method, values, fixed, vector, data)
        alpha = _inner(curved, vector)
        triples = zip(curved, dual, before, strict=True)
        dual = [h - alpha * d - beta * b for h, d, b in triples]
        vector = self.optimizer.preconditioner.solve(metric, dual)
        length = ops.sqrt(ops.maximum(_inner(dual, vector), 0.0))
        scale = 1.0 / ops.maximum(length, 1e-30)
        return [ops.stack([alpha, length]), *(scale * a for a in [*dual, *vector])]

    def _product(self, method, values, fixed, vectors, data):
        precisions = self.optimizer.preconditioner.layout.prior_precisions
        values = [ops.cast(v, "float32") for v in values]
        with untracked(self.model):
            loss = self._loss(data)
            of_outputs, of_weights = loss.split([*values, *fixed])
            curved = gauss_newton_product(
                lambda values: loss.outputs([*values, *fixed]), of_outputs, values, vectors, method
            )
            if of_weights is not None:
                more = _second_derivative(
                    lambda v: of_weights([*v, *fixed]), values, vectors, method
                )
                curved = [a + b for a, b in zip(curved, more, strict=True)]
        return [h + p * v for h, p, v in zip(curved, precisions, vectors, strict=True)]

    def _slope(self, values, fixed, data):
        with untracked(self.model):
            loss = self._loss(data)
            values = [ops.cast(v, "float32") for v in values]
            return gradient(lambda values: loss.value([*values, *fixed]), values)

    def _loss(self, data):
        weights = [*parameters(self.model), *self.model.non_trainable_variables]
        return ModelLoss(self.model, weights, *data)


def _second_derivative(function, values, vectors, method):
    """Of what regularizers add, exactly where that can be had: a difference sees the kink of an L1
    norm at zero."""
    if method == "difference":
        with contextlib.suppress(Exception):  # whatever backends and layers may raise
            return hessian_product(function, values, vectors, "reverse")
    return hessian_product(function, values, vectors, method)


def checked_finite(what, values):
    """Numbers that have to do with the loss."""
    if not np.isfinite(values).all():
        raise FloatingPointError(
            f"The {what} of the loss must be finite. Received: NaN or infinity at the present "
            "weights. Look for NaN or infinity in the data, and for weights that have diverged."
        )
    return values


def _inner(a, b):
    return sum(ops.sum(x * y) for x, y in zip(a, b, strict=True))


def _ritz_values(diagonal, off_diagonal):
    """With the share of the first direction that lies along each."""
    tridiagonal = np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    values, vectors = np.linalg.eigh(tridiagonal)
    return values, vectors[0] ** 2
