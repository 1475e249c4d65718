"""Ensembles of several inputs and outputs, and of what is saved."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy import special
from targets.ensemble_cases import BATCH, MEMBERS, RNG, SPARSE, X, classifier, draw, loop

from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.losses import GaussianNLL

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]

BEGINNING = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_random_numbers():
    """In every test, whatever ran before it."""
    RNG.bit_generator.state = BEGINNING


# -------------------------------------------------------------- several inputs, outputs


def two_by_two():
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((2,), name="right")}
    joined = layers.Concatenate()([inputs["left"], inputs["right"]])
    outputs = {"kind": layers.Dense(3)(joined), "size": layers.Dense(2)(joined)}
    return keras.Model(inputs, outputs)


def test_structures_of_inputs_and_outputs_are_kept():
    model = two_by_two()
    model.compile(
        loss={"kind": SPARSE(from_logits=True), "size": GaussianNLL()},
        metrics={"kind": ["accuracy"], "size": ["mae"]},
    )
    samples = draw(model)
    x = {"left": X, "right": X[:, :2]}
    y = {"kind": RNG.integers(0, 3, BATCH), "size": RNG.normal(size=(BATCH, 1)).astype("float32")}
    ensemble = BayesianEnsembleModel(model, samples, member_batch_size=2)
    outputs = loop(model, samples, x)
    p = special.softmax(outputs["kind"], -1)
    mean, stddev = outputs["size"][..., :1], np.exp(outputs["size"][..., 1:])
    prediction = ensemble.predict(x, verbose=0)
    np.testing.assert_allclose(prediction["kind"], p.mean(0), atol=1e-5)
    np.testing.assert_allclose(prediction["size"], mean.mean(0), atol=1e-5)
    members = ensemble.predict_members(x, verbose=0)
    np.testing.assert_allclose(members["kind"], p, atol=1e-5)
    np.testing.assert_allclose(members["size"]["stddev"], stddev, rtol=1e-4)
    uncertainty = ensemble.predict_uncertainty(x, verbose=0)
    assert uncertainty["kind"]["quantiles"].shape == (3, BATCH, 3)
    np.testing.assert_allclose(uncertainty["size"]["epistemic"], mean.var(0), rtol=1e-3)
    distributions = ensemble.predictive_distribution(x, verbose=0)
    result = ensemble.evaluate(x, y, batch_size=BATCH, verbose=0, return_dict=True)
    expected = sum(-np.mean(distributions[k].log_prob(y[k])) for k in y)
    assert result["loss"] == pytest.approx(expected, 1e-4)
    assert result["kind_accuracy"] == pytest.approx(np.mean(p.mean(0).argmax(-1) == y["kind"]))


def test_a_list_of_outputs_stays_a_list():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(3, name="a")(inputs), layers.Dense(1)(inputs)])
    samples = draw(model, 3)
    ensemble = BayesianEnsembleModel(model, samples, output=["logits", "binary_logits"])
    prediction = ensemble.predict(X, verbose=0)
    assert isinstance(prediction, list) and [p.shape[1] for p in prediction] == [3, 1]
    logits = loop(model, samples)
    np.testing.assert_allclose(prediction[1], special.expit(logits[1]).mean(0), atol=1e-5)
    with pytest.raises(ValueError, match="structure"):
        BayesianEnsembleModel(model, samples, output=["logits"] * 3)


# ------------------------------------------------------------------------------- saving


@pytest.mark.backend
def test_save_and_load(tmp_path):
    model = classifier(metrics=["accuracy"])
    ensemble = BayesianEnsembleModel(model, draw(model), member_batch_size=2, name="posterior")
    y = RNG.integers(0, 3, BATCH)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    assert isinstance(loaded, BayesianEnsembleModel) and loaded.name == "posterior"
    assert (loaded.num_members, loaded.member_batch_size) == (MEMBERS, 2)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), ensemble.predict(X, verbose=0))
    assert loaded.evaluate(X, y, verbose=0) == pytest.approx(ensemble.evaluate(X, y, verbose=0))


def test_saved_gaussians_keep_their_noise(tmp_path):
    model = two_by_two()
    x = {"left": X, "right": X[:, :2]}
    ensemble = BayesianEnsembleModel(
        model, draw(model), {"kind": "mean", "size": "mean_and_log_scale"}, {"kind": 0.3}
    )
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    before, after = (e.predict_uncertainty(x, verbose=0) for e in (ensemble, loaded))
    np.testing.assert_allclose(after["kind"]["aleatoric"], 0.09, rtol=1e-5)
    np.testing.assert_array_equal(before["size"]["quantiles"], after["size"]["quantiles"])


def test_saving_a_model_without_config_says_so(tmp_path):
    class NoConfig(keras.Model):
        def __init__(self, units):
            super().__init__()
            self.dense = layers.Dense(units)

        def call(self, x):
            return self.dense(x)

        def get_config(self):
            raise NotImplementedError("no config")

    model = NoConfig(3)
    model(X)
    samples = draw(model)
    ensemble = BayesianEnsembleModel(model, samples, output="logits")
    expected = special.softmax(loop(model, samples), -1).mean(0)
    np.testing.assert_allclose(ensemble.predict(X, verbose=0), expected, atol=1e-5)
    with pytest.raises(ValueError, match="Implement `get_config`, or use `export`"):
        ensemble.save(tmp_path / "ensemble.keras")


def reads_words():
    """A model of one column of words, and the words."""
    words = np.array([["red"], ["green"], ["blue"]])
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(words)
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, layers.Dense(2)(lookup(inputs)))
    return model, keras.ops.convert_to_tensor(words)


has_strings = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="strings are TensorFlow's"
)


@pytest.mark.backend
@has_strings
def test_vocabularies_are_kept_and_saved(tmp_path):
    model, x = reads_words()
    ensemble = BayesianEnsembleModel(model, draw(model), output="logits")
    prediction = ensemble.predict(x, verbose=0)
    assert len(np.unique(prediction[:, 0])) == 3
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), prediction)


@pytest.mark.backend
@has_strings
def test_vocabularies_are_served(tmp_path):
    import tensorflow as tf

    model, x = reads_words()
    ensemble = BayesianEnsembleModel(model, draw(model), output="logits")
    ensemble.export(tmp_path, verbose=False)
    artifact = tf.saved_model.load(tmp_path)
    served = artifact.serve(x)
    np.testing.assert_allclose(served, ensemble.predict(x, verbose=0), rtol=1e-6)


@pytest.mark.backend
@has_strings
def test_a_dataset_of_words_is_reported():
    import tensorflow as tf

    model, x = reads_words()
    ensemble = BayesianEnsembleModel(model, draw(model), output="logits")
    y = np.array([0, 1, 1])
    report = ensemble.report(tf.data.Dataset.from_tensor_slices((x, y)).batch(2), verbose=0)
    expected = ensemble.report(x, y, verbose=0)
    for name in ("accuracy", "negative_log_likelihood", "brier_score"):
        assert report[name] == pytest.approx(expected[name], rel=1e-5)
