"""Losses, metrics and distributions of the average of the members."""

import sys

import keras
import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sklearn_metrics
from targets.ensemble_cases import BATCH, MEMBERS, RNG, SPARSE, X, classifier, draw, loop, predictor

from keras_langevin.ensemble import BayesianEnsembleModel

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]

BEGINNING = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_random_numbers():
    """In every test, whatever ran before it."""
    RNG.bit_generator.state = BEGINNING


@pytest.fixture(autouse=True)
def fresh_session():
    """The module's ensemble lives on."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def of_classes():
    """A classifier, its samples, and their ensemble, which is only read."""
    metrics = ["accuracy", keras.metrics.SparseCategoricalCrossentropy("ce", from_logits=True)]
    model = classifier(metrics=metrics)
    samples = draw(model, scale=2)
    return model, samples, BayesianEnsembleModel(model, samples)


# --------------------------------------------------------------------------- evaluation


def test_evaluate_reports_the_log_predictive_density_and_metrics_of_the_average(of_classes):
    model, samples, ensemble = of_classes
    y = RNG.integers(0, 3, BATCH)
    result = ensemble.evaluate(X, y, batch_size=4, verbose=0, return_dict=True)
    p = special.softmax(loop(model, samples), -1).mean(0)
    p /= p.sum(-1, keepdims=True)
    assert result["loss"] == pytest.approx(sklearn_metrics.log_loss(y, p, labels=range(3)), 1e-5)
    assert result["ce"] == pytest.approx(result["loss"], 1e-5)
    assert result["accuracy"] == pytest.approx(np.mean(p.argmax(-1) == y))
    # After it, `predict` is still the average.
    np.testing.assert_allclose(ensemble.predict(X, verbose=0), p, atol=1e-5)

    weights = RNG.uniform(size=BATCH).astype("float32")
    weighted = ensemble.evaluate(
        X, y, sample_weight=weights, batch_size=BATCH, verbose=0, return_dict=True
    )
    per_example = -np.log(p[np.arange(BATCH), y])
    assert weighted["loss"] == pytest.approx(np.mean(weights * per_example), 1e-5)


def test_evaluate_with_one_hot_labels_and_without_compile():
    model = classifier(loss=None)
    samples = draw(model)
    y = RNG.integers(0, 3, BATCH)
    ensemble = BayesianEnsembleModel(model, samples, output="logits")
    p = special.softmax(loop(model, samples), -1).mean(0)
    expected = -np.mean(np.log(p[np.arange(BATCH), y]))
    loss = ensemble.evaluate(X, np.eye(3)[y], verbose=0)
    assert loss == pytest.approx(expected, 1e-5)
    ensemble.compile(metrics=["categorical_accuracy"])
    result = ensemble.evaluate(X, np.eye(3)[y], verbose=0, return_dict=True)
    assert result["loss"] == pytest.approx(expected, 1e-5)
    assert result["categorical_accuracy"] == pytest.approx(np.mean(p.argmax(-1) == y))


def test_evaluate_of_binary_logits_moves_the_threshold():
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    metrics = [keras.metrics.BinaryAccuracy(threshold=0.0), keras.metrics.AUC(from_logits=True)]
    model = predictor(1, loss=loss, metrics=metrics)
    samples = draw(model)
    y = RNG.integers(0, 2, BATCH)
    ensemble = BayesianEnsembleModel(model, samples)
    result = ensemble.evaluate(X, y, verbose=0, return_dict=True)
    p = special.expit(loop(model, samples)).mean(0)[:, 0]
    assert 0 < np.mean(p > 0.5) < 1
    assert result["loss"] == pytest.approx(sklearn_metrics.log_loss(y, p), 1e-4)
    assert result["binary_accuracy"] == pytest.approx(np.mean((p > 0.5) == y))
    assert metrics[0].threshold == 0  # the model keeps its own


def test_evaluate_of_real_numbers_is_the_density_of_the_mixture():
    model = predictor(2, loss="mse", metrics=["mae"])
    samples = draw(model)
    y = RNG.normal(size=(BATCH, 2)).astype("float32")
    ensemble = BayesianEnsembleModel(model, samples)
    result = ensemble.evaluate(X, y, batch_size=BATCH, verbose=0, return_dict=True)
    mean = loop(model, samples)
    joint = stats.norm(mean, 1.0).logpdf(y).sum(-1)  # d = 2: variance d / 2 = 1
    expected = -np.mean(special.logsumexp(joint, axis=0) - np.log(MEMBERS))
    assert result["loss"] == pytest.approx(expected, 1e-5)
    name = next(n for n in result if n != "loss")
    assert result[name] == pytest.approx(np.abs(mean.mean(0) - y).mean(), 1e-4)
    distribution = ensemble.predictive_distribution(X, verbose=0)
    assert distribution.batch_shape == (BATCH,) and distribution.event_shape == (2,)
    np.testing.assert_allclose(-np.mean(distribution.log_prob(y)), expected, rtol=1e-5)


def test_predictive_distributions(of_classes):
    y = RNG.integers(0, 3, BATCH)
    model, samples, ensemble = of_classes
    distribution = ensemble.predictive_distribution(X, verbose=0)
    assert distribution.batch_shape == (BATCH,) and distribution.event_shape == ()
    p = special.softmax(loop(model, samples), -1).mean(0)
    np.testing.assert_allclose(distribution.log_prob(y), np.log(p[np.arange(BATCH), y]), rtol=1e-4)

    model = predictor(2)
    samples = draw(model)
    ensemble = BayesianEnsembleModel(model, samples, output="binary_logits")
    distribution = ensemble.predictive_distribution(X, verbose=0)
    assert distribution.batch_shape == (BATCH, 2) and distribution.event_shape == ()
    p = special.expit(loop(model, samples)).mean(0)
    np.testing.assert_allclose(distribution.prob(np.ones((BATCH, 2))), p, rtol=1e-4)

    model = predictor(2)
    samples = draw(model, scale=0.3)
    ensemble = BayesianEnsembleModel(model, samples, output="mean_and_log_scale")
    distribution = ensemble.predictive_distribution(X, verbose=0)
    moments = ensemble.predict_uncertainty(X, verbose=0)
    np.testing.assert_allclose(distribution.mean(), moments["mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(distribution.variance(), moments["total"], rtol=1e-3)
    for row, q in zip(moments["quantiles"], (0.05, 0.5, 0.95), strict=True):
        cdf = distribution.components_distribution.distribution.cdf(row[:, None, :])
        np.testing.assert_allclose(np.mean(cdf, axis=1), q, atol=1e-4)


def test_without_tensorflow_probability_the_error_says_what_to_install(monkeypatch):
    model = predictor(1, loss="mse")
    ensemble = BayesianEnsembleModel(model, draw(model))
    monkeypatch.setitem(sys.modules, "tensorflow_probability", None)
    with pytest.raises(ImportError, match="pip install"):
        ensemble.predictive_distribution(X)


def test_a_metric_that_cannot_be_copied_is_left_out_with_a_warning():
    class Odd(keras.metrics.Mean):
        def __init__(self, thing):
            super().__init__(name="odd")

    model = predictor(3, loss=SPARSE(from_logits=True), metrics=[Odd(object()), "accuracy"])
    with pytest.warns(UserWarning, match="'odd' of the model cannot be copied"):
        ensemble = BayesianEnsembleModel(model, draw(model))
    assert "odd" not in ensemble.evaluate(X, np.zeros(BATCH), verbose=0, return_dict=True)


def test_an_ensemble_is_not_trainable_and_its_loss_is_fixed():
    model = predictor(1, loss="mse")
    ensemble = BayesianEnsembleModel(model, draw(model))
    with pytest.raises(NotImplementedError, match="PosteriorSampler"):
        ensemble.fit(X, X[:, :1])
    with pytest.raises(TypeError):
        ensemble.compile(loss="mae")
    with pytest.raises(ValueError, match="needs labels"):
        ensemble.evaluate(X, verbose=0)
