"""BayesianEnsembleModel against a loop of `set_weights` and `predict` over the members."""

import sys

import keras
import numpy as np
import pytest
from keras import layers
from scipy import special, stats
from sklearn import metrics as sklearn_metrics
from targets.rows import every_row

from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.ensemble.members import WEIGHTS_AT_ONCE, default_member_batch_size
from keras_langevin.losses import GaussianNLL
from keras_langevin.optimizers import DOPLangevin
from keras_langevin.statistics import is_tracked, track_statistics
from keras_langevin.weights import named_weights, parameters

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]

RNG = np.random.default_rng(0)
MEMBERS, BATCH = 5, 11
X = RNG.normal(size=(BATCH, 4)).astype("float32")
SPARSE = keras.losses.SparseCategoricalCrossentropy


BEGINNING = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_random_numbers():
    """In every test, whatever ran before it."""
    RNG.bit_generator.state = BEGINNING


def draw(model, members=MEMBERS, scale=1.0):
    """Members far apart, as mappings of all weights (moving averages of variances > 0)."""
    return [
        {
            name: np.abs(scale * RNG.normal(size=v.shape)).astype("float32") + 0.1
            if "variance" in name
            else (scale * RNG.normal(size=v.shape)).astype("float32")
            for name, v in named_weights(model).items()
        }
        for _ in range(members)
    ]


def loop(model, samples, x=X):
    """What each member returns, float64, shape (members, batch, ...)."""
    outputs = []
    for sample in samples:
        for name, variable in named_weights(model).items():
            if name in sample:
                variable.assign(sample[name])
        outputs.append(model(x, training=False))
    outputs = [keras.tree.map_structure(keras.ops.convert_to_numpy, o) for o in outputs]
    return keras.tree.map_structure(lambda *o: np.stack(o).astype("float64"), *outputs)


def classifier(loss="from_logits", metrics=None):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )
    if loss is not None:
        loss = SPARSE(from_logits=True) if loss == "from_logits" else loss
        model.compile(loss=loss, metrics=metrics)
    return model


def predictor(units, loss=None, metrics=None):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units)])
    if loss is not None:
        model.compile(loss=loss, metrics=metrics)
    return model


# ------------------------------------------------------------------------- prediction


def test_probabilities_are_averaged_and_not_logits():
    model = classifier()
    samples = draw(model, scale=2)
    prediction = BayesianEnsembleModel(model, samples).predict(X, verbose=0)
    logits = loop(model, samples)
    np.testing.assert_allclose(prediction, special.softmax(logits, -1).mean(0), atol=1e-5)
    np.testing.assert_allclose(prediction.sum(-1), 1, atol=1e-5)
    assert np.abs(prediction - special.softmax(logits.mean(0), -1)).max() > 0.05


@pytest.mark.parametrize("member_batch_size", [1, 2, 5, 100])
def test_any_number_of_members_at_once_gives_the_same(member_batch_size):
    model = classifier()
    samples = draw(model)
    ensemble = BayesianEnsembleModel(model, samples, member_batch_size=member_batch_size)
    assert ensemble.member_batch_size == min(member_batch_size, MEMBERS)
    assert ensemble.num_members == MEMBERS
    expected = special.softmax(loop(model, samples), -1)
    average = keras.ops.convert_to_numpy(ensemble(X))
    np.testing.assert_allclose(average, expected.mean(0), atol=1e-5)
    members = ensemble.predict_members(X, batch_size=4, verbose=0)
    np.testing.assert_allclose(members, expected, atol=1e-5)


