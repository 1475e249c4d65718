"""Natural gradients as samplers: the law, the temperature, what `fit` must be given."""

import itertools

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers, ops
from targets.natural_gradient_cases import CLASSES, small_network
from targets.regression import (
    STEPS_PER_EXECUTION,
    Constant,
    Recorder,
    Regression,
    WeightedHalfSquaredError,
    relative_eigenvalues,
)
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin.optimizers.natural_gradient import NaturalGradient
from keras_langevin.preconditioners import dense_fisher

BACKEND = keras.backend.backend()
JIT = BACKEND != "torch"


def linear_chain(optimizer, x, y, steps, batches=None, loss="mse", burn_in=200):
    """The weights of a linear model along one `fit`, (readings, d)."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((x.shape[1],)), layers.Dense(1, use_bias=False)])
    model.compile(optimizer, loss, jit_compile=JIT, steps_per_execution=STEPS_PER_EXECUTION)
    model.layers[-1].kernel.assign(np.linalg.lstsq(x, y, rcond=None)[0])
    kl.track_statistics(model, optimizer)
    optimizer.preconditioner.set_data(x)
    recorder = Recorder(burn_in)
    data = batches or kl.RandomBatches(x, y, optimizer.batch_size, batches_per_epoch=steps)
    model.fit(data, epochs=1, verbose=0, shuffle=False, callbacks=[recorder])
    return np.stack(recorder.draws)[:, :, 0]


class Linear:
    """y = x w + noise of variance ½, which is what a mean squared error stands for."""

    def __init__(self, n=600, d=3, variance=0.5):
        rng = np.random.default_rng(5)
        self.x = (rng.normal(size=(n, d)) * [1.0, 0.3, 3.0]).astype("float32")
        noise = rng.normal(size=(n, 1))
        design = self.x.astype("float64")
        noise -= design @ np.linalg.lstsq(design, noise, rcond=None)[0]
        self.y = (self.x.sum(1, keepdims=True) + noise * (variance**0.5 / noise.std())).astype(
            "float32"
        )
        self.fisher = 2 * design.T @ design / n

    def temperature(self, chain):
        """Of a chain: mean of the eigenvalues of covariance times N F, and their spread."""
        covariance = np.cov(chain.T)
        eigenvalues = relative_eigenvalues(covariance, np.linalg.inv(self.fisher) / len(self.x))
        return eigenvalues.mean(), eigenvalues


def finite_temperature(learning_rate, n, batch_size):
    """T of the discrete chain: (ηN/2B) (N − B)/(N − 1) / (1 − η/2)."""
    t = learning_rate * n / (2 * batch_size) * (n - batch_size) / (n - 1)
    return t / (1 - learning_rate / 2)


@pytest.mark.law
@pytest.mark.parametrize(("learning_rate", "batch_size"), [(0.1, 30), (0.5, 150)])
def test_ngd_samples_at_the_temperature_of_its_batches(learning_rate, batch_size):
    """Covariance T (N F)⁻¹ on the linear Gaussian model; 1.054 and 1.336 of (ηN/2B)."""
    linear = Linear()
    optimizer = kl.NGD(
        learning_rate,
        num_data=600,
        batch_size=batch_size,
        damping=0.0,
        prior=None,
        seed=1,
        num_examples=600,
    )
    steps = 12_000 if BACKEND == "jax" else 4_000
    chain = linear_chain(optimizer, linear.x, linear.y, steps)
    mean, eigenvalues = linear.temperature(chain)
    expected = finite_temperature(learning_rate, 600, batch_size)
    effective = steps * min(learning_rate / 2, 0.2)
    error = expected * (2 / effective) ** 0.5
    assert abs(mean - expected) < 4 * error / 3**0.5 + 0.03 * expected
    assert np.abs(eigenvalues - expected).max() < 5 * error + 0.03 * expected


@pytest.mark.law
def test_a_misspecified_model_samples_at_another_temperature():
    """Noise of variance 1 where the loss stands for ½: the gradients vary twice as much as the
    Fisher information says, and so does the temperature."""
    linear = Linear(variance=1.0)
    optimizer = kl.NGD(
        0.2, num_data=600, batch_size=60, damping=0.0, prior=None, seed=1, num_examples=600
    )
    chain = linear_chain(optimizer, linear.x, linear.y, 6_000)
    mean, _ = linear.temperature(chain)
    assert mean == pytest.approx(2 * finite_temperature(0.2, 600, 60), rel=0.15)


def replicated_second_moment(optimizer, problem, exact, batch_size):
    """As `Regression.second_moment`, with the metric on the regression's inputs."""
    model = problem.model(optimizer, WeightedHalfSquaredError())
    optimizer.preconditioner.set_data(problem.x.astype("float32"))
    problem.place(model, exact)
    recorder = Recorder()
    problem.fit(model, 320, batch_size, callbacks=[recorder])
    offset = np.stack(recorder.draws) - problem.mean[:, None]
    return np.einsum("tir,tjr->ij", offset, offset) / offset[:, 0].size


