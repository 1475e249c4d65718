"""Outputs that are no distribution: mean, spread and members, and no likelihood."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_langevin.predictive import Values, resolve_families

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(6, 5, 3)).astype("float32")


def pinball(y_true, y_pred):
    return ops.mean(ops.maximum(0.9 * (y_true - y_pred), 0.1 * (y_pred - y_true)), axis=-1)


@pytest.mark.parametrize("loss", [None, pinball, "hinge", "cosine_similarity", "mse", "ctc"])
def test_values_is_a_name_for_the_outputs_of_any_loss(loss):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    if loss is not None:
        model.compile("sgd", loss)
    family = resolve_families(model, output="values")
    assert type(family) is Values and not family.has_likelihood


def test_uncertainty_is_the_spread_of_the_members():
    found = Values().uncertainty(ops.convert_to_tensor(OUTPUTS), (0.1, 0.5))
    found = {name: ops.convert_to_numpy(value) for name, value in found.items()}
    np.testing.assert_allclose(found["mean"], OUTPUTS.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["epistemic"], OUTPUTS.var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found["stddev"], OUTPUTS.std(axis=0), rtol=1e-4)
    expected = np.quantile(OUTPUTS, (0.1, 0.5), axis=0)
    np.testing.assert_allclose(found["quantiles"], expected, rtol=1e-4, atol=1e-6)
    assert "aleatoric" not in found


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f.log_density(OUTPUTS, OUTPUTS[0]),
        lambda f: f.log_densities(OUTPUTS, OUTPUTS[0]),
        lambda f: f.fisher_scores(OUTPUTS[0], OUTPUTS),
        lambda f: f.sample(OUTPUTS, np.random.default_rng(0)),
        lambda f: f.distribution(OUTPUTS, None),
    ],
)
def test_what_needs_a_likelihood_says_that_there_is_none(call):
    with pytest.raises(ValueError, match=r"there is no likelihood\. Received: .* Use `predict`"):
        call(Values())


def test_a_report_tells_the_spread():
    rows, figures = Values().report(OUTPUTS, None, outside=3 * OUTPUTS)
    found = {row.name: row.value for row in rows}
    spread = np.sqrt(OUTPUTS.var(axis=0).mean())
    assert found["spread_of_members"] == pytest.approx(spread, rel=1e-5)
    assert found["spread_of_members_outside"] == pytest.approx(3 * spread, rel=1e-5)
    assert figures == []
