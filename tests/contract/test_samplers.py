"""What every sampler must do, one row of `cases.py` at a time."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED, LANGEVIN, MOMENTS_ALONE, WITH_VARIANTS, WITHOUT_DATA, each
from keras import ops
from targets.one_layer import SIGNS, NoLoss, dense, one_layer, run
from targets.restartable import restartable

import keras_langevin as kl

all_samplers = pytest.mark.parametrize("case", LANGEVIN, ids=[case.name for case in LANGEVIN])


@all_samplers
@pytest.mark.parametrize("temperature", [pytest.param(1.0, marks=pytest.mark.law), 0.2])
def test_noise_alone_has_the_stated_variance(case, temperature):
    """Without gradients an increment is noise minus η C (prior precision / N) θ."""
    eta, n, stddev = 0.05, 100, 0.7
    optimizer = case.make(eta, n, prior=kl.priors.Normal(stddev), temperature=temperature, seed=3)
    model = one_layer(optimizer, NoLoss())
    kernels, biases = run(model, SIGNS, np.zeros((4, 2000)), steps=4)
    inverse = case.inverse_without_data(n, stddev)
    decay = 1 - eta * inverse / (n * stddev**2)
    expected = 2 * eta * temperature / n * inverse
    for weights in (kernels, biases):
        noise = weights[1:] - decay * weights[:-1]
        assert noise.var(axis=tuple(range(1, noise.ndim))) == pytest.approx(expected, rel=0.1)
        flat = noise.reshape(len(noise), -1) / expected**0.5
        between_steps = np.corrcoef(flat) - np.eye(len(flat))
        assert np.abs(between_steps).max() < 5 / flat.shape[1] ** 0.5
        assert np.abs(flat.mean(axis=1)).max() < 5 / flat.shape[1] ** 0.5


NO_LABELS = [case for case in WITHOUT_DATA if not case.draws_labels]


@each([case for case in NO_LABELS if case.noise_without_data])
def test_the_noise_is_a_function_of_the_seed(case):
    def path(seed):
        keras.utils.set_random_seed(0)
        model = one_layer(case.make(seed=seed), NoLoss())
        return run(model, SIGNS, np.zeros((4, 2000)), steps=3)[0]

    first = path(1)
    np.testing.assert_array_equal(first, path(1))
    assert np.abs(first - path(2)).max() > 0


@each([case for case in NO_LABELS if case.coldest == 0.0], ("RMSPropLangevin", "SGHMC"))
def test_temperature_zero_adds_no_noise(case):
    def path(seed):
        keras.utils.set_random_seed(0)
        model = one_layer(case.make(0.01, temperature=0.0, seed=seed), "mse", units=2)
        x = np.random.default_rng(0).normal(size=(16, 3))
        return run(model, x, x[:, :2], steps=5)[0]

    np.testing.assert_array_equal(path(1), path(2))


def test_cold_sgld_with_a_flat_prior_is_sgd():
    def path(optimizer):
        keras.utils.set_random_seed(0)
        model = one_layer(optimizer, "mse", units=2)
        x = np.random.default_rng(0).normal(size=(16, 3))
        return run(model, x, x[:, :2], steps=5)[0]

    cold = path(kl.SGLD(0.1, num_data=16, temperature=0.0, prior=None))
    np.testing.assert_allclose(cold, path(keras.optimizers.SGD(0.1)), rtol=1e-6)


@pytest.mark.parametrize("case", WITH_VARIANTS, ids=[case.name for case in WITH_VARIANTS])
def test_config_round_trip(case):
    temperature = {} if case.coldest is None else {"temperature": 0.5}
    prior = {"kernel": kl.priors.Laplace(0.3), ".*": None}
    optimizer = case.make(0.02, 50, prior=prior, seed=4, **temperature)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()
    if not case.takes_schedules:
        return
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    scheduled = case.make(schedule)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(scheduled))
    assert again.get_config() == scheduled.get_config()


@pytest.mark.parametrize("sampler", [kl.DOPLangevin, kl.QDOPLangevin])
def test_a_dead_input_walks_on_its_prior(sampler):
    """With the prior in the metric, a weight whose input is always zero is an exact
    Ornstein-Uhlenbeck chain: variance σ²/(1 − η/2), correlation 1 − η from step to step."""
    eta, stddev = 0.2, 0.5
    prior = kl.priors.Normal(stddev)
    optimizer = sampler(eta, num_data=40, prior=prior, epsilon=0.0, seed=5)
    model = one_layer(optimizer, "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    x[:, 1] = 0.0
    y = np.repeat(x[:, :1] + rng.normal(size=(40, 1)), 2000, axis=1) * np.ones(2000)
    kernels, _ = run(model, x, y * 50, steps=150)
    dead = kernels[50:, 1]
    assert dead.var() == pytest.approx(stddev**2 / (1 - eta / 2), rel=0.03)
    lagged = (dead[1:] * dead[:-1]).mean() / (dead**2).mean()
    assert lagged == pytest.approx(1 - eta, abs=0.01)


def shifted_and_scaled_path(model, scale, shift):
    """The path of θ in the coordinates of the untouched inputs, when the model is trained on
    scale · x + shift with the same noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3))
    y = (x @ rng.normal(size=(3, 4)) + rng.normal(size=(64, 4))).astype("float32")
    layer = model.layers[-1]
    kernel = rng.normal(size=(3, 4))
    layer.kernel.assign(kernel / scale[:, None])
    layer.bias.assign(-(kernel * (shift / scale)[:, None]).sum(0))
    kernels, biases = run(model, scale * x + shift, y, steps=20)
    return kernels * scale[:, None], biases + np.einsum("tio,i->to", kernels, shift)


