"""In half precision of activations the samplers keep their law, and the loss scale its own."""

import contextlib

import keras
import numpy as np
import pytest
from cases import SAMPLERS
from keras import ops
from targets import resume_run
from targets.calibration_run import CASES
from targets.regression import STEPS_PER_EXECUTION, Constant, Recorder
from targets.resume_run import assert_same, fresh, interrupted
from targets.small_network import assert_equal, assert_moved, compiled, data, network, weights

import keras_langevin as kl
from keras_langevin import keras_internals

BACKEND = keras.backend.backend()
EXAMPLES, INPUTS, REPLICATIONS = 40, 3, 1000
# Of the weights: numbers of that size lie as far apart in half precision as a step's noise
# reaches, and less than the posterior's width.
STDDEVS = {"bfloat16": 8.0, "float16": 64.0}
HALF = tuple(STDDEVS)
BURN_IN, STEPS = 200, 1200
STEP_SIZE_BIAS = 0.03  # 1/(1 − ηs/2), s about 1
Z = 4.5  # standard errors
ARGUMENTS = {case.name: case.half_precision for case in SAMPLERS}
QUICK = ("SGLD", "QDOPLangevin")
law = pytest.mark.law


@contextlib.contextmanager
def dtype_policy(name):
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


class Problem:
    """A Gaussian linear regression with unit noise for each of the units of a `Dense` layer.

    The inputs are exact in half precision.
    """

    def __init__(self, stddev, seed=0):
        rng = np.random.default_rng(seed)
        self.prior = kl.priors.Normal(stddev)
        self.x = np.round(8 * rng.normal(size=(EXAMPLES, INPUTS))) / 8
        design = np.c_[self.x, np.ones(EXAMPLES)]
        truth = stddev * rng.normal(size=(INPUTS + 1, REPLICATIONS))
        self.y = design @ truth + rng.normal(size=(EXAMPLES, REPLICATIONS))
        precision = design.T @ design + np.eye(INPUTS + 1) / stddev**2
        self.mean = np.linalg.solve(precision, design.T @ self.y)
        self.root = np.linalg.cholesky(precision)

    def draws(self, optimizer, policy, steps=STEPS, burn_in=BURN_IN, batches=None):
        """Of `fit`, from the posterior mean on, whitened: N(0, 1) if the sampler is right.
        Shape (readings, inputs + 1, replications)."""
        model = self.model(optimizer, policy)
        recorder = Recorder(burn_in)
        batches = batches or Constant(self.x, self.y, steps)
        model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[recorder])
        return np.stack([self.root.T @ (weights - self.mean) for weights in recorder.draws])

    def model(self, optimizer, policy):
        with dtype_policy(policy):
            layer = keras.layers.Dense(REPLICATIONS)
            model = keras.Sequential([keras.Input((INPUTS,)), layer])
            model.compile(
                optimizer,
                kl.losses.GaussianNLL(1.0),
                jit_compile=BACKEND != "torch",
                steps_per_execution=STEPS_PER_EXECUTION,
            )
        layer.kernel.assign(self.mean[:-1])
        layer.bias.assign(self.mean[-1])
        kl.track_statistics(model, model.optimizer)
        metric = keras_internals.inner_optimizer(model.optimizer).preconditioner
        if hasattr(metric, "set_data"):
            metric.set_data(self.x.astype("float32"))
        return model


def moments(draws):
    """Means and second moments with their standard errors, from the independent replications."""
    found = []
    for values in (draws.mean(axis=0), np.square(draws).mean(axis=0)):
        found.append((values.mean(axis=1), values.std(axis=1) / REPLICATIONS**0.5))
    return found


def misfits(draws):
    """By how many standard errors the mean, and the variance beyond the bias of the step size,
    are not those of N(0, 1); the largest of all directions."""
    (mean, mean_error), (variance, variance_error) = moments(draws)
    beyond = np.maximum(np.abs(variance - 1) - STEP_SIZE_BIAS, 0)
    return np.abs(mean / mean_error).max(), (beyond / variance_error).max()


def misfits_of(name, half, policy=None, wrap=lambda optimizer: optimizer):
    problem = Problem(STDDEVS[half])
    optimizer = CASES[name](prior=problem.prior, seed=1, **ARGUMENTS.get(name, {}))
    length = {"steps": 1600, "burn_in": 400} if name == "SMILE" else {}
    found = misfits(problem.draws(wrap(optimizer), policy or f"mixed_{half}", **length))
    assert optimizer.nonfinite_steps == 0
    return found


# Each precision and each kind of sampler once on every backend; all pairs of them on one.
EVERYWHERE = (("SGLD", "bfloat16"), ("QDOPLangevin", "float16"))


def marks(name, half):
    if (name, half) in EVERYWHERE:
        return ()
    return pytest.mark.neutral if name in QUICK else law