class WithoutCompletion(kl.NGD):
    """Damped, with the noise of the minibatches alone."""

    def displacement(self, slopes, metric, learning_rate):
        return [-learning_rate * d for d in self.preconditioner.solve(metric, slopes)]


class InjectsToo(kl.NGD):
    """Noise of temperature 1 besides that of the minibatches."""

    def displacement(self, slopes, metric, learning_rate):
        step = super().displacement(slopes, metric, learning_rate)
        noise = self.preconditioner.sample(metric, self.normals([g.shape for g in slopes]))
        scale = (2 * learning_rate / self.num_data) ** 0.5
        return [d + scale * n for d, n in zip(step, noise, strict=True)]


@pytest.mark.law
@pytest.mark.further
@pytest.mark.parametrize("sampler", [kl.NGD, WithoutCompletion, InjectsToo])
def test_ngd_with_a_structured_metric_has_the_exact_law_of_its_chain(sampler):
    """8,000 replicated regressions with minibatches of their own, against the fixed point of the
    recursion of second moments; a damping as large as the information."""
    problem, eta, batch_size, delta = Regression(num_data=300), 0.2, 20, 0.5
    optimizer = sampler(
        eta,
        num_data=300,
        batch_size=batch_size,
        structure="quasi_diagonal",
        damping=delta,
        prior=kl.priors.Normal(1.0),
        output="mean",
        noise_stddev=1.0,
        num_examples=300,
        seed=1,
    )
    fisher = problem.design.T @ problem.design / 300 + delta * np.eye(3)
    matrix = np.outer(fisher[2], fisher[2]) / fisher[2, 2]
    np.fill_diagonal(matrix, np.diag(fisher))
    matrix[2], matrix[:, 2] = fisher[2], fisher[2]
    inverse = np.linalg.inv(matrix)
    exact = law_with_completion(problem, inverse, eta, batch_size, delta)
    moment = replicated_second_moment(optimizer, problem, exact, batch_size)
    error = np.abs(relative_eigenvalues(moment, exact) - 1).max()
    assert (error < 0.05) == (sampler is kl.NGD)


def law_with_completion(problem, inverse, eta, batch_size, delta):
    """`exact_covariance` with the completion noise δc M⁻², in the place of injected noise."""
    n = problem.n
    step = np.eye(3) - eta * inverse @ problem.hessian
    gradients = problem.design * (problem.design @ problem.mean - problem.y)[:, None]
    gradients -= gradients.mean(0)
    noise = gradients.T @ gradients / n / batch_size
    noise += delta * (1 / batch_size - 1 / n) * np.eye(3)
    operator = np.eye(9) - np.kron(step, step)
    data_hessian = problem.design.T @ problem.design / n
    for row in problem.design:
        deviation = inverse @ (np.outer(row, row) - data_hessian)
        operator -= eta**2 / batch_size / n * np.kron(deviation, deviation)
    source = eta**2 * inverse @ noise @ inverse.T
    return np.linalg.solve(operator, source.ravel()).reshape(3, 3)