def test_small_networks_are_evaluated_at_once_and_large_ones_in_turn():
    small, large = predictor(1), predictor(WEIGHTS_AT_ONCE // 4)
    assert default_member_batch_size(small, 64) == 64
    assert default_member_batch_size(large, 64) == 1
    recurrent = keras.Sequential([keras.Input((3, 2)), layers.Bidirectional(layers.GRU(2))])
    on_tensorflow = keras.backend.backend() == "tensorflow"
    assert default_member_batch_size(recurrent, 8) == (1 if on_tensorflow else 8)


@pytest.mark.parametrize(
    "network",
    [
        [keras.Input((5, 3)), layers.LSTM(4), layers.Dense(2)],
        [keras.Input((6, 6, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)],
    ],
    ids=["lstm", "convolution"],
)
def test_layers_that_do_not_vectorise_everywhere_work_by_default(network):
    model = keras.Sequential(network)
    samples = draw(model, 3)
    x = RNG.normal(size=(2, *model.input_shape[1:])).astype("float32")
    ensemble = BayesianEnsembleModel(model, samples, output="logits")
    expected = special.softmax(loop(model, samples, x), -1).mean(0)
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), expected, atol=1e-5)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], np.zeros(len(X[4 * index : 4 * index + 4]))


def test_every_predict_takes_what_keras_takes():
    model = classifier()
    samples = draw(model)
    ensemble = BayesianEnsembleModel(model, samples)
    dataset = Batches()
    np.testing.assert_allclose(
        ensemble.predict(dataset, verbose=0), ensemble.predict(X, verbose=0), atol=1e-6
    )
    members = ensemble.predict_members(dataset, verbose=0)
    assert members.shape == (MEMBERS, BATCH, 3)
    assert ensemble.predict_members(dataset, steps=2, verbose=0).shape == (MEMBERS, 8, 3)
    np.testing.assert_allclose(members, special.softmax(loop(model, samples), -1), atol=1e-5)


def test_uncertainty_of_classes():
    model = classifier()
    samples = draw(model)
    quantiles = (0.1, 0.5)
    result = BayesianEnsembleModel(model, samples).predict_uncertainty(
        X, quantiles, batch_size=4, verbose=0
    )
    p = special.softmax(loop(model, samples), -1)
    assert set(result) == {"mean", "total", "aleatoric", "epistemic", "quantiles"}
    assert all(isinstance(value, np.ndarray) for value in result.values())
    np.testing.assert_allclose(result["mean"], p.mean(0), atol=1e-5)
    np.testing.assert_allclose(result["total"], stats.entropy(p.mean(0), axis=-1), atol=1e-5)
    np.testing.assert_allclose(result["aleatoric"], stats.entropy(p, axis=-1).mean(0), atol=1e-5)
    np.testing.assert_allclose(
        result["epistemic"], result["total"] - result["aleatoric"], atol=1e-6
    )
    assert np.all(result["epistemic"] > 0)
    np.testing.assert_allclose(result["quantiles"], np.quantile(p, quantiles, axis=0), atol=1e-5)


