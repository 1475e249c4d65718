"""Curvature in units of the metric against dense float64 matrices, and the limits it sets."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_langevin as kl
from keras_langevin.keras_internals import inner_optimizer
from keras_langevin.learning_rate.curvature import CurvatureProbe
from keras_langevin.learning_rate.warm_up import split
from keras_langevin.weights import parameters

SAMPLERS = [kl.SGLD, kl.RMSPropLangevin, kl.DOPLangevin, kl.QDOPLangevin]


def trained(sampler, jit=False, **arguments):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2)]
    )
    arguments = {"num_data": 60, "prior": kl.priors.Normal(2.0), "seed": 0, **arguments}
    model.compile(
        optimizer=sampler(1e-2, **arguments),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    return model


def data(size=60):
    generator = np.random.default_rng(1)
    x = generator.normal([3.0, 0.0, -1.0], size=(size, 3))
    return x.astype("float32"), (x[:, 0] + generator.normal(size=size) > 3).astype("int32")


def jacobian_and_probabilities(weights, x):
    """By central differences of a float64 NumPy network, `(examples, classes, weights)`."""
    shapes = [w.shape for w in weights]
    flat = np.concatenate([w.ravel() for w in weights]).astype("float64")
    x = x.astype("float64")

    def logits(flat):
        parts, start = [], 0
        for shape in shapes:
            size = int(np.prod(shape))
            parts.append(flat[start : start + size].reshape(shape))
            start += size
        return np.tanh(x @ parts[0] + parts[1]) @ parts[2] + parts[3]

    step = 1e-5
    columns = [
        (logits(flat + step * e) - logits(flat - step * e)) / (2 * step) for e in np.eye(len(flat))
    ]
    p = np.exp(logits(flat))
    return np.stack(columns, axis=-1), p / p.sum(axis=1, keepdims=True)


def dense_gauss_newton(weights, x, num_data, stddev):
    """Σ_n J_nᵀ H_n J_n / B + I / (N σ²)."""
    jacobian, p = jacobian_and_probabilities(weights, x)
    hessian = p[:, :, None] * np.eye(2) - p[:, :, None] * p[:, None, :]
    curved = np.einsum("nai,nab,nbj->ij", jacobian, hessian, jacobian) / len(x)
    return curved + np.eye(len(curved)) / (num_data * stddev**2)


def dense_inverse_metric(model):
    """C, column by column."""
    preconditioner = inner_optimizer(model.optimizer).preconditioner
    shapes = [tuple(v.shape) for v in parameters(model)]
    size = sum(int(np.prod(s)) for s in shapes)
    columns = []
    for unit in np.eye(size, dtype="float32"):
        parts, start = [], 0
        for shape in shapes:
            stop = start + int(np.prod(shape))
            parts.append(ops.convert_to_tensor(unit[start:stop].reshape(shape)))
            start = stop
        solved = preconditioner.solve(preconditioner.current(), parts)
        columns.append(np.concatenate([ops.convert_to_numpy(s).ravel() for s in solved]))
    return np.stack(columns, axis=1).astype("float64")


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.__name__)
def test_eigenvalues_are_those_of_the_dense_matrix(sampler):
    model, (x, y) = trained(sampler), data()
    kl.warm_up_metric(model, x, y, batch_size=20)
    weights = [ops.convert_to_numpy(v) for v in parameters(model)]
    curved = dense_gauss_newton(weights, x, num_data=60, stddev=2.0)
    expected = np.sort(np.linalg.eigvals(dense_inverse_metric(model) @ curved).real)
    found = kl.diagnostics.curvature(model, x, y, num_steps=len(expected))
    np.testing.assert_allclose(found.largest, expected[-1], rtol=1e-3)
    assert found.smallest >= expected[0] * 0.99
    assert found.stability_limit == pytest.approx(2 / found.largest)
    quick = kl.diagnostics.curvature(model, x, y, num_steps=8)
    np.testing.assert_allclose(quick.largest, expected[-1], rtol=0.02)
    assert quick.largest <= expected[-1] * 1.001


def test_weighted_examples_count_by_their_weight():
    model, (x, y) = trained(kl.SGLD), data()
    kl.warm_up_metric(model, x, y)
    once = kl.diagnostics.curvature(model, x[:20], y[:20])
    weights = np.repeat([1.0, 0.0], [20, 40]).astype("float32")
    part = kl.diagnostics.curvature(model, x, y, sample_weight=weights)
    # Keras divides by the number of examples, the prior's share stays.
    prior = 1 / (60 * 4.0)
    assert part.largest - prior == pytest.approx((once.largest - prior) / 3, rel=1e-3)


@pytest.mark.parametrize("share", [0.9, 1.15])
def test_the_stability_limit_is_where_steps_begin_to_grow(share):
    """Full-batch gradient descent on linear regression, whose curvature does not move."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 5)).astype("float32") * [1, 2, 3, 1, 1] + 1
    y = (x @ np.ones((5, 1)) + generator.normal(size=(200, 1))).astype("float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    optimizer = kl.SGLD(0.0, num_data=200, temperature=0.0)
    model.compile(optimizer=optimizer, loss=kl.losses.GaussianNLL(1.0))
    limit = kl.diagnostics.step_size(model, x, y, batch_size=200).stability_limit
    optimizer.learning_rate = share * limit
    losses = model.fit(x, y, batch_size=200, epochs=80, verbose=0).history["loss"]
    assert (losses[-1] > losses[0]) == (share > 1)


def test_gradient_noise_is_that_of_the_per_example_gradients():
    model, (x, y) = trained(kl.QDOPLangevin), data(4000)
    kl.warm_up_metric(model, x, y, batch_size=100)
    weights = [ops.convert_to_numpy(v) for v in parameters(model)]
    jacobian, p = jacobian_and_probabilities(weights, x)
    gradients = np.einsum("nai,na->ni", jacobian, p - np.eye(2)[y])
    expected = np.trace(dense_inverse_metric(model) @ np.cov(gradients.T)) / gradients.shape[1]
    batches = split(x, y, None, batch_size=50, count=80)
    found = CurvatureProbe(model).gradient_noise(batches)
    assert found == pytest.approx(expected, rel=0.15)  # 79 differences of 26 weights
    limit = kl.diagnostics.step_size(model, x, y, batch_size=50)
    assert limit.noise_limit == pytest.approx(2 * 50 / (60 * limit.gradient_noise))


def test_a_rate_above_a_limit_is_named():
    model, (x, y) = trained(kl.QDOPLangevin), data()
    kl.warm_up_metric(model, x, y, batch_size=20)
    found = kl.diagnostics.step_size(model, x, y, batch_size=20)
    assert not found.problems(found.recommended)
    model.optimizer.learning_rate = 1.1 * found.stability_limit
    with pytest.warns(UserWarning, match="above the stability limit"):
        kl.diagnostics.step_size(model, x, y, batch_size=20)
    assert "minibatches of 20 add" in found.problems(2.1 * found.noise_limit)[-1]


def test_what_cannot_be_measured_is_refused():
    model, (x, y) = trained(kl.QDOPLangevin), data()
    with pytest.raises(ValueError, match="seen no minibatch"):
        kl.diagnostics.curvature(model, x, y)
    with pytest.raises(ValueError, match="There must be data"):
        kl.diagnostics.step_size(model, x[:0], y[:0])
    model.compile(optimizer="sgd", loss="mse")
    with pytest.raises(ValueError, match="compiled with an optimizer of keras_langevin"):
        kl.diagnostics.step_size(model, x, y)


def test_a_tracked_model_is_left_as_it_was():
    model, (x, y) = trained(kl.QDOPLangevin), data()
    before = [ops.convert_to_numpy(v) for v in model.get_weights()]
    kl.warm_up_metric(model, x, y, batch_size=20)
    kl.diagnostics.step_size(model, x, y, batch_size=20)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == 0
    model.fit(x, y, batch_size=20, epochs=1, verbose=0)
    changed = [np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert all(changed)