class OneWeight(Regression):
    """Replicas of y = x w + N(0, 1) with one weight; flat prior."""

    def __init__(self, num_data=200, replicas=4000):
        rng = np.random.default_rng(0)
        self.n, self.replicas = num_data, replicas
        self.x, self.y = rng.normal(size=(num_data, 1)), rng.normal(size=num_data)
        self.information = np.mean(self.x**2)
        self.y -= self.x[:, 0] * (self.x[:, 0] @ self.y) / np.sum(self.x**2)


@pytest.mark.parametrize(
    ("share", "sampler"),
    [
        (1.0, kl.NGD),
        *(
            pytest.param(share, sampler, marks=pytest.mark.law)
            for share, sampler in itertools.product((0.1, 1.0, 10.0), (kl.NGD, WithoutCompletion))
            if (share, sampler) != (1.0, kl.NGD)
        ),
    ],
)
def test_damping_lowers_the_temperature_unless_completed(sampler, share):
    """Variance over that of T: f/(f + δ) = 0.909, 0.5, 0.091 without completion noise, 1 with."""
    problem, eta, batch_size = OneWeight(), 0.1, 4
    f, c = problem.information, 1 / batch_size
    delta = share * f
    rate = eta * f / (f + delta)
    gradients = problem.x[:, 0] * problem.y
    noise = c * np.mean(gradients**2)
    if sampler is kl.NGD:
        noise += delta * (c - 1 / problem.n)
    spread = np.var(problem.x**2) * c * (eta / (f + delta)) ** 2
    exact = noise * (eta / (f + delta)) ** 2 / (1 - (1 - rate) ** 2 - spread)
    optimizer = sampler(
        eta,
        num_data=problem.n,
        batch_size=batch_size,
        structure="diagonal",
        damping=delta,
        prior=None,
        output="mean",
        noise_stddev=1.0,
        seed=1,
    )
    model = keras.Sequential([keras.Input((1,)), layers.Dense(problem.replicas, use_bias=False)])
    model.compile(
        optimizer,
        WeightedHalfSquaredError(),
        jit_compile=JIT,
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    start = np.random.default_rng(1).normal(size=(1, problem.replicas))
    model.layers[-1].kernel.assign(start * exact**0.5 / start.std())
    kl.track_statistics(model, optimizer)
    optimizer.preconditioner.set_data(problem.x.astype("float32"))
    recorder = Recorder()
    problem.fit(model, 400, batch_size, callbacks=[recorder])
    variance = np.mean(np.square(recorder.draws))
    assert variance == pytest.approx(exact, rel=0.05)
    at_temperature = eta * c / 2 / f
    ratio = 1.0 if sampler is kl.NGD else f / (f + delta)
    assert variance / at_temperature == pytest.approx(ratio, rel=0.2)


class Naive(NaturalGradient):
    """Injected noise and no correction."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, injects_noise=True, **kwargs)


def bernoulli_chains(make, coordinates, replicas, structure):
    """p of `replicas` chains of a Bernoulli model, 3 ones among 10, flat in its coordinates."""
    eta, n, steps = 0.02, 10, 1600
    keras.utils.set_random_seed(0)
    dense = layers.Dense(replicas, use_bias=False)
    model = keras.Sequential([keras.Input((1,)), dense, layers.Identity()])
    # The loss is a mean over units: N times their number makes each its own posterior.
    optimizer = make(
        eta,
        num_data=n * replicas,
        structure=structure,
        damping=0.0,
        prior=None,
        seed=1,
        num_examples=1,
    )
    is_logit = coordinates == "logit"
    autodiff = getattr(optimizer, "correction_method", None) == "autodiff"
    model.compile(
        optimizer,
        keras.losses.BinaryCrossentropy(from_logits=is_logit),
        jit_compile=JIT and not (autodiff and BACKEND == "tensorflow"),
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    start = 0.32
    dense.kernel.assign(np.full((1, replicas), np.log(start / (1 - start)) if is_logit else start))
    kl.track_statistics(model, optimizer)
    optimizer.preconditioner.set_data(np.ones((1, 1), "float32"))
    x = np.ones((10, 1))
    y = np.repeat(np.arange(10)[:, None] < 3, replicas, axis=1).astype("float32")
    reader = ReadKernel(dense, burn_in=400)
    model.fit(Constant(x, y, steps), verbose=0, shuffle=False, callbacks=[reader])
    draws = np.stack(reader.draws)
    return 1 / (1 + np.exp(-draws)) if is_logit else draws


class ReadKernel(keras.callbacks.Callback):
    def __init__(self, layer, burn_in):
        super().__init__()
        self.position, self.burn_in, self.draws = layer.name, burn_in, []

    def on_train_batch_end(self, batch, logs=None):
        if batch >= self.burn_in and batch % 8 == 7:
            kernel = self.model.get_layer(self.position).kernel
            self.draws.append(np.array(ops.convert_to_numpy(kernel))[0])


def sngd(**arguments):
    return lambda *args, **kwargs: kl.SNGD(*args, noise="gaussian", **arguments, **kwargs)


# sampler, chains, structure, and a and b of the Beta(a, b) law of p in each coordinates
BERNOULLI = {
    "jeffreys": (
        sngd(correction="jeffreys", correction_method="autodiff"),
        64,
        "dense",
        {"logit": (3.5, 7.5), "probability": (3.5, 7.5)},
    ),
    "divergence": (
        sngd(correction="divergence", correction_method="midpoint"),
        2000,
        "diagonal",
        {"logit": (3, 7), "probability": (4, 8)},
    ),
    "none": (Naive, 2000, "diagonal", {"logit": (4, 8), "probability": (3, 7)}),
}


@pytest.mark.law
@pytest.mark.further
@pytest.mark.parametrize("coordinates", ["logit", "probability"])
@pytest.mark.parametrize("correction", BERNOULLI)
def test_the_law_of_a_probability_in_two_coordinates(correction, coordinates):
    """With Jeffreys' correction Beta(3.5, 7.5) in both; all others depend on the coordinates."""
    make, replicas, structure, laws = BERNOULLI[correction]
    a, b = laws[coordinates]
    p = bernoulli_chains(make, coordinates, replicas, structure).astype("float64")
    mean, variance = a / (a + b), a * b / (a + b) ** 2 / (a + b + 1)
    error = p.mean(axis=0).std() / replicas**0.5  # chains are independent
    print(f"mean {p.mean():.4f} of {mean:.4f}, variance {p.var():.5f} of {variance:.5f}")
    assert abs(p.mean() - mean) < 4 * error + 0.002
    assert p.var() == pytest.approx(variance, rel=0.06 + 4 * error / mean)
    others = {m / (m + n) for _, _, _, laws in BERNOULLI.values() for m, n in laws.values()}
    distances = [abs(p.mean() - other) for other in others if other != mean]
    assert min(distances) > abs(p.mean() - mean)


# ------------------------------------------------------------------------------- batches


def test_temperature_and_batch_size_determine_each_other():
    optimizer = kl.NGD(0.1, num_data=1000, temperature=1.0)
    assert optimizer.batch_size == 48  # 1000 / 21
    assert optimizer.temperature == pytest.approx(0.1 * 1000 / 96 * (1 - 48 / 1000))
    again = kl.NGD.from_config(optimizer.get_config())
    assert again.batch_size == 48 and again.get_config() == optimizer.get_config()
    optimizer = kl.NGD(0.1, num_data=1000, batch_size=1000)
    assert optimizer.temperature == 0.0


@every_row(
    "arguments, words",
    [
        ({}, "batch_size"),
        ({"temperature": 1.0, "batch_size": 100}, "batch_size=48, or learning_rate=0.2222"),
        ({"temperature": 1e4}, "at least 1"),
        ({"batch_size": 2000}, "at most num_data"),
        ({"temperature": -1.0}, "greater than zero"),
        ({"batch_size": 10, "structure": "block"}, "structure"),
        ({"batch_size": 10, "fisher": "true"}, "fisher"),
        ({"batch_size": 10, "num_draws": 1, "structure": "diagonal"}, "num_draws"),
        ({"batch_size": 10, "learning_rate": "auto"}, "auto"),
        ({"batch_size": 900, "temperature": 1.0, "learning_rate": "auto"}, "stability limit"),
    ],
)
def test_ngd_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        kl.NGD(**{"learning_rate": 0.1, "num_data": 1000, **arguments})


@every_row(
    "arguments",
    [
        {"correction": "both"},
        {"noise": "none"},
        {"correction_method": "exact"},
        {"correction_method": "autodiff", "structure": "diagonal"},
    ],
)
def test_sngd_refuses(arguments):
    with pytest.raises(ValueError, match="Received"):
        kl.SNGD(0.1, num_data=100, batch_size=5, **arguments)


def test_a_dense_matrix_that_would_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(dense_fisher, "MEMORY_LIMIT", 1000)
    model = small_network(2)
    with pytest.raises(ValueError, match=r"26 weights.*quasi_diagonal"):
        kl.NGD(0.1, num_data=100, batch_size=5).build(model.trainable_variables)


def fitted(optimizer, batches, num_data=60, **fit):
    keras.utils.set_random_seed(0)
    model = small_network(2)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(num_data, 3)).astype("float32"), rng.integers(0, 2, num_data)
    model.compile(optimizer, CLASSES, jit_compile=JIT_IF_NEEDED)
    sampler = kl.PosteriorSampler(burn_in=1)
    data = (kl.RandomBatches(x, y, batches),) if fit.pop("random", True) else (x, y, batches)
    history = model.fit(*data, epochs=3, verbose=0, callbacks=[sampler], **fit)
    return sampler, history


