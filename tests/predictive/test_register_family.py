"""Likelihoods of one's own: the table of families, and what follows from what a family states."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import special, stats
from targets.statistics_cases import measured

import keras_langevin as kl
from keras_langevin.predictive import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    registry,
)
from keras_langevin.predictive.fisher_scores import scores
from keras_langevin.predictive.output import resolve_families
from keras_langevin.predictive.quality_of_samples import ranks_among_samples
from keras_langevin.report.findings import findings
from keras_langevin.storage.sample import Sample

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
RATES = RNG.gamma(2.0, 2.0, (4, 5, 2)).astype("float32")  # members, batch, units
COUNTS = RNG.poisson(RATES[0])

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]


def log_poisson(y, log_rate):
    return y * log_rate - ops.exp(log_rate) - kl.predictive.log_gamma(y + 1)


class PoissonNLL(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return -ops.sum(log_poisson(y_true, y_pred), axis=-1)


class Poisson(kl.predictive.Family):
    output, meaning = "log_rates", "logarithms of the rates of counts"
    support = "counts"
    impossible_activations = ("softmax",)

    def parameters(self, outputs):
        return ops.exp(outputs)

    def mean(self, rate):
        return rate

    def variance(self, rate):
        return rate

    def log_likelihood(self, outputs, y):
        return log_poisson(y, outputs)

    def fisher_scores(self, outputs, draws):
        return ops.exp(0.5 * outputs) * draws

    def sample(self, rate, generator):
        return generator.poisson(rate)

    def component(self, rate, tfp):
        return tfp.distributions.Independent(tfp.distributions.Poisson(rate), 1)


class Laplace(kl.predictive.Family):
    """Of real numbers, with two parameters for each, and units that are labels of their own."""

    output, meaning = "median_and_log_scale", "medians and then logarithms of scales"
    sums_units = False

    def parameters(self, outputs):
        half = outputs.shape[-1] // 2
        return {"median": outputs[..., :half], "scale": ops.exp(outputs[..., half:])}

    def mean(self, parameters):
        return parameters["median"]

    def variance(self, parameters):
        return 2 * parameters["scale"] ** 2

    def log_likelihood(self, outputs, y):
        p = self.parameters(outputs)
        return -ops.abs(y - p["median"]) / p["scale"] - ops.log(2 * p["scale"])

    def cdf(self, parameters, y):
        z = (y - parameters["median"]) / parameters["scale"]
        tail = 0.5 * ops.exp(-ops.abs(z))
        return ops.where(z < 0, tail, 1 - tail)


@pytest.fixture
def table(monkeypatch):
    """The package's own families alone; after the test the tables are as they were."""

    def own(table):
        return {k: v for k, v in table.items() if "keras_langevin" in str(v)}

    for name in ("_BY_NAME", "_BY_LOSS"):
        monkeypatch.setattr(registry, name, own(getattr(registry, name)))


@pytest.fixture
def poisson(table):
    return kl.predictive.register_family(PoissonNLL)(Poisson)()


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, "float32"))


def array(x):
    return ops.convert_to_numpy(x)


def network(loss=None, units=1, optimizer="sgd", **kwargs):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(units, **kwargs)])
    if loss is not None:
        model.compile(optimizer, loss=loss)
    return model


# ------------------------------------------------------------------------------ the table


def test_a_family_is_found_by_its_loss_and_by_its_name(poisson):
    class Renamed(PoissonNLL):
        def __init__(self):
            super().__init__(name="renamed")

    for loss in (PoissonNLL(), Renamed()):
        assert type(resolve_families(network(loss))) is Poisson
    assert type(resolve_families(network("hinge"), output="log_rates")) is Poisson
    assert resolve_families(network(PoissonNLL()), output="log_rates").output == "log_rates"


@pytest.mark.parametrize("key", [keras.losses.cosine_similarity, "cosine_similarity"])
def test_a_function_or_its_name_is_a_loss_too(table, key):
    kl.predictive.register_family((PoissonNLL, key))(Poisson)
    assert type(resolve_families(network("cosine_similarity"))) is Poisson
    assert type(resolve_families(network(keras.losses.cosine_similarity))) is Poisson
    with pytest.raises(ValueError, match="must be known"):
        resolve_families(network(keras.losses.CosineSimilarity()))