@pytest.mark.parametrize(
    ("name", "half"),
    [pytest.param(name, half, marks=marks(name, half)) for name in CASES for half in HALF],
)
def test_the_law(name, half):
    mean, variance = misfits_of(name, half)
    assert mean < Z
    assert variance < Z


@law
@pytest.mark.parametrize("half", HALF)
def test_the_law_of_minibatches_as_the_noise(half):
    """That of float32."""
    problem = Problem(STDDEVS[half])

    def variances(policy):
        optimizer = kl.NGD(
            0.2,
            num_data=EXAMPLES,
            batch_size=10,
            structure="quasi_diagonal",
            damping=1e-3,
            noise_stddev=1.0,
            output="mean",
            prior=problem.prior,
            seed=1,
        )
        arrays = problem.x.astype("float32"), problem.y.astype("float32")
        batches = kl.RandomBatches(*arrays, optimizer.batch_size, batches_per_epoch=800)
        return moments(problem.draws(optimizer, policy, burn_in=80, batches=batches))[1]

    (exact, error), (found, other_error) = variances("float32"), variances(f"mixed_{half}")
    assert 0.1 < exact.mean() < 1  # T = 0.3
    assert np.abs((found - exact) / np.hypot(error, other_error)).max() < Z


# ------------------------------------------------------------------------------ mutants


@pytest.mark.neutral
@pytest.mark.filterwarnings("ignore:.*lost in rounding")
@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("SGLD", "bfloat16"),
        pytest.param("SGLD", "float16", marks=law),
        pytest.param("QDOPLangevin", "bfloat16", marks=law),
        ("QDOPLangevin", "float16"),
    ],
)
def test_weights_in_half_precision_would_not_keep_it(name, half):
    scaled = keras.optimizers.LossScaleOptimizer if half == "float16" else lambda o: o
    assert misfits_of(name, half, policy=half, wrap=scaled)[1] > Z


@pytest.mark.neutral
@pytest.mark.parametrize("power", [0, pytest.param(1, marks=law)])
def test_statistics_that_keep_the_loss_scale_would_not(power, monkeypatch):
    scale_of = keras_internals.optimizer._loss_scale
    monkeypatch.setattr(
        keras_internals.optimizer, "_loss_scale", lambda *args: 1.0 * scale_of(*args) ** (power / 2)
    )
    assert misfits_of("QDOPLangevin", "float16")[1] > Z


# --------------------------------------------------------------------------- the loss scale


def wrapped(sampler, initial_scale, **kwargs):
    """A model whose activations are float16, and its sampler."""
    inner = sampler(0.01, num_data=32, seed=1, **kwargs)
    with dtype_policy("mixed_float16"):
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=initial_scale)
        model = compiled(network(4, 2), optimizer)
    return model, inner


@pytest.mark.parametrize(
    "action",
    [pytest.param("raise", marks=pytest.mark.backend), pytest.param("skip", marks=law)],
)
def test_where_the_scale_is_too_large_nothing_moves_and_training_goes_on(action):
    model, inner = wrapped(kl.QDOPLangevin, 2.0**40, on_nonfinite=action)
    sampler = kl.PosteriorSampler(0)
    x, y = data()
    before = weights(model)

    def epoch():
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[sampler])
        return float(model.optimizer.dynamic_scale)

    assert epoch() == 2.0**36
    assert_equal(weights(model), before, 0.0)
    states = [ops.convert_to_numpy(v) for v in inner.variables if v.name != "learning_rate"]
    assert not any(np.any(s) for s in states)
    assert int(inner.iterations) == 0
    while int(inner.iterations) < 12:
        assert epoch() > 2.0**8
    assert_moved(before, weights(model))
    assert inner.nonfinite_steps == 0
    assert all(np.isfinite(a).all() for a in weights(model))


def test_data_that_are_not_finite_raise():
    model, _ = wrapped(kl.SGLD, 2.0**15)
    x, y = data()
    y[3] = np.nan
    with pytest.raises(FloatingPointError, match="loss=nan"):
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[kl.PosteriorSampler(0)])


def test_a_scale_that_bad_examples_have_used_up_raises():
    """Every bad step halves it, until gradients are lost in it."""
    model, _ = wrapped(kl.SGLD, 2.0**-10, on_nonfinite="skip")
    x, y = data()
    y[::8] = np.nan
    sampler = kl.PosteriorSampler(0)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[sampler])
    with pytest.raises(FloatingPointError, match=r"loss scale of float16 at 3\.8e-06.*bfloat16"):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[sampler])
    assert len(sampler.samples) == 1


@law
@pytest.mark.skipif(BACKEND == "tensorflow", reason="the same, and slower to compile")
def test_a_stopped_run_of_float16_goes_on_to_the_same_samples(tmp_path):
    with dtype_policy("mixed_float16"):
        fresh(seed=0)
        whole = resume_run.run(tmp_path / "whole", 9, name="QDOPLangevin")
        resumed = interrupted(tmp_path / "stopped", [14, 9, 3], name="QDOPLangevin")
    assert_same(resumed, whole)
