"""Draws in ArviZ' format; ArviZ 0.x here, 1.x where it is installed."""

import importlib.metadata
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_langevin as kl

arviz = pytest.importorskip("arviz")
FIRST = importlib.metadata.version("arviz").startswith("0.")
EXAMPLES = 6


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(EXAMPLES, 4)).astype("float32")


def ensemble(chains=(0,) * 30 + (3,) * 30, units=3, **kwargs):
    rng = np.random.default_rng(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, name="dense")])
    samples = [[rng.normal(size=(4, units)), rng.normal(size=units)] for _ in chains]
    return kl.BayesianEnsembleModel(model, samples, chains=chains, **kwargs)


def group(data, name):
    return data[name] if not FIRST else getattr(data, name)


def test_predictions_weights_and_likelihoods(x):
    model = ensemble(output="logits")
    y = np.arange(EXAMPLES) % 3
    data = model.to_arviz(x, y, weights=["dense/bias"])
    kind = "InferenceData" if FIRST else "DataTree"
    assert type(data).__name__ == kind
    posterior = group(data, "posterior")
    bias = next(name for name in posterior if name.endswith("dense.bias"))
    assert set(posterior) == {"prediction", bias}
    members = model.predict_members(x, verbose=0)
    assert posterior["prediction"].dims[:3] == ("chain", "draw", "example")
    assert group(data, "log_likelihood")["y"].dims == ("chain", "draw", "example")
    np.testing.assert_array_equal(posterior["prediction"][1, 5], members[35])
    by_name = model.weights_by_name()
    np.testing.assert_array_equal(posterior[bias][0, 7], by_name[bias.replace(".", "/")][7])
    np.testing.assert_array_equal(
        group(data, "log_likelihood")["y"][1, 0], model.log_likelihood(x, y, verbose=0)[30]
    )
    np.testing.assert_array_equal(group(data, "observed_data")["y"], y)


def test_arviz_computes_with_it(x):
    data = ensemble(output="logits").to_arviz(x, np.zeros(EXAMPLES, int))
    summary = arviz.summary(data, kind="diagnostics")
    assert len(summary) == EXAMPLES * 3 and (summary["r_hat"].astype(float) < 1.2).all()


def test_predicted_noise_has_two_parts(x):
    model = ensemble(units=2, output="mean_and_log_scale")
    posterior = group(model.to_arviz(x), "posterior")
    assert set(posterior) == {"prediction_mean", "prediction_stddev"}
    assert posterior["prediction_mean"].shape == (2, 30, EXAMPLES, 1)


def test_chains_of_other_lengths_are_cut(x):
    with pytest.warns(UserWarning, match="more than 4 draws"):
        data = ensemble([0] * 4 + [1] * 6, output="logits").to_arviz(x)
    assert group(data, "posterior")["prediction"].shape[:2] == (2, 4)


def test_a_file_of_it_can_be_read(x, tmp_path):
    pytest.importorskip("h5netcdf")
    data = ensemble(output="logits").to_arviz(x, weights=["kernel"])
    data.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    assert (tmp_path / "draws.nc").stat().st_size > 0


def test_misuse_is_named(x):
    model = ensemble(output="logits")
    with pytest.raises(ValueError, match="something to convert"):
        model.to_arviz()
    with pytest.raises(ValueError, match=r"weights=\['no_such'\]"):
        model.to_arviz(weights=["no_such"])
    with pytest.raises(ValueError, match="must come with its `x`"):
        model.to_arviz(y=[1])


def test_arviz_is_not_loaded_before_it_is_needed():
    code = "import sys, keras_langevin; assert not {'arviz', 'arviz_base'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_draws_of_the_labels_follow_the_members(x):
    model = ensemble(output="logits", chains=(0,) * 400)
    data = model.to_arviz(x, np.arange(EXAMPLES) % 3)
    drawn = group(data, "posterior_predictive")["y"]
    assert drawn.dims == ("chain", "draw", "example") and set(np.unique(drawn)) <= {0, 1, 2}
    shares = [np.mean(np.asarray(drawn)[0] == label, axis=0) for label in range(3)]
    np.testing.assert_allclose(np.stack(shares, -1), model.predict(x, verbose=0), atol=0.1)