def test_uncertainty_of_real_numbers():
    model = predictor(4, loss=GaussianNLL())
    samples = draw(model)
    ensemble = BayesianEnsembleModel(model, samples)
    outputs = loop(model, samples)
    mean, stddev = outputs[..., :2], np.exp(outputs[..., 2:])
    members = ensemble.predict_members(X, verbose=0)
    np.testing.assert_allclose(members["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(members["stddev"], stddev, rtol=1e-4)
    np.testing.assert_allclose(ensemble.predict(X, verbose=0), mean.mean(0), rtol=1e-4, atol=1e-5)
    result = ensemble.predict_uncertainty(X, quantiles=(0.05, 0.95), batch_size=4, verbose=0)
    second_moment = (mean**2 + stddev**2).mean(0)
    np.testing.assert_allclose(result["total"], second_moment - mean.mean(0) ** 2, rtol=1e-3)
    assert result["quantiles"].shape == (2, BATCH, 2)
    for row, q in zip(result["quantiles"], (0.05, 0.95), strict=True):
        np.testing.assert_allclose(stats.norm(mean, stddev).cdf(row).mean(0), q, atol=1e-4)
    assert "quantiles" not in ensemble.predict_uncertainty(X, quantiles=(), verbose=0)


@every_row("quantiles", [(0.5, 1.0), (-0.1,), (np.nan,)])
def test_quantiles_must_be_between_0_and_1(quantiles):
    model = predictor(1, loss="mse")
    with pytest.raises(ValueError, match=r"between 0 and 1\. Received: quantiles="):
        BayesianEnsembleModel(model, draw(model)).predict_uncertainty(X, quantiles)


def test_probabilities_that_are_none_are_refused():
    model = predictor(3)
    ensemble = BayesianEnsembleModel(model, draw(model), output="mean", noise_stddev=1.0)
    assert ensemble.predict(X, verbose=0).shape == (BATCH, 3)
    outputs = layers.Reshape((3,))(model.outputs[0])  # hides the activation
    hidden = keras.Model(model.inputs, outputs)
    ensemble = BayesianEnsembleModel(hidden, draw(hidden), output="probabilities")
    for predict in (
        ensemble.predict,
        ensemble.predict_members,
        ensemble.predict_uncertainty,
        ensemble.predictive_distribution,
    ):
        with pytest.raises(ValueError, match='pass `output="logits"`'):
            predict(X, verbose=0)
    ensemble = BayesianEnsembleModel(hidden, draw(hidden), output="binary_probabilities")
    with pytest.raises(ValueError, match='pass `output="binary_logits"`'):
        ensemble.predict(X, verbose=0)


def test_half_precision_members_are_averaged_in_float32():
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, activation="tanh", dtype="mixed_bfloat16")(inputs)
    model = keras.Model(inputs, layers.Dense(3, dtype="mixed_bfloat16")(hidden))
    samples = draw(model)
    ensemble = BayesianEnsembleModel(model, samples, output="logits")
    prediction = ensemble.predict(X, verbose=0)
    assert prediction.dtype == np.float32
    model32 = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, activation="tanh"), layers.Dense(3)]
    )
    lists = [list(sample.values()) for sample in samples]
    expected = BayesianEnsembleModel(model32, lists, output="logits").predict(X, verbose=0)
    difference = np.abs(prediction - expected).max()
    assert 1e-6 < difference < 0.05


# ------------------------------------------------------------------------------ samples


def test_lists_mappings_and_parameters_alone_are_the_same_samples():
    model = classifier()
    samples = draw(model)
    own = {n: keras.ops.convert_to_numpy(v) for n, v in named_weights(model).items()}
    names = list(own)[: len(parameters(model))]
    assert len(names) == 6 and len(own) == 8
    whole = [{**own, **{n: s[n] for n in names}} for s in samples]
    expected = keras.ops.convert_to_numpy(BayesianEnsembleModel(model, whole)(X))
    for given in (
        ({n: s[n] for n in names} for s in samples),
        [[s[n] for n in names] for s in samples],
    ):
        prediction = keras.ops.convert_to_numpy(BayesianEnsembleModel(model, given)(X))
        np.testing.assert_array_equal(prediction, expected)
    # The moving averages of the samples count when they are there.
    other = keras.ops.convert_to_numpy(BayesianEnsembleModel(model, samples)(X))
    assert np.abs(other - expected).max() > 0.01


def test_weights_of_the_ensemble_are_the_stacked_samples():
    model = classifier()
    samples = draw(model)
    ensemble = BayesianEnsembleModel(model, samples)
    assert not ensemble.trainable_variables
    assert len(ensemble.weights) == 8
    for weight, name in zip(ensemble.weights, samples[0], strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(weight), np.stack([s[name] for s in samples])
        )


def test_training_the_model_on_does_not_change_the_ensemble():
    model = classifier()
    samples = draw(model)
    ensemble = BayesianEnsembleModel(model, samples)
    before = ensemble.predict(X, verbose=0)
    model.set_weights([w + 1 for w in model.get_weights()])
    model.layers[0].activation = keras.activations.relu
    np.testing.assert_array_equal(ensemble.predict(X, verbose=0), before)