def test_a_loss_that_computes_something_else_is_another(poisson, table):
    class Weighted(PoissonNLL):
        def call(self, y_true, y_pred):
            return 2 * super().call(y_true, y_pred)

    with pytest.raises(ValueError) as error:
        resolve_families(network(Weighted()))
    assert '"log_rates": logarithms of the rates of counts' in str(error.value)
    assert "kl.predictive.register_family" in str(error.value)
    kl.predictive.register_family(Weighted)(type("Tempered", (Poisson,), {"output": "tempered"}))
    assert resolve_families(network(Weighted())).output == "tempered"


def test_names_are_not_dispatched_by_their_first_letter(table):
    for name in ("poisson", "l", "p", "b", "m", "binary", "probability"):
        with pytest.raises(ValueError, match='must be one of:\n  "logits"'):
            resolve_families(network("hinge"), output=name)


def test_a_contradiction_and_an_impossible_activation_are_errors(poisson):
    with pytest.raises(ValueError, match=r'means output="log_rates"\. Received: output="logits"'):
        resolve_families(network(PoissonNLL()), output="logits")
    with pytest.raises(ValueError) as error:
        resolve_families(network(PoissonNLL(), units=2, activation="softmax"))
    assert "Received: activation=softmax. Change `output` or the activation" in str(error.value)
    with pytest.raises(ValueError, match='only for output="mean"'):
        resolve_families(network("hinge"), output="log_rates", noise_stddev=1.0)


def test_registering_twice_is_refused_unless_asked_for(poisson):
    other = type("Other", (Poisson,), {})
    with pytest.raises(ValueError, match="for PoissonNLL is registered already: Poisson"):
        kl.predictive.register_family(PoissonNLL)(other)
    with pytest.raises(ValueError, match='for output="log_rates" is registered already'):
        kl.predictive.register_family()(other)
    assert type(resolve_families(network(PoissonNLL()))) is Poisson
    kl.predictive.register_family(PoissonNLL, replace=True)(other)
    assert type(resolve_families(network(PoissonNLL()))) is other


def test_a_cell_that_is_run_again_is_no_second_family(table):
    def cell():
        class Again(Poisson):
            output = "again"

        return kl.predictive.register_family()(Again)

    cell()
    second = cell()
    assert type(resolve_families(network("hinge"), output="again")) is second


@pytest.mark.parametrize(
    ("loss", "family", "words"),
    [
        (PoissonNLL(), Poisson, "Received: loss=<.*Pass the class"),
        ("no_such_loss", Poisson, "Received: loss='no_such_loss'"),
        (keras.layers.Dense, Poisson, "must be a subclass of `keras.losses.Loss`"),
        (None, Poisson, "Received: loss=None"),
        ((), kl.predictive.Family, 'Write `output = "log_rates"`'),
        ((), PoissonNLL, "must be a subclass of `kl.predictive.Family`"),
    ],
)
def test_what_cannot_be_registered_is_refused(table, loss, family, words):
    with pytest.raises(ValueError, match=words):
        kl.predictive.register_family(loss)(family)


# --------------------------------------------------------- what follows from what is stated


