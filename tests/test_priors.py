"""Priors against SciPy in float64: log-density, score, precision, and what each variable gets."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import integrate, stats
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin import priors

BACKEND = keras.backend.backend()
# JAX has no float64 unless it is switched on for the whole process.
DTYPE, TOLERANCE = ("float32", 2e-5) if BACKEND == "jax" else ("float64", 1e-10)


def hierarchical_reference(value, concentration, rate, mean):
    """log ∫ Gamma(τ; a, b) Π N(θ_i; mean, 1/τ) dτ by quadrature."""

    def joint(precision):
        return stats.gamma.pdf(precision, concentration, scale=1 / rate) * np.prod(
            stats.norm.pdf(value, mean, precision**-0.5)
        )

    integral, _ = integrate.quad(joint, 0, 60, epsabs=0, epsrel=1e-12, limit=400)
    return np.log(integral)


# Each: the prior, its log-density by other means, the precision of one entry.
CASES = {
    "flat": (priors.Flat(), lambda v: 0.0, 0.0),
    "normal": (priors.Normal(0.7, 0.2), lambda v: stats.norm.logpdf(v, 0.2, 0.7).sum(), 0.7**-2),
    "laplace": (
        priors.Laplace(0.4, -0.1),
        lambda v: stats.laplace.logpdf(v, -0.1, 0.4).sum(),
        1 / stats.laplace.var(scale=0.4),
    ),
    "student_t": (
        priors.StudentT(3.0, 0.6, 0.1),
        lambda v: stats.t.logpdf(v, 3.0, 0.1, 0.6).sum(),
        4 / (3 * 0.6**2),
    ),
    "hierarchical": (
        priors.HierarchicalNormal(1.5, 0.8, 0.1),
        lambda v: hierarchical_reference(v, 1.5, 0.8, 0.1),
        stats.gamma.mean(1.5, scale=1 / 0.8),
    ),
}
all_priors = every_row("name", CASES)


def values():
    return np.random.default_rng(0).normal(size=(2, 3))


def tensor(array):
    return ops.convert_to_tensor(np.asarray(array), dtype=DTYPE)


def numerical_derivative(function, value, step=1e-5):
    """Central differences, entry by entry."""
    derivative = np.zeros_like(value)
    for index in np.ndindex(value.shape):
        offset = np.zeros_like(value)
        offset[index] = step
        derivative[index] = (function(value + offset) - function(value - offset)) / (2 * step)
    return derivative


@all_priors
def test_log_density(name):
    prior, reference, _ = CASES[name]
    for value in (values(), 5 * values()):
        density = prior.log_density(tensor(value))
        assert tuple(density.shape) == ()
        assert float(density) == pytest.approx(reference(value), rel=max(TOLERANCE, 1e-8))


@all_priors
def test_score_is_the_derivative(name):
    prior, reference, _ = CASES[name]
    score = ops.convert_to_numpy(prior.score(tensor(values())))
    assert score.shape == (2, 3)
    expected = numerical_derivative(reference, values())
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-6)


@all_priors
def test_precision(name):
    prior, _, precision = CASES[name]
    assert prior.precision((2, 3)) == pytest.approx(precision)


@all_priors
def test_config_round_trip(name):
    prior = CASES[name][0]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(prior))
    assert type(again) is type(prior)
    assert again.get_config() == prior.get_config()


def test_the_score_keeps_float32():
    for prior, _, _ in CASES.values():
        score = prior.score(ops.convert_to_tensor(values(), dtype="float32"))
        assert keras.backend.standardize_dtype(score.dtype) == "float32"


@every_row("prior_class", [priors.Normal, priors.Laplace, priors.StudentT])
@every_row("value", [0, -1.0, np.nan, np.inf, True, "1"])
def test_bad_arguments(prior_class, value):
    name = "stddev" if prior_class is priors.Normal else "scale"
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}="):
        prior_class(**{name: value})
    if value not in (0, -1.0):
        with pytest.raises(ValueError, match=r"`mean` must be .*Received: mean="):
            prior_class(mean=value)


# ------------------------------------------------------------------- fan-in and patterns


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


def stddev(prior, variable):
    return prior.for_variable(variable).stddev


def test_fan_in_of_the_layers():
    layers = keras.layers
    prior = priors.FanInNormal(scale=3.0, bias_stddev=0.2, embedding_stddev=0.4)
    dense = built(layers.Dense(7), 5)
    convolution = built(layers.Conv2D(7, (3, 2)), 8, 8, 5)
    depthwise = built(layers.DepthwiseConv2D((3, 2), depth_multiplier=2), 8, 8, 5)
    separable = built(layers.SeparableConv2D(7, (3, 2)), 8, 8, 5)
    embedding = built(layers.Embedding(50, 7))
    normalization = built(layers.LayerNormalization(), 5)
    for variable, fan_in in [
        (dense.kernel, 5),
        (convolution.kernel, 3 * 2 * 5),
        (depthwise.kernel, 3 * 2),
        (separable.depthwise_kernel, 3 * 2),
        (separable.pointwise_kernel, 5),
    ]:
        assert stddev(prior, variable) == pytest.approx((3.0 / fan_in) ** 0.5), variable.path
    for variable in (dense.bias, convolution.bias, depthwise.bias, normalization.gamma):
        assert stddev(prior, variable) == 0.2, variable.path
    assert prior.for_variable(normalization.gamma).mean == 1.0
    assert stddev(prior, embedding.embeddings) == 0.4


def test_the_first_pattern_that_matches_decides():
    first, second = built(keras.layers.Dense(2, name="first"), 3), built(keras.layers.Dense(4), 2)
    mapping = {r"first/kernel$": kl.priors.Laplace(0.3), r"bias": None, r".*": priors.FanInNormal()}
    prior = priors.get(mapping)
    assert prior.for_variable(first.kernel).get_config() == {"scale": 0.3, "mean": 0.0}
    assert isinstance(prior.for_variable(first.bias), priors.Flat)
    assert stddev(prior, second.kernel) == pytest.approx(5**0.5)  # FanInNormal sees the shape


def test_patterns_within_patterns_survive_serialisation():
    inner = {"kernel": priors.StudentT(5.0), ".*": priors.FanInNormal(2.0)}
    prior = priors.get({"dense": inner, ".*": None})
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(prior))
    assert again.get_config() == prior.get_config()
    layer = built(keras.layers.Dense(2), 4)
    assert isinstance(again.for_variable(layer.kernel), priors.StudentT)
    assert stddev(again, layer.bias) == 1.0
    other = built(keras.layers.LayerNormalization(), 4)
    assert isinstance(again.for_variable(other.gamma), priors.Flat)


def test_a_variable_that_no_pattern_matches():
    layer = built(keras.layers.Dense(2), 4)
    prior = priors.get({"embeddings": priors.Normal()})
    with pytest.raises(ValueError, match=r"No pattern .*dense/kernel.*Add a last entry"):
        prior.for_variable(layer.kernel)


@every_row("pattern", ["(", 3])
def test_a_pattern_that_is_no_regular_expression(pattern):
    with pytest.raises(ValueError, match="must be regular expressions"):
        priors.get({pattern: priors.Normal()})


def test_get():
    assert isinstance(priors.get(None), priors.Flat)
    assert priors.get(CASES["normal"][0]) is CASES["normal"][0]
    with pytest.raises(ValueError, match=r"`prior` must be one of .*Received: prior='normal'"):
        priors.get("normal")


# ------------------------------------------------------------------ TensorFlow Probability


class LooksLikeTFP:
    def log_prob(self, value):
        return value


@pytest.mark.skipif(BACKEND == "tensorflow", reason="other backends")
def test_tfp_is_refused_without_tensorflow():
    with pytest.raises(ValueError, match="TensorFlow backend only"):
        priors.get(LooksLikeTFP())


@pytest.mark.backend
@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow only")
def test_tfp_distribution():
    import tensorflow_probability as tfp

    prior = priors.get(tfp.distributions.Normal(0.2, 0.7))
    value = ops.cast(tensor(values()), "float32")
    np.testing.assert_allclose(prior.log_density(value), CASES["normal"][1](values()), rtol=1e-5)
    np.testing.assert_allclose(prior.score(value), (0.2 - values()) / 0.7**2, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"float32\. Received: .*float64"):
        priors.get(tfp.distributions.Normal(np.float64(0.2), np.float64(0.7)))
    assert prior.precision((2,)) == pytest.approx(0.7**-2, rel=0.05)
    assert priors.get(tfp.distributions.Cauchy(0.0, 1.0)).precision(()) == pytest.approx(
        stats.norm.ppf(0.75) ** 2, rel=0.05
    )
    with pytest.raises(ValueError, match="cannot be serialised"):
        prior.get_config()
    with pytest.raises(ValueError, match=r"one number.*batch_shape=\(2,\)"):
        priors.get(tfp.distributions.Normal([0.0, 1.0], 1.0))
    with pytest.raises(ValueError, match=r"one number.*event_shape=\(2,\)"):
        priors.get(tfp.distributions.MultivariateNormalDiag([0.0, 1.0]))


@pytest.mark.backend
@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow only")
def test_tfp_distribution_inside_fit():
    """The same path as the prior of this package, compiled."""
    import tensorflow_probability as tfp

    def path(prior):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(kl.SGLD(0.1, num_data=4, prior=prior, seed=1), "mse", jit_compile=True)
        x = np.ones((8, 3), "float32")
        model.fit(x, x[:, :2], batch_size=4, epochs=2, verbose=0)
        return model.get_weights()[0]

    np.testing.assert_allclose(
        path(tfp.distributions.Normal(0.0, 0.5)), path(priors.Normal(0.5)), rtol=1e-5
    )
    assert np.abs(path(priors.Normal(0.5)) - path(priors.Normal(0.1))).max() > 0.01
