"""BayesianEnsembleModel against a loop of `set_weights` and `predict` over the members."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy import special, stats
from targets.ensemble_cases import BATCH, MEMBERS, RNG, SPARSE, X, classifier, draw, loop, predictor
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.ensemble.members import WEIGHTS_AT_ONCE, default_member_batch_size
from keras_langevin.losses import GaussianNLL
from keras_langevin.statistics import is_tracked, track_statistics
from keras_langevin.weights import named_weights, parameters

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


# ------------------------------------------------------------------------- prediction


def test_probabilities_are_averaged_and_not_logits(of_classes):
    model, samples, ensemble = of_classes
    prediction = ensemble.predict(X, verbose=0)
    logits = loop(model, samples)
    np.testing.assert_allclose(prediction, special.softmax(logits, -1).mean(0), atol=1e-5)
    np.testing.assert_allclose(prediction.sum(-1), 1, atol=1e-5)
    assert np.abs(prediction - special.softmax(logits.mean(0), -1)).max() > 0.05


@pytest.mark.parametrize("member_batch_size", [1, 2, 100])
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


def test_every_predict_takes_what_keras_takes(of_classes):
    model, samples, ensemble = of_classes
    dataset = Batches()
    np.testing.assert_allclose(
        ensemble.predict(dataset, verbose=0), ensemble.predict(X, verbose=0), atol=1e-6
    )
    members = ensemble.predict_members(dataset, verbose=0)
    assert members.shape == (MEMBERS, BATCH, 3)
    assert ensemble.predict_members(dataset, steps=2, verbose=0).shape == (MEMBERS, 8, 3)
    np.testing.assert_allclose(members, special.softmax(loop(model, samples), -1), atol=1e-5)


def test_uncertainty_of_classes(of_classes):
    model, samples, ensemble = of_classes
    quantiles = (0.1, 0.5)
    result = ensemble.predict_uncertainty(X, quantiles, batch_size=4, verbose=0)
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
        track_statistics(model, kl.DOPLangevin(0.1, num_data=BATCH))
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