@pytest.mark.parametrize(
    "make",
    [
        lambda: kl.NGD(0.1, num_data=60, temperature=0.2, seed=1),
        pytest.param(
            lambda: kl.NGD(0.1, num_data=60, temperature=0.2, structure="quasi_diagonal", seed=1),
            marks=pytest.mark.law,
        ),
        lambda: kl.SNGD(0.1, num_data=60, temperature=0.2, seed=1, fisher="empirical"),
        pytest.param(
            lambda: kl.SNGD(
                "auto", num_data=60, noise="gaussian", correction_method="midpoint", seed=1
            ),
            marks=pytest.mark.law,
        ),
    ],
    ids=["ngd", "quasi_diagonal", "empirical", "gaussian_auto"],
)
def test_fit_and_ensemble(make):
    optimizer = make()
    sampler, history = fitted(optimizer, optimizer.batch_size or 15)
    assert len(sampler.samples) == 2
    assert np.isfinite(history.history["loss"]).all()
    assert history.history["temperature"][-1] == pytest.approx(optimizer.temperature)
    mean = sampler.ensemble().predict(np.zeros((2, 3)), verbose=0)
    assert mean.sum(axis=1) == pytest.approx(1.0, rel=1e-5)


def test_fit_with_other_batches_is_refused():
    with pytest.raises(ValueError, match=r"batches of 10.*Received: batches of 12"):
        fitted(kl.NGD(0.1, num_data=60, batch_size=10), 12)


def test_epochs_through_shuffled_data_warn():
    with pytest.warns(UserWarning, match="balance each other.*only 4 examples"):
        fitted(kl.NGD(0.1, num_data=60, batch_size=8), 8, random=False)


def test_without_data_the_metric_says_what_to_do():
    optimizer = kl.NGD(0.1, num_data=60, batch_size=8)
    model = small_network(2)
    model.compile(optimizer, CLASSES)
    kl.track_statistics(model, optimizer)
    with pytest.raises(ValueError, match="set_data"):
        model.fit(np.zeros((8, 3)), np.zeros(8), verbose=0)