@pytest.mark.parametrize(
    ("sampler", "arguments"),
    [
        (kl.DOPLangevin, {"prior_in_metric": False, "epsilon": 0.0}),
        (kl.QDOPLangevin, {"prior_in_metric": False, "epsilon": 0.0}),
        pytest.param(kl.BNPLangevin, MOMENTS_ALONE, marks=pytest.mark.law),
    ],
)
def test_paths_are_invariant_to_scale_and_those_of_paired_metrics_to_shift(sampler, arguments):
    @restartable
    def start():
        optimizer = sampler(0.05, num_data=64, prior=None, seed=1, **arguments)
        return one_layer(optimizer, "mse", units=4)

    def path(scale, shift=(0.0, 0.0, 0.0)):
        return shifted_and_scaled_path(start(), np.array(scale), np.array(shift))

    plain = path([1.0, 1.0, 1.0])

    def difference(path):
        return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(path, plain, strict=True))

    assert difference(path([2.0, 0.5, 4.0])) < 1e-4
    # A negative scale flips the noise: same law, other path.
    assert difference(path([2.0, 0.5, -4.0])) > 1e-2
    shifted = path([2.0, 0.5, 4.0], [1.0, -2.0, 3.0])
    if sampler is kl.DOPLangevin:
        assert difference(shifted) > 1e-2
    else:
        assert difference(shifted) < 1e-4