def check_against_scipy(family, log_rates, counts):
    """Densities and moments of each member and of their mixture."""
    rates = np.exp(log_rates.astype("float64"))
    expected = stats.poisson(rates).logpmf(counts).sum(axis=-1)
    found = array(family.log_densities(tensor(log_rates), tensor(counts)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    mixture = special.logsumexp(expected, axis=0) - np.log(len(rates))
    found = array(family.log_density(tensor(log_rates), tensor(counts)))
    np.testing.assert_allclose(found, mixture, rtol=1e-5, atol=1e-5)
    parts = {k: array(v) for k, v in family.uncertainty(tensor(log_rates), ()).items()}
    np.testing.assert_allclose(parts["mean"], rates.mean(axis=0), rtol=1e-5)
    second = (rates + rates**2).mean(axis=0)
    np.testing.assert_allclose(parts["total"], second - rates.mean(axis=0) ** 2, rtol=1e-4)
    np.testing.assert_allclose(parts["aleatoric"], rates.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(parts["stddev"] ** 2, parts["total"], rtol=1e-5)


def test_densities_and_moments_equal_scipy():
    check_against_scipy(Poisson(), np.log(RATES), COUNTS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"log_likelihood": lambda self, o, y: y * o - ops.exp(o)},  # a constant forgotten
        {"log_likelihood": lambda self, o, y: log_poisson(y, o + 0.01)},
        {"variance": lambda self, rate: rate**2},
        {"mean": lambda self, rate: rate + 0.01},
        {"sums_units": False},
    ],
)
def test_a_wrong_family_is_noticed(wrong):
    with pytest.raises(AssertionError):
        check_against_scipy(type("Wrong", (Poisson,), wrong)(), np.log(RATES), COUNTS)


def test_labels_of_one_number_may_lack_the_last_axis():
    family, outputs, y = Poisson(), tensor(np.log(RATES[..., :1])), COUNTS[:, 0]
    found = array(family.log_density(outputs, tensor(y)))
    np.testing.assert_allclose(found, array(family.log_density(outputs, tensor(y[:, None]))))
    with pytest.raises(ValueError, match=r"y\.shape=\(5, 2\), mean\.shape=\(5, 1\)"):
        family.log_density(outputs, tensor(COUNTS))


def test_quantiles_of_counts_are_exact():
    levels = (0.001, 0.05, 0.5, 0.95, 0.9999)
    found = array(Poisson().quantiles(tensor(np.log(RATES)), levels))
    cdf = stats.poisson(RATES.astype("float64")).cdf(np.arange(200)[:, None, None, None])
    expected = [(cdf.mean(axis=1) < level).sum(axis=0) for level in levels]
    np.testing.assert_array_equal(found, expected)


def test_quantiles_of_rates_that_are_no_numbers_leave_the_others_alone():
    log_rates = np.log(RATES)
    expected = array(Poisson().quantiles(tensor(log_rates), (0.5,)))[0]
    log_rates[0, 0, 0], log_rates[1, 1, 1] = np.nan, 100.0
    found = array(Poisson().quantiles(tensor(log_rates), (0.5,)))[0]
    assert np.isnan(found[0, 0]) and np.isnan(found[1, 1])  # e^100 overflows, as its variance
    found[0, 0], found[1, 1] = expected[0, 0], expected[1, 1]
    np.testing.assert_array_equal(found, expected)


def test_quantiles_of_real_numbers_solve_the_cdf():
    outputs = RNG.normal(size=(4, 5, 6)).astype("float32")
    laplace = stats.laplace(outputs[..., :3], np.exp(outputs[..., 3:]))
    levels = (0.01, 0.3, 0.5, 0.99)
    found = array(Laplace().quantiles(tensor(outputs), levels))
    for level, quantile in zip(levels, found, strict=True):
        np.testing.assert_allclose(laplace.cdf(quantile).mean(axis=0), level, atol=1e-5)


def test_real_numbers_are_drawn_by_the_inverse_of_the_cdf():
    outputs = np.broadcast_to(np.float32([[[1.0, -1.0, 0.5, 1.0]]]), (2, 2000, 4))
    parameters = {name: array(p) for name, p in Laplace().parameters(tensor(outputs)).items()}
    drawn = Laplace().sample(parameters, np.random.default_rng(0))
    assert drawn.shape == (2, 2000, 2)
    for unit in range(2):
        law = stats.laplace(outputs[0, 0, unit], np.exp(outputs[0, 0, 2 + unit]))
        assert stats.kstest(drawn[..., unit].ravel(), law.cdf).pvalue > 1e-3
        assert stats.kstest(drawn[..., unit].ravel() + 0.3, law.cdf).pvalue < 1e-6


def test_ranks_are_uniform_for_the_right_rates_alone():
    rates = np.broadcast_to(np.float32([0.5, 1.5, 3.0, 6.0])[:, None, None], (4, 3000, 1))
    y = RNG.poisson(rates[RNG.integers(0, 4, 3000), np.arange(3000)])

    def p_value(rates):
        ranks = ranks_among_samples(Poisson(), rates, y)
        assert ranks.shape == y.shape and ranks.min() >= 0 and ranks.max() <= 1
        return stats.kstest(ranks.ravel(), "uniform").pvalue

    assert p_value(rates) > 1e-3
    assert p_value(1.2 * rates) < 1e-6
    assert p_value(np.repeat(rates.mean(axis=0, keepdims=True), 4, axis=0)) < 1e-6


FAMILIES = [
    *[Categorical(name) for name in Categorical.choices()],
    *[Bernoulli(name) for name in Bernoulli.choices()],
    Gaussian(0.7),
    Gaussian("mse"),
    HeteroscedasticGaussian(),
    Poisson(),
    Laplace(),
]


def parameters_of(family, copies):
    """NumPy, of one member and one example's outputs, the same `copies` times."""
    outputs = np.float32([0.2, 0.5, -0.3, 0.1])
    if "probabilities" in family.output:
        outputs = np.float32([0.2, 0.45, 0.1, 0.25])
    outputs = tensor(np.broadcast_to(outputs, (1, copies, 4)))
    return keras.tree.map_structure(array, family.parameters(outputs))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.output)
