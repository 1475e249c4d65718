"""Entropies, quantiles and densities of mixtures against NumPy, SciPy and TFP in float64."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import optimize, special, stats
from targets.rows import every_row

from keras_langevin.losses import GaussianNLL
from keras_langevin.predictive import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    resolve_families,
)
from keras_langevin.predictive.entropy import (
    bernoulli_entropy,
    categorical_entropy,
    entropy_parts,
    log_mean_exp,
)
from keras_langevin.predictive.quantiles import (
    gaussian_mixture_quantiles,
    member_quantiles,
    normal_cdf,
)

RNG = np.random.default_rng(0)
MEMBERS, BATCH, CLASSES = 6, 5, 4


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, "float32"))


def array(x):
    return ops.convert_to_numpy(x)


# ------------------------------------------------------------------------------ entropies


def test_entropies_equal_scipy():
    p = special.softmax(3 * RNG.normal(size=(BATCH, CLASSES)), axis=-1)
    np.testing.assert_allclose(
        array(categorical_entropy(tensor(p))), stats.entropy(p, axis=-1), rtol=1e-5
    )
    np.testing.assert_allclose(
        array(bernoulli_entropy(tensor(p))), stats.bernoulli(p).entropy(), rtol=1e-5
    )


def test_entropies_of_certain_predictions_are_plain_zeros():
    for values in (
        array(categorical_entropy(tensor([[1, 0, 0], [0, 0, 1]]))),
        array(bernoulli_entropy(tensor([0, 1]))),
    ):
        assert np.all(values == 0) and not np.any(np.signbit(values))


def test_epistemic_entropy_is_the_mutual_information_of_label_and_member():
    p = special.softmax(3 * RNG.normal(size=(MEMBERS, BATCH, CLASSES)), axis=-1)
    p[0, 0] = np.eye(CLASSES)[1]
    parts = {k: array(v) for k, v in entropy_parts(tensor(p), categorical_entropy).items()}
    joint = p / MEMBERS  # of (member, class) for each example
    product = joint.sum(0, keepdims=True) * joint.sum(-1, keepdims=True)
    information = special.rel_entr(joint, product).sum((0, 2))
    np.testing.assert_allclose(parts["epistemic"], information, atol=1e-6)
    np.testing.assert_allclose(parts["total"], stats.entropy(p.mean(0), axis=-1), rtol=1e-5)
    np.testing.assert_allclose(parts["total"], parts["aleatoric"] + parts["epistemic"], atol=1e-6)


def test_members_that_agree_leave_no_epistemic_uncertainty():
    p = np.repeat(special.softmax(RNG.normal(size=(1, BATCH, CLASSES)), axis=-1), 3, axis=0)
    epistemic = array(entropy_parts(tensor(p), categorical_entropy)["epistemic"])
    assert np.all(epistemic >= 0) and np.all(epistemic < 1e-6)


def test_log_mean_exp_survives_what_exp_does_not():
    assert array(log_mean_exp(tensor([-200.0, -300.0]))) == pytest.approx(-200 - np.log(2))
    assert array(log_mean_exp(tensor([-np.inf, -np.inf]))) == -np.inf


# ------------------------------------------------------------------------------ quantiles


def test_member_quantiles_equal_numpy():
    values = RNG.normal(size=(MEMBERS, BATCH, 2))
    quantiles = (0.01, 0.2, 0.5, 0.77)
    np.testing.assert_allclose(
        array(member_quantiles(tensor(values), quantiles)),
        np.quantile(values, quantiles, axis=0),
        rtol=1e-5,
    )
    assert member_quantiles(tensor(values[:1]), quantiles).shape == (4, BATCH, 2)


def test_normal_cdf_is_accurate_in_both_tails():
    z = np.linspace(-8, 8, 401).astype("float32")
    np.testing.assert_allclose(array(normal_cdf(tensor(z))), stats.norm.cdf(z), rtol=2e-5)
    np.testing.assert_allclose(array(normal_cdf(tensor(z))), stats.norm.cdf(z), atol=2e-7, rtol=0)


def test_mixture_quantiles_invert_the_cdf_of_the_mixture():
    mean = 3 * RNG.normal(size=(MEMBERS, BATCH, 2))
    stddev = np.exp(RNG.normal(size=(MEMBERS, BATCH, 2)))
    quantiles = (0.001, 0.05, 0.5, 0.9)
    result = array(gaussian_mixture_quantiles(tensor(mean), tensor(stddev), quantiles))
    assert result.shape == (4, BATCH, 2)
    for i, q in enumerate(quantiles):
        for b in range(BATCH):
            for d in range(2):
                exact = optimize.brentq(
                    lambda x, b=b, d=d, q=q: (
                        stats.norm.cdf(x, mean[:, b, d], stddev[:, b, d]).mean() - q
                    ),
                    -100,
                    100,
                )
                assert result[i, b, d] == pytest.approx(exact, rel=2e-4, abs=2e-4)
    # Not the quantiles of the means: those leave the noise out.
    assert np.all(result[1] < np.quantile(mean, 0.05, axis=0))


# ------------------------------------------------------------------------------ densities


def test_categorical_density_of_logits_and_probabilities():
    logits = 2 * RNG.normal(size=(MEMBERS, BATCH, CLASSES))
    p = special.softmax(logits, axis=-1)
    y = np.arange(BATCH) % CLASSES
    expected = np.log(p.mean(0)[np.arange(BATCH), y])
    one_hot, soft = np.eye(CLASSES)[y], special.softmax(RNG.normal(size=(BATCH, CLASSES)), -1)
    of_soft = special.logsumexp(np.sum(soft * np.log(p), axis=-1), axis=0) - np.log(MEMBERS)
    for family, outputs in ((Categorical("logits"), logits), (Categorical("probabilities"), p)):
        for labels in (y, y[:, None], one_hot):
            density = array(family.log_density(tensor(outputs), ops.convert_to_tensor(labels)))
            np.testing.assert_allclose(density, expected, rtol=1e-5)
        np.testing.assert_allclose(
            array(family.log_density(tensor(outputs), tensor(soft))),
            of_soft,
            rtol=1e-5,
        )


def test_density_of_logits_is_finite_where_the_probability_underflows():
    logits = np.tile([0.0, 300.0], (MEMBERS, 1, 1))
    density = array(Categorical("logits").log_density(tensor(logits), ops.zeros((1,), "int32")))
    assert density == pytest.approx([-300])


def test_a_label_that_is_no_class_gives_nan_and_of_another_shape_an_error():
    family, outputs = Categorical("logits"), tensor(np.zeros((MEMBERS, 3, CLASSES)))
    density = array(family.log_density(outputs, ops.convert_to_tensor([0, CLASSES, -1])))
    assert np.isfinite(density[0]) and np.isnan(density[1:]).all()
    with pytest.raises(ValueError, match=r"y.shape=\(3, 2\)"):
        family.log_density(outputs, ops.zeros((3, 2)))


def test_probabilities_of_positions():
    logits = RNG.normal(size=(MEMBERS, BATCH, 3, CLASSES))
    y = RNG.integers(0, CLASSES, (BATCH, 3))
    p = special.softmax(logits, axis=-1).mean(0)
    np.testing.assert_allclose(
        array(Categorical("logits").log_density(tensor(logits), ops.convert_to_tensor(y))),
        np.log(np.take_along_axis(p, y[..., None], -1)[..., 0]),
        rtol=1e-5,
    )


def test_bernoulli_density_of_each_unit():
    logits = 2 * RNG.normal(size=(MEMBERS, BATCH, 3))
    y = RNG.integers(0, 2, (BATCH, 3))
    p = special.expit(logits).mean(0)
    expected = stats.bernoulli(p).logpmf(y)
    for family, outputs in (
        (Bernoulli("binary_logits"), logits),
        (Bernoulli("binary_probabilities"), special.expit(logits)),
    ):
        density = array(family.log_density(tensor(outputs), ops.convert_to_tensor(y)))
        np.testing.assert_allclose(density, expected, rtol=1e-4)


def test_gaussian_densities_and_variances():
    mean, log_stddev = RNG.normal(size=(2, MEMBERS, BATCH, 2))
    y = RNG.normal(size=(BATCH, 2))
    for family, outputs, stddev in (
        (Gaussian(0.7), mean, np.full_like(mean, 0.7)),
        (Gaussian("mse"), mean, np.full_like(mean, 1.0)),  # d = 2: variance d / 2
        (
            HeteroscedasticGaussian(),
            np.concatenate([mean, log_stddev], axis=-1),
            np.exp(log_stddev),
        ),
    ):
        joint = stats.norm(mean, stddev).logpdf(y).sum(-1)  # over units, then over members
        expected = special.logsumexp(joint, axis=0) - np.log(MEMBERS)
        density = array(family.log_density(tensor(outputs), tensor(y)))
        np.testing.assert_allclose(density, expected, rtol=1e-4)
        parts = {k: array(v) for k, v in family.uncertainty(tensor(outputs), (0.5,)).items()}
        np.testing.assert_allclose(parts["aleatoric"], (stddev**2).mean(0), rtol=1e-4)
        np.testing.assert_allclose(parts["epistemic"], mean.var(0), rtol=1e-4)
        second_moment = (stddev**2 + mean**2).mean(0)
        np.testing.assert_allclose(parts["total"], second_moment - mean.mean(0) ** 2, rtol=1e-4)
        np.testing.assert_allclose(parts["stddev"] ** 2, parts["total"], rtol=1e-5)


def test_the_noise_of_a_mean_squared_error_makes_it_a_negative_log_likelihood():
    """N times the loss and -log likelihood differ by a constant alone, for any d."""
    for d in (1, 3):
        mean, y = RNG.normal(size=(2, BATCH, d))
        loss = BATCH * float(keras.losses.MeanSquaredError()(tensor(y), tensor(mean)))
        density = Gaussian("mse").log_density(tensor(mean[None]), tensor(y))
        at_mean = Gaussian("mse").log_density(tensor(y[None]), tensor(y))
        assert loss == pytest.approx(float(np.sum(array(at_mean) - array(density))), rel=1e-4)


# --------------------------------------------------------------------------- GaussianNLL


def test_gaussian_nll_equals_scipy():
    y, mean, log_stddev = RNG.normal(size=(3, BATCH, 2))
    loss = GaussianNLL(stddev=0.3)(tensor(y), tensor(mean))
    assert float(loss) == pytest.approx(-stats.norm(mean, 0.3).logpdf(y).sum(-1).mean(), rel=1e-5)
    outputs = np.concatenate([mean, log_stddev], axis=-1)
    expected = -stats.norm(mean, np.exp(log_stddev)).logpdf(y).sum(-1)
    assert float(GaussianNLL()(tensor(y), tensor(outputs))) == pytest.approx(
        expected.mean(), rel=1e-5
    )
    per_example = array(GaussianNLL(reduction=None)(tensor(y), tensor(outputs)))
    np.testing.assert_allclose(per_example, expected, rtol=1e-4)


def test_gaussian_nll_is_serialisable():
    loss = GaussianNLL(stddev=0.3, name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, GaussianNLL) and again.stddev == 0.3 and again.name == "mine"


def test_gaussian_nll_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="stddev=0"):
        GaussianNLL(stddev=0)
    with pytest.raises(ValueError, match="even length"):
        GaussianNLL()(tensor(np.zeros((2, 1))), tensor(np.zeros((2, 3))))
    with pytest.raises(ValueError, match="even length"):  # not halves of the batch
        GaussianNLL()(tensor(np.zeros(2)), tensor(np.zeros(2)))
    with pytest.raises(ValueError, match="shape of the predicted means"):
        GaussianNLL()(tensor(np.zeros((2, 4))), tensor(np.zeros((2, 4))))


# ------------------------------------------------------------------- what outputs mean


def network(units=3, activation=None, loss=None, **kwargs):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(units, activation=activation)])
    if loss is not None:
        model.compile(loss=loss, **kwargs)
    return model


def make(name, *args, **kwargs):
    return getattr(keras.losses, name)(*args, **kwargs)


@every_row(
    "loss, activation, family, output, noise",
    [
        (
            make("SparseCategoricalCrossentropy", from_logits=True),
            None,
            Categorical,
            "logits",
            None,
        ),
        (make("CategoricalCrossentropy", from_logits=True), None, Categorical, "logits", None),
        ("sparse_categorical_crossentropy", "softmax", Categorical, "probabilities", None),
        ("SparseCategoricalCrossentropy", "softmax", Categorical, "probabilities", None),
        (keras.losses.categorical_crossentropy, "softmax", Categorical, "probabilities", None),
        ("crossentropy", "softmax", Categorical, "probabilities", None),
        (make("BinaryCrossentropy", from_logits=True), None, Bernoulli, "binary_logits", None),
        ("binary_crossentropy", "sigmoid", Bernoulli, "binary_probabilities", None),
        ("mse", None, Gaussian, "mean", "mse"),
        ("mean_squared_error", None, Gaussian, "mean", "mse"),
        (make("MeanSquaredError"), "sigmoid", Gaussian, "mean", "mse"),
        (GaussianNLL(0.2), None, Gaussian, "mean", 0.2),
        (GaussianNLL(), None, HeteroscedasticGaussian, "mean_and_log_scale", None),
    ],
)
def test_the_compiled_loss_says_what_outputs_mean(loss, activation, family, output, noise):
    found = resolve_families(network(activation=activation, loss=loss))
    assert type(found) is family and found.output == output and found.noise_stddev == noise


class MySparse(keras.losses.SparseCategoricalCrossentropy):
    pass


@every_row(
    "loss",
    [None, "hinge", make("CosineSimilarity"), MySparse(), make("MeanSquaredError", "sum")],
)
def test_an_unknown_loss_needs_output(loss):
    model = network(loss=loss)
    with pytest.raises(ValueError, match='Pass `output=`, one of:\n  "logits"'):
        resolve_families(model)
    assert resolve_families(model, output="logits").output == "logits"


@every_row(
    "model, output, noise, message",
    [
        (("mse",), "logits", None, 'Received: output="logits"'),
        (("mse",), None, 0.5, "Received: noise_stddev=0.5"),
        (("mse",), "mean", 0.5, 'Received: output="mean", noise_stddev=0.5'),
        ((GaussianNLL(0.2),), "mean", 0.5, "noise_stddev=0.5"),
        ((None,), "mean", None, "must come with `noise_stddev`"),
        ((None,), "mean", -1.0, "greater than zero"),
        ((None,), "logits", 1.0, 'only for output="mean"'),
        ((None,), "classes", None, "output='classes'"),
        (("sparse_categorical_crossentropy",), None, None, "activation is linear"),
        (("binary_crossentropy",), None, None, "activation is linear"),
        (
            (make("SparseCategoricalCrossentropy", from_logits=True), "softmax"),
            None,
            None,
            "activation is softmax",
        ),
        ((make("BinaryCrossentropy", from_logits=True), "sigmoid"), None, None, "is sigmoid"),
        ((None, "softmax"), "logits", None, "activation is softmax"),
    ],
)
def test_contradictions_are_errors(model, output, noise, message):
    loss, activation = (*model, None)[:2]
    model = network(activation=activation, loss=loss)
    with pytest.raises(ValueError) as error:
        resolve_families(model, output=output, noise_stddev=noise)
    assert message in str(error.value)


def test_the_activation_is_found_in_the_last_layer_of_a_nested_model():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.Activation("softmax")])
    inputs = keras.Input((2,))
    with pytest.raises(ValueError, match="activation is softmax"):
        resolve_families(keras.Model(inputs, inner(inputs)), output="logits")


def test_a_weighted_squared_error_has_another_noise():
    model = network(loss="mse", loss_weights=[2.0])
    outputs = np.zeros((1, 1, 3), "float32")
    variance = ops.convert_to_numpy(resolve_families(model).variance(outputs))
    np.testing.assert_allclose(variance, 3 / 2 / 2.0, rtol=1e-6)  # d / 2, over the weight
    assert resolve_families(model, "mean", 0.5).noise_stddev == 0.5
    with pytest.raises(ValueError, match=r"loss_weights=-1\.0"):
        resolve_families(network(loss="mse", loss_weights=[-1.0]))


def test_saying_what_the_loss_says_is_allowed():
    assert resolve_families(network(loss="mse"), "mean", "mse").noise_stddev == "mse"
    assert resolve_families(network(loss=GaussianNLL(0.2)), "mean").noise_stddev == 0.2


def test_each_output_has_its_family():
    inputs = keras.Input((2,))
    heads = {"b": layers.Dense(2, name="x")(inputs), "a": layers.Dense(3, name="y")(inputs)}
    model = keras.Model(inputs, heads)
    found = resolve_families(model, {"a": "logits", "b": "mean"}, {"b": 0.1})
    assert (found["a"].output, found["b"].output, found["b"].noise_stddev) == (
        "logits",
        "mean",
        0.1,
    )
    model = keras.Model(inputs, list(heads.values()))
    model.compile(
        loss={"y": make("SparseCategoricalCrossentropy", from_logits=True), "x": GaussianNLL()}
    )
    assert [f.output for f in resolve_families(model)] == ["mean_and_log_scale", "logits"]
    model.compile(loss=["mse", None])
    assert [f.output for f in resolve_families(model)] == ["mean", "values"]
    with pytest.raises(ValueError, match="structure of the model's outputs"):
        resolve_families(model, output=["mean", "mean", "mean"])
