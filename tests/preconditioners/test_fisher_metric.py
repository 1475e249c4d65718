"""The Fisher matrix, dense and structured, against NumPy."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from targets.natural_gradient_cases import CLASSES, LOGITS, flat, prepared, small_network, values_of

import keras_langevin as kl
from keras_langevin.preconditioners import dense_fisher


def output_jacobians(model, x, h=1e-3):
    """(examples, outputs, weights) by central differences of `model.predict`."""
    weights = [w.astype("float64") for w in model.get_weights()]
    columns = []
    for position, weight in enumerate(weights):
        for index in np.ndindex(weight.shape):
            ends = []
            for sign in (1, -1):
                moved = [w.copy() for w in weights]
                moved[position][index] += sign * h
                model.set_weights(moved)
                outputs = ops.convert_to_numpy(model(x)).astype("float64")
                ends.append(outputs.reshape(len(x), -1))
            columns.append((ends[0] - ends[1]) / (2 * h))
    model.set_weights(weights)
    return np.stack(columns, axis=-1)


def softmax_information(outputs):
    p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    return np.einsum("ij,jk->ijk", p, np.eye(p.shape[1])) - p[:, :, None] * p[:, None]


def bernoulli_information(outputs):
    p = 1 / (1 + np.exp(-outputs))
    return np.einsum("ij,jk->ijk", p * (1 - p), np.eye(p.shape[1])) / p.shape[1]


def heteroscedastic_information(outputs):
    mean, log_scale = np.split(outputs, 2, axis=1)
    diagonal = np.concatenate([np.exp(-2 * log_scale), 2 + 0 * mean], axis=1)
    return np.einsum("ij,jk->ijk", diagonal, np.eye(outputs.shape[1]))


def constant_information(value):
    return lambda outputs: np.broadcast_to(
        value * np.eye(outputs.shape[1]), (len(outputs), *[outputs.shape[1]] * 2)
    )


INFORMATION = {
    "softmax": (CLASSES, 3, softmax_information),
    "bernoulli": (LOGITS, 2, bernoulli_information),
    "heteroscedastic": (kl.losses.GaussianNLL(), 2, heteroscedastic_information),
    "gaussian": (kl.losses.GaussianNLL(0.5), 2, constant_information(4.0)),
    "mean_squared_error": ("mse", 2, constant_information(1.0)),
}


def dense_reference(model, x, information):
    outputs = ops.convert_to_numpy(model(x)).astype("float64")
    jacobians = output_jacobians(model, x)
    return np.einsum("ioa,iop,ipb->ab", jacobians, information(outputs), jacobians) / len(x)


@pytest.mark.parametrize("name", INFORMATION)
def test_dense_fisher_is_that_of_the_likelihood(name, monkeypatch):
    loss, outputs, information = INFORMATION[name]
    model = small_network(outputs)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    metric = prepared(kl.NGD(0.1, num_data=20, batch_size=5, damping=0.0), model, x, loss=loss)
    expected = dense_reference(model, x, information)
    value = ops.convert_to_numpy(metric.matrix(values_of(model), metric.tensors()))
    np.testing.assert_allclose(value, expected, atol=2e-4 * np.abs(expected).max())
    monkeypatch.setattr(dense_fisher, "_CHUNK", 2 * outputs * len(value))
    chunked = ops.convert_to_numpy(metric.matrix(values_of(model), metric.tensors()))
    np.testing.assert_allclose(chunked, value, atol=1e-5 * np.abs(value).max())


def test_draws_average_to_the_exact_fisher():
    model = small_network(3)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    x = np.tile(x, (100, 1))
    exact = prepared(kl.NGD(0.1, num_data=20, batch_size=5), model, x, loss=CLASSES)
    exact = ops.convert_to_numpy(exact.matrix(values_of(model), exact.tensors()))
    drawn = prepared(kl.NGD(0.1, num_data=20, batch_size=5, num_draws=20), model, x, loss=CLASSES)
    drawn = ops.convert_to_numpy(drawn.matrix(values_of(model), drawn.tensors()))
    np.testing.assert_allclose(drawn, exact, atol=0.05 * np.abs(exact).max())


def test_the_empirical_fisher_is_that_of_the_labels():
    model = small_network(3)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)).astype("float32"), rng.integers(0, 3, 6)
    optimizer = kl.NGD(0.1, num_data=20, batch_size=5, fisher="empirical")
    metric = prepared(optimizer, model, x, y, loss=CLASSES)
    outputs = ops.convert_to_numpy(model(x)).astype("float64")
    slopes = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True) - np.eye(3)[y]
    gradients = np.einsum("io,ioa->ia", slopes, output_jacobians(model, x))
    expected = gradients.T @ gradients / len(x)
    value = ops.convert_to_numpy(metric.matrix(values_of(model), metric.tensors()))
    np.testing.assert_allclose(value, expected, atol=2e-4 * np.abs(expected).max())


def zero_statistics(metric_of):
    """Of no gradients at all: the metric is then δ I."""
    return [ops.zeros(v.shape) for v in metric_of.tracking.variables]


@pytest.mark.parametrize("structure", ["quasi_diagonal", "diagonal"])
def test_structured_fisher_keeps_its_entries(structure):
    """Of a single layer of yes-or-no outputs, for which one draw of a sign is exact; inputs far
    from zero."""
    rng = np.random.default_rng(0)
    x = rng.normal([3.0, -2.0, 0.1], [1.0, 0.1, 2.0], size=(9, 3)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, bias_initializer="normal")])
    delta = 0.01
    optimizer = kl.NGD(0.1, num_data=20, batch_size=5, structure=structure, damping=delta)
    metric_of = prepared(optimizer, model, x)
    metric = metric_of.at(values_of(model))
    p = 1 / (1 + np.exp(-ops.convert_to_numpy(model(x)).astype("float64")))
    design = np.c_[x, np.ones(9)].astype("float64")
    vectors = [rng.normal(size=(3, 2)), rng.normal(size=2)]
    tensors = [ops.convert_to_tensor(v.astype("float32")) for v in vectors]
    product = [ops.convert_to_numpy(a) for a in metric_of.multiply(metric, tensors)]
    log_determinant = 0.0
    for unit in range(2):
        fisher = (design.T * (p * (1 - p) / 2)[:, unit]) @ design / 9 + delta * np.eye(4)
        matrix = np.diag(np.diag(fisher))
        if structure == "quasi_diagonal":
            pairing = fisher[3, :3]
            matrix[:3, :3] = np.outer(pairing, pairing) / fisher[3, 3]
            np.fill_diagonal(matrix, np.diag(fisher))
            matrix[3, :3] = matrix[:3, 3] = pairing
        expected = matrix @ np.append(vectors[0][:, unit], vectors[1][unit])
        np.testing.assert_allclose(product[0][:, unit], expected[:3], rtol=1e-4)
        np.testing.assert_allclose(product[1][unit], expected[3], rtol=1e-4)
        log_determinant += np.linalg.slogdet(matrix)[1]
    identity = metric_of.from_statistics(zero_statistics(metric_of))
    volume = float(metric_of.log_volume(identity, metric))
    assert volume == pytest.approx(log_determinant - 8 * np.log(delta), abs=1e-3)


@pytest.mark.parametrize("structure", ["dense", "quasi_diagonal", "diagonal"])
def test_solve_undoes_multiply_and_noise_has_the_inverse_as_covariance(structure):
    model = small_network(2, layers.Dense(2, use_bias=False))
    x = np.random.default_rng(0).normal(size=(30, 3)).astype("float32")
    optimizer = kl.NGD(0.1, num_data=40, batch_size=5, structure=structure)
    metric_of = prepared(optimizer, model, x)
    metric = metric_of.at(values_of(model))
    shapes = metric_of.layout.shapes
    sizes = [int(np.prod(s)) for s in shapes]

    def matrix(function):
        columns = []
        for unit in np.eye(sum(sizes), dtype="float32"):
            parts = np.split(unit, np.cumsum(sizes)[:-1])
            arrays = [
                ops.convert_to_tensor(p.reshape(s)) for p, s in zip(parts, shapes, strict=True)
            ]
            columns.append(flat(function(metric, arrays)))
        return np.stack(columns, axis=1)

    inverse, factor = matrix(metric_of.solve), matrix(metric_of.sample)
    product = inverse @ matrix(metric_of.multiply)
    np.testing.assert_allclose(product, np.eye(sum(sizes)), atol=1e-4)
    np.testing.assert_allclose(factor @ factor.T, inverse, atol=1e-4 * inverse.max())