def test_every_family_draws_what_it_says(family):
    """Mean and variance of 20,000 draws, to five standard errors."""
    parameters = parameters_of(family, 20_000)
    mean, variance = (array(m(parameters))[0, 0] for m in (family.mean, family.variance))
    y = np.asarray(family.sample(parameters, np.random.default_rng(0)), "float64")[0]
    assert y.shape == (20_000, *mean.shape)
    squares = (y - mean) ** 2
    assert (np.abs(y.mean(axis=0) - mean) < 5 * y.std(axis=0) / 20_000**0.5).all()
    assert (np.abs(squares.mean(axis=0) - variance) < 5 * squares.std(axis=0) / 20_000**0.5).all()
    if type(family).cdf is not kl.predictive.Family.cdf:
        ranks = array(family.cdf(parameters, tensor(y)))[0]
        assert stats.kstest(ranks[:, 0], "uniform").pvalue > 1e-3


def test_log_gamma_equals_scipy():
    x = np.concatenate([[1e-6, 1e-3, 0.5, 7.9999, 8.0], np.arange(1, 40), [1e3, 1e6]])
    found = array(kl.predictive.log_gamma(tensor(x)))
    np.testing.assert_allclose(found, special.gammaln(np.float32(x)), rtol=1e-6, atol=1e-5)
    whole = array(kl.predictive.log_gamma(ops.convert_to_tensor([1, 2, 5])))
    np.testing.assert_allclose(whole, np.log([1, 1, 24]), atol=1e-5)


# ------------------------------------------------------------------- what is not written


class Bare(kl.predictive.Family):
    output, meaning = "bare", "means and nothing else"

    def parameters(self, outputs):
        return outputs

    def mean(self, parameters):
        return parameters


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f, o: f.log_density(o, o[0]), r"`log_likelihood\(outputs, y\)`, which everything"),
        (lambda f, o: f.uncertainty(o, ()), r"`variance\(parameters\)`, which `predict_uncert"),
        (lambda f, o: f.cdf(o, o), r"`cdf\(parameters, y\)`, which `predict_uncertainty`, unless"),
        (lambda f, o: f.sample(o, None), r"`sample\(parameters, generator\)`, which drawing y"),
        (lambda f, o: scores(f, o, o), r"`fisher_scores\(outputs, draws\)`, which a sampler with"),
        (lambda f, o: f.component(o, None), r"`component\(parameters, tfp\)`, which `predictive_"),
    ],
)
def test_a_missing_method_says_which_to_write_and_who_needs_it(call, words):
    with pytest.raises(NotImplementedError, match=f"^`Bare` must implement {words}.* needs.$"):
        call(Bare(), tensor(RATES))


def test_a_report_tells_what_it_could_not_measure():
    class Undrawn(Bare):
        def variance(self, parameters):
            return parameters

    rows, figures = Undrawn().report(RATES, COUNTS)
    rows = {row.name: row for row in rows}
    error = np.sqrt(np.mean((RATES.mean(axis=0) - COUNTS) ** 2))
    assert rows["root_mean_squared_error"].value == pytest.approx(error, rel=1e-5)
    assert rows["coverage_90"].value is None and "`Undrawn` must implement `sample`" in (
        rows["coverage_90"].meaning
    )
    assert "negative_log_likelihood_of_guessing" not in rows and figures == []


def test_advice_names_a_gaussian_only_where_there_is_one():
    numbers = {"coverage_90": 0.5, "num_labels": 1000}
    of_gaussians = {**numbers, "continuous_ranked_probability_score": 0.3}
    for found, has_noise in ((numbers, False), (of_gaussians, True)):
        (finding,) = findings(found)
        assert finding.title == "Predictive intervals are too narrow."
        assert ("GaussianNLL" in finding.advice) == has_noise


# ------------------------------------------------------------------------- where it is used


