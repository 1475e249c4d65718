"""The batch-normalization metric: what it measures, what it does with it, what that is worth."""

import functools
import itertools

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED, MOMENTS_ALONE
from keras import layers, ops
from targets.one_layer import NoLoss, dense, one_layer, run
from targets.regression import Constant
from targets.statistics_cases import (
    BACKEND,
    BATCH,
    einsum,
    make_branches,
    make_data,
    measure,
    runs_here,
)

import keras_langevin as kl
from keras_langevin.preconditioners import Averaging, BatchNormalization
from keras_langevin.preconditioners.preconditioner import BlockLayout, Layout

# ------------------------------------------------------------------------- what is measured


def flat(x):
    return x.reshape(len(x), -1)


def standardized(x):
    """x̂ of a fresh LayerNormalization."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-3)


# family: (shape of one example, {case: (layer, inputs of a unit, positions, features of x)}).
# Where no features are given, the last axis of x has them.
INPUTS = {
    "tokens": (
        (3, 4),
        {
            "dense": (lambda: layers.Dense(2, activation="tanh"), 4, 3),
            "no_bias": (lambda: layers.Dense(2, use_bias=False), 4, 3),
            "features": (
                lambda: keras.Sequential([layers.Flatten(), layers.Dense(3)]),
                12,
                1,
                flat,
            ),
            "einsum": (lambda: einsum("abc,cd->abd", (3, 2), "d"), 4, 3),
            "einsum_no_bias": (lambda: einsum("abc,cd->abd", (3, 2)), 4, 3),
            "heads": (lambda: einsum("abc,cde->abde", (3, 2, 3), "de"), 4, 3),
            "contract_all": (lambda: einsum("abc,bcd->ad", 2, "d"), 12, 1, flat),
            "norm": (lambda: layers.LayerNormalization(), 1, 3, standardized),
            "norm_scale_only": (
                lambda: layers.LayerNormalization(center=False),
                1,
                3,
                standardized,
            ),
            "norm_offset_only": (
                lambda: layers.LayerNormalization(scale=False),
                1,
                3,
                np.ones_like,
            ),
            "convolution": (lambda: layers.Conv1D(3, 3, strides=2, padding="same"), 12, 2),
            "causal": (lambda: layers.Conv1D(3, 2, padding="causal", dilation_rate=2), 8, 3),
        },
    ),
    "images": (
        (5, 4, 2),
        {
            "valid_strides": (lambda: layers.Conv2D(3, (3, 2), strides=(2, 1)), 12, 6),
            "same": (lambda: layers.Conv2D(3, 3, padding="same"), 18, 20),
            "same_strides": (lambda: layers.Conv2D(3, (2, 3), strides=4, padding="same"), 12, 2),
            "no_bias": (lambda: layers.Conv2D(3, 2, use_bias=False), 8, 12),
            "depthwise": (
                lambda: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
                9,
                20,
            ),
        },
    ),
    "volumes": (
        (3, 4, 3, 2),
        {"same": (lambda: layers.Conv3D(2, 2, padding="same", strides=(1, 2, 1)), 16, 18)},
    ),
    "channels_first": (
        (2, 5, 4),
        {
            "same": (
                lambda: layers.Conv2D(3, 3, padding="same", data_format="channels_first"),
                18,
                20,
                lambda x: np.moveaxis(x, 1, -1),
            ),
            "depthwise": (
                lambda: layers.DepthwiseConv2D(2, data_format="channels_first"),
                4,
                12,
                lambda x: np.moveaxis(x, 1, -1),
            ),
        },
    ),
}


def moments(x):
    """E[x] and E[x²] of every feature, the last axis of x."""
    rows = x.reshape(-1, x.shape[-1]).astype("float64")
    return {"input_mean": rows.mean(axis=0), "input_second_moment": (rows**2).mean(axis=0)}


def assert_measured(value, features, inputs, positions):
    expected = {**moments(features), "unit_scale": max(inputs / BATCH, positions**0.5)}
    assert value.keys() == expected.keys()
    for kind in expected:
        np.testing.assert_allclose(value[kind], expected[kind], rtol=1e-5, atol=1e-6, err_msg=kind)


@pytest.mark.law
@pytest.mark.parametrize("family", INPUTS)
def test_measures_the_moments_of_the_inputs(family):
    """Over batch and positions, each input once: neither the padding nor how often a kernel
    uses an input counts."""
    if not runs_here(family):
        pytest.skip("TensorFlow has no channels_first convolution on the CPU")
    shape, cases = INPUTS[family]
    model = make_branches(shape, {name: make for name, (make, *_) in cases.items()})
    x, y = make_data(model)
    value = {path.split("/")[0]: v for path, v in measure(model, x, y, wanted="inputs").items()}
    assert value.keys() == cases.keys()
    for name, (_, inputs, positions, *features) in cases.items():
        assert_measured(value[name], features[0](x) if features else x, inputs, positions)


@pytest.mark.law
def test_a_separable_convolution_is_measured_as_two_layers():
    make = lambda: layers.SeparableConv2D(3, 2, depth_multiplier=2)  # noqa: E731
    model = make_branches((5, 4, 2), {"separable": make})
    x, y = make_data(model)
    depthwise, pointwise = measure(model, x, y, wanted="inputs").values()
    assert_measured(depthwise, x, inputs=4, positions=12)
    kernel = ops.convert_to_numpy(model.get_layer(index=1).depthwise_kernel)
    middle = sum(
        x[:, i : i + 4, j : j + 3, :, None] * kernel[i, j]
        for i, j in itertools.product(range(2), repeat=2)
    )
    assert_measured(pointwise, middle.reshape(*middle.shape[:3], 4), inputs=4, positions=12)


# ------------------------------------------------------------------------------- the metric

# name: (shape of the kernel, of one bias number for each kernel axis, of one feature's, and
# from the index of a weight to those of its unit and of its feature)
BLOCKS = {
    "dense": ((3, 2), (1, 2), (3, 1), lambda i, u: (u, i)),
    "convolution": ((2, 3, 2, 4), (1, 1, 1, 4), (1, 1, 2, 1), lambda a, b, c, f: (f, c)),
    "depthwise": ((2, 2, 3, 2), (1, 1, 3, 2), (1, 1, 3, 1), lambda a, b, c, m: (2 * c + m, c)),
    "normalization": ((3,), (3,), (3,), lambda i: (i, i)),
}


def preconditioning(mean, variance, scale, weights, has_bias=True, epsilons=(0.0, 0.0)):
    """P/q of the weights with these (unit, feature) pairs and of the units' bias after them,
    one entry at a time from the formulas of Lange et al. (2022), equations 12 and 15."""
    if not has_bias:
        variance = variance + mean**2
    stddev = np.sqrt(variance + epsilons[0] * np.max(variance) + epsilons[1])
    units = 1 + max(unit for unit, _ in weights)
    p = np.eye(len(weights) + units * has_bias)
    for row, (unit, feature) in enumerate(weights):
        p[row, row] = 1 / stddev[feature]
        if has_bias:
            p[len(weights) + unit, row] = -mean[feature] / stddev[feature]
    return p / scale**0.5


@pytest.fixture
def precision():
    """Arrays keep 64 bits inside, for which JAX has to be asked."""
    if BACKEND != "jax":
        # On torch `keras.ops.maximum` returns 32 bits.
        yield 1e-6 if BACKEND == "torch" else 1e-10
        return
    import jax

    with jax.enable_x64(True):
        yield 1e-10


def built_by_hand(name, has_bias):
    """The metric of one block with q² = 2.7 in float64, P/q, and the shapes of the weights."""
    kernel, bias_shape, shift_shape, indices = BLOCKS[name]
    features = int(np.prod(shift_shape))
    rng = np.random.default_rng(0)
    mean, variance = rng.normal(0.0, 3.0, features), rng.uniform(0.1, 5.0, features)
    scale, epsilons = 2.7, (1e-2, 1e-3)
    weights = [indices(*i) for i in np.ndindex(kernel)]
    p = preconditioning(mean, variance, scale, weights, has_bias, epsilons)

    shapes = (kernel, (int(np.prod(bias_shape)),))[: 1 + has_bias]
    block = BlockLayout(0, 1 if has_bias else None, bias_shape, shift_shape, statistics={})
    metric_of = BatchNormalization(*epsilons)
    names = ("kernel", "bias")[: 1 + has_bias]
    layout = Layout(shapes=shapes, names=names, prior_precisions=(0.0, 0.0), blocks=(block,))
    metric_of.build(layout, lambda shape, name: None)
    states = [ops.convert_to_tensor(s, "float64") for s in (mean, variance, scale)]
    return metric_of, metric_of.metric(states), p, shapes


@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("name", BLOCKS)
def test_drift_and_noise_are_those_of_the_dense_matrices(name, has_bias, precision):
    """C = P Pᵀ/q² for the drift, P/q for the noise, and the inverse of C."""
    metric_of, metric, p, shapes = built_by_hand(name, has_bias)
    inverse = p @ p.T
    for method, expected in (
        (metric_of.solve, inverse),
        (metric_of.sample, p),
        (metric_of.multiply, np.linalg.inv(inverse)),
    ):
        matrix = dense(functools.partial(method, metric), shapes, "float64")
        assert np.abs(matrix - expected).max() < precision * np.abs(expected).max()


@pytest.mark.parametrize("name", BLOCKS)
def test_the_volume_is_that_of_the_dense_matrix(name, precision):
    metric_of, metric, p, _ = built_by_hand(name, has_bias=True)
    identity = [tuple(ops.ones_like(part) for part in block) for block in metric]
    value = float(ops.convert_to_numpy(metric_of.log_volume(identity, metric)))
    assert value == pytest.approx(-np.linalg.slogdet(p @ p.T)[1], rel=precision)


def test_the_prior_sets_the_step_of_an_input_that_never_varies():
    """C = 1/(ε₂ + prior precision / N) for its weight: it walks on its prior however small ε₂ is,
    where without the prior in the metric η times C times the precision would be unstable."""
    n, stddev, eta = 50, 0.1, 0.5
    x = np.random.default_rng(0).normal(size=(20, 3))
    x[:, 1] = 0.0
    for prior_in_metric in (True, False):
        optimizer = kl.BNPLangevin(
            eta,
            num_data=n,
            prior=kl.priors.Normal(stddev),
            relative_epsilon=0.0,
            epsilon=1e-4,
            prior_in_metric=prior_in_metric,
            seed=1,
        )
        model = one_layer(optimizer, NoLoss())
        kernels, _ = run(model, x, np.zeros((20, 2000)), steps=60)
        variance = kernels[30:, 1].astype("float64").var()
        if prior_in_metric:
            assert variance == pytest.approx(stddev**2 / (1 - eta / 2), rel=0.1)
        else:
            assert not variance < 1e6


def dense_unit(x, scale, epsilons=(0.0, 0.0)):
    """P/q of one unit of a Dense layer with the moments of these inputs."""
    pairs = [(0, i) for i in range(x.shape[1])]
    return preconditioning(x.mean(axis=0), x.var(axis=0), scale, pairs, epsilons=epsilons)


@pytest.mark.law
def test_the_covariance_of_the_noise():
    """Every unit is a draw. Three inputs and two examples: q² = 3/2."""
    units, eta, n = 400_000, 0.1, 50
    x = np.array([[3.0, -1.0, 0.2], [1.0, 2.0, 0.3]])
    optimizer = kl.BNPLangevin(
        eta, num_data=n, prior=None, relative_epsilon=1e-2, epsilon=0.03, seed=1
    )
    model = one_layer(optimizer, NoLoss(), units=units)
    kernels, biases = run(model, x, np.zeros((2, units)), steps=2)
    noise = np.concatenate([kernels[1] - kernels[0], [biases[1] - biases[0]]]).astype("float64")
    p = dense_unit(x, 3 / 2, epsilons=(1e-2, 0.03))
    expected = 2 * eta / n * p @ p.T
    size = np.sqrt(np.diag(expected))
    covariance = noise @ noise.T / units
    assert np.abs((covariance - expected) / np.outer(size, size)).max() < 0.01


# ------------------------------------------------------------- what follows the minibatches


def trained_on(optimizer, batches, weights=None):
    """A Dense layer after one step on each of these (x, y), the states of the metric and the
    weights after every step."""
    x, y = batches[0]
    model = one_layer(optimizer, "mse", inputs=x.shape[1], units=y.shape[1])
    if weights is not None:
        model.set_weights(weights)
    states, path = [], []
    for x, y in batches:
        model.fit(Constant(x, y, 1), verbose=0)
        states.append([ops.convert_to_numpy(s) for s in optimizer.preconditioner.states])
        path.append(model.get_weights())
    return states, path


def drifting_batches(*sizes, inputs=10, outputs=2):
    """Minibatches whose mean moves by more than the spread of one of them."""
    rng = np.random.default_rng(0)
    return [
        (
            rng.normal(2.0 * i, rng.uniform(0.5, 2.0, inputs), (size, inputs)),
            rng.normal(size=(size, outputs)),
        )
        for i, size in enumerate(sizes)
    ]


def mixture(batches, rates):
    """Mean and variance of a mixture of the batches' inputs, in which each new one takes the
    share of its rate, and the average of q²."""
    shares = np.array([1.0])
    for rate in rates:
        shares = np.append((1 - rate) * shares, rate)
    inputs = [x for x, _ in batches]
    mean = sum(w * x.mean(axis=0) for w, x in zip(shares, inputs, strict=True))
    square = sum(w * (x**2).mean(axis=0) for w, x in zip(shares, inputs, strict=True))
    scale = sum(w * max(x.shape[1] / len(x), 1.0) for w, x in zip(shares, inputs, strict=True))
    return mean, square - mean**2, scale


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4, 2), (1, 1, 1, 1)], ids=["several", "one"])
def test_the_average_is_a_mixture_of_the_minibatches(sizes):
    """The first sets it; the variance between batches counts, so that batches of one example
    have one too."""
    batches = drifting_batches(*sizes)
    rates = [max(0.4, (1 / 0.5**2 + t) ** -0.5) for t in range(1, len(sizes))]
    assert rates[1] > rates[2] == 0.4  # both laws of the rate
    optimizer = kl.BNPLangevin(0.0, num_data=50, averaging=Averaging(rate=0.5, floor=0.4), seed=1)
    states, _ = trained_on(optimizer, batches)
    for t in range(len(sizes)):
        expected = mixture(batches[: t + 1], rates[:t])
        for state, value in zip(states[t], expected, strict=True):
            np.testing.assert_allclose(state, value, rtol=1e-4, atol=1e-5)
    assert states[1][1].min() > 0


STEPS = {
    "lagged": ({}, [(0, 1), (0, 1), (0, 2), (0, 3)]),
    "current": ({"lagged": False}, [(0, 1), (0, 2), (0, 3), (0, 4)]),
    "frozen": ({"freeze_after": 1}, [(0, 1), (0, 1), (0, 1), (0, 1)]),
}


@pytest.mark.law
@pytest.mark.parametrize("name", STEPS)
def test_the_steps_are_the_stated_ones(name):
    """θ − η C ∇G with the metric from before the minibatch, or after it. Ten inputs and four
    examples: q² = 5/2."""
    arguments, seen = STEPS[name]
    eta, batches = 0.02, drifting_batches(4, 4, 4, 4)
    optimizer = kl.BNPLangevin(
        eta,
        num_data=50,
        temperature=0.0,
        prior=None,
        averaging=Averaging(rate=0.3, floor=0.3, **arguments),
        epsilon=1e-4,
        relative_epsilon=1e-6,
        seed=1,
    )
    rng = np.random.default_rng(1)
    θ = rng.normal(size=(11, 2))
    _, path = trained_on(optimizer, batches, [θ[:10], θ[10]])
    at_rest = optimizer.preconditioner.averaging.lagged  # in the first step, which fills the metric
    for (x, y), (start, stop), weights in zip(batches, seen, path, strict=True):
        design = np.c_[x, np.ones(len(x))]
        gradient = 2 * design.T @ (design @ θ - y) / y.size
        mean, variance, scale = mixture(batches[start:stop], [0.3] * (stop - start - 1))
        pairs = [(0, i) for i in range(10)]
        p = preconditioning(mean, variance, scale, pairs, epsilons=(1e-6, 1e-4))
        step = (not at_rest) * eta * p @ p.T @ gradient
        at_rest = False
        assert scale == 5 / 2
        moved = np.concatenate([weights[0], [weights[1]]])
        np.testing.assert_allclose(moved, θ - step, rtol=1e-4, atol=1e-4 * np.abs(step).max())
        θ = moved.astype("float64")


def two_layers(optimizer):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])
    model.compile(optimizer, loss="mse", jit_compile=JIT_IF_NEEDED)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0.0, 0.3, w.shape) for w in model.get_weights()])
    return kl.track_statistics(model, optimizer)


def ill_scaled_data():
    rng = np.random.default_rng(0)
    return rng.normal([3.0, -1.0, 0.5], [0.5, 2.0, 0.1], size=(16, 3)), rng.normal(size=(16, 2))


@pytest.mark.law
def test_the_metric_of_a_layer_follows_the_weights_of_earlier_layers_alone():
    """So that the divergence Σ_j ∂C_ij/∂θ_j is zero."""
    model = two_layers(kl.BNPLangevin(0.0, num_data=16, averaging=Averaging(floor=1.0), seed=1))
    x, y = ill_scaled_data()

    def states():
        model.fit(Constant(x, y, 2), verbose=0)
        values = [ops.convert_to_numpy(s) for s in model.optimizer.preconditioner.states]
        return np.concatenate([v.ravel() for v in values[:3]]), np.concatenate(
            [v.ravel() for v in values[3:]]
        )

    def change(layer):
        layer.set_weights([w + 0.3 for w in layer.get_weights()])

    first, second = states()
    change(model.layers[1])
    again = states()
    np.testing.assert_allclose(again[0], first, rtol=1e-5)
    np.testing.assert_allclose(again[1], second, rtol=1e-5)
    change(model.layers[0])
    again = states()
    np.testing.assert_allclose(again[0], first, rtol=1e-5)
    assert np.abs(again[1] - second).max() > 0.1


# -------------------------------------------------------------------------- what it is worth


def batch_normalized_step(x, y, weights, learning_rate):
    """One step of gradient descent, for the mean squared error, of a network whose layers have
    batch-normalized inputs, with γ = 1, β = 0 and no gradient through the moments; in terms of
    the weights of the plain network that computes the same."""
    x, y, *weights = (np.array(a, "float64") for a in (x, y, *weights))
    hidden = np.tanh(x @ weights[0] + weights[1])
    inputs, own = [], []
    for features, kernel, bias in ((x, *weights[:2]), (hidden, *weights[2:])):
        mean, stddev = features.mean(axis=0), features.std(axis=0)
        inputs.append((features - mean) / stddev)
        own += [kernel * stddev[:, None], bias + mean @ kernel]
    output = inputs[1] @ own[2] + own[3]
    slope = 2 * (output - y) / y.size
    back = slope @ own[2].T / hidden.std(axis=0) * (1 - hidden**2)
    gradients = [inputs[0].T @ back, back.sum(axis=0), inputs[1].T @ slope, slope.sum(axis=0)]
    own = [w - learning_rate * g for w, g in zip(own, gradients, strict=True)]
    plain = []
    for features, kernel, bias in ((x, *own[:2]), (hidden, *own[2:])):
        kernel = kernel / features.std(axis=0)[:, None]
        plain += [kernel, bias - features.mean(axis=0) @ kernel]
    return plain


def test_a_cold_step_is_one_of_batch_normalization():
    """Lange et al. (2022), proposition 7."""
    optimizer = kl.BNPLangevin(
        0.5, num_data=16, temperature=0.0, prior=None, seed=1, **MOMENTS_ALONE
    )
    model = two_layers(optimizer)
    x, y = ill_scaled_data()
    before = model.get_weights()
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)  # the first fills the metric
    expected = batch_normalized_step(x, y, before, 0.5)
    for weight, old, new in zip(model.get_weights(), before, expected, strict=True):
        step = new - old
        np.testing.assert_allclose(weight - old, step, rtol=1e-3, atol=1e-4 * np.abs(step).max())


def test_cold_training_on_ill_scaled_inputs():
    """Each sampler at the half of its largest stable rate, from zero: plain gradient descent
    has hardly begun when this metric is done."""
    rng = np.random.default_rng(0)
    stddev = np.array([0.1, 0.3, 1.0, 3.0, 10.0])
    x = (rng.normal(size=(64, 5)) + 2.0) * stddev
    y = x @ (rng.normal(size=(5, 1)) / stddev[:, None]) + 1.0
    design = np.c_[x, np.ones(64)]
    hessian = 2 * design.T @ design / 64
    p = dense_unit(x, 1.0)

    def left(sampler, inverse, seed):
        rate = 1 / np.linalg.eigvals(inverse @ hessian).real.max()
        optimizer = sampler(rate, num_data=64, temperature=0.0, prior=None, seed=seed)
        model = one_layer(optimizer, "mse", inputs=5, units=1)
        model.set_weights([np.zeros((5, 1)), np.zeros(1)])
        model.fit(Constant(x, y, 100), verbose=0)
        θ = np.concatenate([w.ravel() for w in model.get_weights()])
        return np.mean((design @ θ - y[:, 0]) ** 2) / np.mean(y**2)

    cold = left(kl.BNPLangevin, p @ p.T, seed=1)
    assert cold == left(kl.BNPLangevin, p @ p.T, seed=2)
    assert cold < 1e-4
    assert left(kl.SGLD, np.eye(6), seed=1) > 0.02


def test_inputs_far_from_zero_do_not_cancel():
    """Mean over spread of 1000: raw second moments would lose the variance in float32."""
    x = np.random.default_rng(0).normal(1000.0, 1.0, size=(256, 3)).astype("float32")
    optimizer = kl.BNPLangevin(0.0, num_data=256, averaging=Averaging(floor=0.5), seed=1)
    model = one_layer(optimizer, NoLoss(), units=1)
    run(model, x, np.zeros((256, 1)), steps=30)
    variance = ops.convert_to_numpy(optimizer.preconditioner.states[1])
    np.testing.assert_allclose(variance, x.astype("float64").var(axis=0), rtol=1e-4)


def test_layers_that_are_not_measured_have_the_identity():
    """They are named, and their drift is the gradient."""
    words = keras.Input((2,), dtype="int32")
    hidden = layers.Embedding(5, 4, name="words")(words)
    hidden = layers.Conv1D(4, 1, groups=2, name="grouped")(hidden)
    model = keras.Model(words, layers.Dense(2, name="head")(layers.Flatten()(hidden)))
    optimizer = kl.BNPLangevin(0.01, num_data=8, seed=1)
    model.compile(optimizer, loss="mse", jit_compile=JIT_IF_NEEDED)
    with pytest.warns(UserWarning, match=r"layers Embedding 'words', Conv1D 'grouped'\. "):
        kl.track_statistics(model, optimizer)
    model.fit(np.array([[0, 1], [2, 3]] * 4), np.ones((8, 2)), batch_size=8, verbose=0)
    metric_of = optimizer.preconditioner
    shapes = metric_of.layout.shapes
    inverse = dense(lambda v: metric_of.solve(metric_of.current(), v), shapes)
    factor = dense(lambda v: metric_of.sample(metric_of.current(), v), shapes)
    unmeasured = sum(int(np.prod(s)) for s in shapes[:3])  # embedding, kernel and bias
    for matrix in (inverse, factor):
        np.testing.assert_array_equal(matrix[:unmeasured], np.eye(len(matrix))[:unmeasured])
        np.testing.assert_array_equal(matrix[:, :unmeasured], np.eye(len(matrix))[:, :unmeasured])
    assert np.abs(inverse - np.eye(len(inverse))).max() > 0.1