@all_samplers
def test_the_noise_covariance_is_the_inverse_metric(case):
    """L Lᵀ = C, entry by entry, on the metric of a small network after some training."""
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2, use_bias=False)]
    )
    optimizer = case.make(0.001, 64, seed=1)
    model.compile(optimizer, loss="mse", jit_compile=JIT_IF_NEEDED)
    kl.track_statistics(model, optimizer)
    x = np.random.default_rng(0).normal(2.0, 1.0, size=(64, 3))
    model.fit(x, x[:, :2], batch_size=16, epochs=3, verbose=0)
    metric_of = optimizer.preconditioner
    statistics = optimizer.read_statistics()
    shapes = metric_of.layout.shapes
    zeros = [ops.zeros(s) for s in shapes]
    metric, _ = metric_of.update(zeros, zeros, statistics)
    inverse = dense(lambda v: metric_of.solve(metric, v), shapes)
    factor = dense(lambda v: metric_of.sample(metric, v), shapes)
    np.testing.assert_allclose(factor @ factor.T, inverse, rtol=1e-4, atol=1e-5 * inverse.max())
    assert np.linalg.eigvalsh(inverse).min() > 0
    rng = np.random.default_rng(2)
    slopes, normals = (
        [ops.convert_to_tensor(rng.normal(size=s), "float32") for s in shapes] for _ in range(2)
    )

    def flat(arrays):
        return np.concatenate([ops.convert_to_numpy(a).ravel() for a in arrays])

    expected = 0.2 * factor @ flat(normals) - 0.3 * inverse @ flat(slopes)
    moves = metric_of.displacement(metric, slopes, 0.3, normals, 0.2)
    np.testing.assert_allclose(flat(moves), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    length = float(metric_of.squared_length(metric, slopes))
    assert length == pytest.approx(flat(slopes) @ inverse @ flat(slopes), rel=1e-4)


def test_the_quasi_diagonal_metric_is_the_stated_one():
    """C inverts the matrix with M00, M0i, Mii of the per-example gradients and M0i M0j / M00."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3.0, 1.0, size=(32, 3)), rng.normal(size=(32, 1))
    prior = kl.priors.Normal(0.8)
    optimizer = kl.QDOPLangevin(1e-9, num_data=32, prior=prior, epsilon=0.0, damping=2.0)
    model = one_layer(optimizer, "mse", units=1)
    model.fit(x, y, batch_size=32, epochs=2, verbose=0)
    weights = np.concatenate([ops.convert_to_numpy(w) for w in model.get_weights()[0:1]])
    bias = model.get_weights()[1]
    design = np.c_[x, np.ones(32)]
    gradients = 2 * design * (design @ np.append(weights, bias) - y[:, 0])[:, None]
    moments = gradients.T @ gradients / 32
    added = 2.0 / 32 / 0.8**2
    matrix = np.outer(moments[3], moments[3]) / (moments[3, 3] + added)
    np.fill_diagonal(matrix, np.diag(moments) + added)
    matrix[3], matrix[:, 3] = moments[3], moments[3]
    matrix[3, 3] += added
    metric_of = optimizer.preconditioner
    metric = metric_of.metric([ops.convert_to_tensor(s) for s in metric_of.states])
    inverse = dense(lambda v: metric_of.solve(metric, v), metric_of.layout.shapes)
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), rtol=2e-4, atol=1e-9)


def test_inputs_far_from_zero_do_not_cancel():
    """Mean over spread of 1000: the Schur complement from raw second moments would be off by
    several percent in float32."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(1000.0, 1.0, size=(256, 1)), rng.normal(size=(256, 1))
    optimizer = kl.QDOPLangevin(
        0.0,
        num_data=256,
        epsilon=0.0,
        prior_in_metric=False,
        statistics_stride=1,
        averaging=kl.preconditioners.Averaging(floor=0.5),
    )
    model = one_layer(optimizer, "mse", inputs=1, units=1)
    model.layers[-1].kernel.assign([[0.0]])
    model.layers[-1].bias.assign([0.0])
    model.fit(x, y, batch_size=256, epochs=30, verbose=0)
    x, y = x.astype("float32").astype("float64"), y.astype("float32")
    weight = (2 * y[:, 0]) ** 2
    mean = (weight * x[:, 0]).sum() / weight.sum()
    schur = (weight * (x[:, 0] - mean) ** 2).mean()
    state = ops.convert_to_numpy(optimizer.preconditioner.states[0])
    assert state[0, 0] == pytest.approx(schur, rel=1e-4)