def test_the_fisher_information_of_counts(poisson):
    """E[s sᵀ] over draws, and the mean over labels of the squared slope of the density."""
    log_rates = np.log(RATES[0])
    found = array(scores(poisson, tensor(log_rates), tensor(np.ones((1, 5, 2)))))[0] ** 2
    counts = np.arange(300)[:, None, None]
    law = stats.poisson(np.exp(log_rates.astype("float64")))
    expected = (law.pmf(counts) * (counts - law.mean()) ** 2).sum(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    positions = np.log(RATES[:, :3])  # the first axis as the batch: 3 positions of 2 units
    found = scores(poisson, tensor(positions), tensor(np.ones_like(positions)))
    np.testing.assert_allclose(array(found) ** 2, RATES[:, :3] / 3, rtol=1e-5)


def linear_model(optimizer):
    model = network(PoissonNLL(), optimizer=optimizer)
    model.set_weights([np.array([[0.5], [-0.3]]), np.array([0.2])])
    x = RNG.normal(size=(12, 2)).astype("float32")
    rate = np.exp(x @ [0.5, -0.3] + 0.2)
    return model, x, np.c_[x, np.ones(12)], rate


def test_the_dense_fisher_matrix_of_a_poisson_regression(poisson):
    optimizer = kl.NGD(0.1, num_data=12, batch_size=4, structure="dense", damping=0.0)
    model, x, features, rate = linear_model(optimizer)
    kl.track_statistics(model, optimizer)
    optimizer.build(model.trainable_variables)
    optimizer.preconditioner.set_data(x)
    values = [ops.convert_to_tensor(w) for w in model.get_weights()[:2]]
    found = array(optimizer.preconditioner.matrix(values, optimizer.preconditioner.tensors()))
    expected = (features * rate[:, None]).T @ features / 12
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_statistics_inside_fit_are_those_of_the_true_fisher_information(poisson):
    optimizer = kl.DOPLangevin(0.0, num_data=12, fisher="model", statistics_stride=1, seed=0)
    model, x, features, rate = linear_model(optimizer)
    kl.track_statistics(model, optimizer)
    model.fit(x, rate[:, None], batch_size=12, verbose=0)
    (found,) = measured(model).values()
    expected = (features**2 * rate[:, None]).mean(axis=0)
    np.testing.assert_allclose(np.ravel(found["second_moment"]), expected[:2], rtol=1e-4)
    np.testing.assert_allclose(np.ravel(found["bias_second_moment"]), expected[2], rtol=1e-4)


def poisson_ensemble(members=3):
    model = network(PoissonNLL(), units=2)
    samples = [
        Sample({w.path: RNG.normal(0, 0.5, w.shape).astype("float32") for w in model.weights})
        for _ in range(members)
    ]
    x = RNG.normal(size=(8, 2)).astype("float32")
    rates = np.exp([x @ s[model.weights[0].path] + s[model.weights[1].path] for s in samples])
    return kl.BayesianEnsembleModel(model, samples), x, rates.astype("float64")


def test_an_ensemble_of_counts(poisson, tmp_path):
    pytest.importorskip("tensorflow_probability")
    ensemble, x, rates = poisson_ensemble()
    y = RNG.poisson(rates[0])
    expected = stats.poisson(rates).logpmf(y).sum(axis=-1)
    found = ensemble.log_likelihood(x, y, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    mixture = special.logsumexp(expected, axis=0) - np.log(3)
    assert ensemble.evaluate(x, y, verbose=0) == pytest.approx(-mixture.mean(), rel=1e-4)
    distribution = ensemble.predictive_distribution(x, verbose=0)
    np.testing.assert_allclose(distribution.log_prob(np.float32(y)), mixture, rtol=1e-3)
    report = ensemble.report(x, y, verbose=0)
    assert report["negative_log_likelihood"] == pytest.approx(-mixture.mean(), rel=1e-4)
    assert 0 <= report["coverage_90"] <= 1


@pytest.mark.backend
@pytest.mark.skipif(BACKEND != "tensorflow", reason="where ensembles are served")
def test_an_ensemble_of_counts_is_exported_with_its_quantiles(poisson, tmp_path):
    import tensorflow as tf

    ensemble, x, _ = poisson_ensemble()
    ensemble.export(tmp_path / "served", verbose=False, quantiles=(0.1, 0.9))
    served = tf.saved_model.load(str(tmp_path / "served"))
    for size in (3, 8):
        found = served.predict_uncertainty(x[:size])
        expected = ensemble.predict_uncertainty(x[:size], (0.1, 0.9), verbose=0)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