def test_a_model_that_measures_statistics_gives_the_same_ensemble():
    class NoConfig(keras.Model):
        def __init__(self, units):
            super().__init__()
            self.dense = layers.Dense(units)

        def call(self, x):
            return self.dense(x)

        def get_config(self):
            raise NotImplementedError

    subclassed = NoConfig(3)
    subclassed(X)
    for model in (predictor(3), subclassed):
        samples = draw(model)
        expected = BayesianEnsembleModel(model, samples, output="logits").predict(X, verbose=0)
        track_statistics(model, DOPLangevin(0.1, num_data=10))
        assert is_tracked(model)
        lists = [list(sample.values()) for sample in samples]
        ensemble = BayesianEnsembleModel(model, lists, output="logits")
        np.testing.assert_allclose(ensemble.predict(X, verbose=0), expected, atol=1e-6)
        assert is_tracked(model)


def test_samples_that_do_not_fit_are_named():
    model = predictor(3, loss=SPARSE(from_logits=True))
    kernel, bias = named_weights(model)
    good = draw(model)[0]

    def message(samples):
        with pytest.raises(ValueError) as error:
            BayesianEnsembleModel(model, samples)
        return str(error.value)

    assert "at least one sample" in message([])
    assert "at least one sample" in message(iter([]))
    assert "Put a single sample in a list" in message(good)
    missing = message([good, {kernel: good[kernel], "other/kernel": good[bias]}])
    assert f"samples[1], missing: '{bias}'; not in the model: 'other/kernel'" in missing
    shaped = message([{**good, bias: np.zeros(4)}])
    assert f"'{bias}' has the shape (3,). Received: shape (4,) in samples[0]" in shaped
    infinite = message([good, {**good, bias: np.array([0, np.nan, 0])}])
    assert f"NaN or infinity in '{bias}' of samples[1]" in infinite
    assert "here 2 arrays. Received: samples[0] with 1 arrays" in message([[good[kernel]]])
    assert "Received: samples[0] with int" in message([3])


def test_a_sample_of_half_of_the_state_is_refused():
    model = classifier()
    sample = draw(model)[0]
    name = next(n for n in sample if n.endswith("moving_mean"))
    del sample[name]
    with pytest.raises(ValueError, match=f"missing: '{name}'"):
        BayesianEnsembleModel(model, [sample])


def test_arguments_that_are_wrong_are_refused():
    unbuilt = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match=r"must be a built `keras\.Model`"):
        BayesianEnsembleModel(unbuilt, [[np.zeros(2)]], output="logits")
    model = predictor(3)
    for value in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="member_batch_size="):
            BayesianEnsembleModel(model, draw(model), "logits", member_batch_size=value)
    with pytest.raises(ValueError, match="Pass `output=`"):
        BayesianEnsembleModel(model, draw(model))


# --------------------------------------------------------------------------- evaluation


def test_evaluate_reports_the_log_predictive_density_and_metrics_of_the_average():
    metrics = ["accuracy", keras.metrics.SparseCategoricalCrossentropy("ce", from_logits=True)]
    model = classifier(metrics=metrics)
    samples = draw(model)
    y = RNG.integers(0, 3, BATCH)
    ensemble = BayesianEnsembleModel(model, samples)
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


def test_predictive_distributions():
    y = RNG.integers(0, 3, BATCH)
    model = classifier()
    samples = draw(model)
    ensemble = BayesianEnsembleModel(model, samples)
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


@pytest.mark.backend
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strings are TensorFlow's")
def test_vocabularies_are_kept_and_saved(tmp_path):
    words = np.array([["red"], ["green"], ["blue"]])
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(words)
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, layers.Dense(2)(lookup(inputs)))
    samples = draw(model)
    ensemble = BayesianEnsembleModel(model, samples, output="logits")
    x = keras.ops.convert_to_tensor(words)
    prediction = ensemble.predict(x, verbose=0)
    assert len(np.unique(prediction[:, 0])) == 3
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), prediction)
