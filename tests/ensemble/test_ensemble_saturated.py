"""Probabilities that are 0 or 1 in float32."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_langevin as kl

X = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
Y = np.arange(8) % 2
LOSSES = {1: "binary_crossentropy", 2: "sparse_categorical_crossentropy"}


def saturated(units):
    """A model that is sure of one answer for all inputs, and members as sure or not at all."""
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(units, "sigmoid" if units == 1 else "softmax")]
    )
    model.compile("adam", LOSSES[units])
    sure = np.zeros(units, "float32")
    sure[0] = 40.0
    members = [[np.zeros((2, units), "float32"), k * sure] for k in (1, 0, 0)]
    model.set_weights(members[0])
    return model, members


@pytest.mark.backend
@pytest.mark.parametrize("units", LOSSES)
def test_one_member_scores_what_the_model_scores(units):
    model, members = saturated(units)
    expected = model.evaluate(X, Y, verbose=0)
    assert expected > 5
    one = kl.BayesianEnsembleModel(model, members[:1])
    assert one.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert -one.log_likelihood(X, Y, verbose=0).mean() == pytest.approx(expected, rel=1e-5)


@pytest.mark.neutral
@pytest.mark.parametrize("units", LOSSES)
def test_a_report_draws_its_figures(units, tmp_path):
    model, members = saturated(units)
    report = kl.BayesianEnsembleModel(model, members).report(
        X, Y, html=tmp_path / "report.html", verbose=0
    )
    assert np.isfinite(report["negative_log_likelihood"])
    assert (tmp_path / "report.html").exists()
