"""Streaming metrics, inside compiled `fit` and `evaluate`, against the functions."""

import keras
import numpy as np
import pytest
from keras import ops
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin import calibration

CLASSES = 4
EXAMPLES = 101
BATCH = 16  # the last batch has 5
WEIGHTS = pytest.mark.parametrize("shape", [(EXAMPLES,), (EXAMPLES, 1)], ids=["row", "column"])
JIT = keras.backend.backend() != "torch"  # torch would need a C++ compiler


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def classification():
    rng = np.random.default_rng(0)
    logits = (3 * rng.normal(size=(EXAMPLES, CLASSES))).astype("float32")
    labels = (0.4 * logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)
    return logits, labels


def classifier(metrics, loss=None, jit_compile=JIT, **kwargs):
    """Returns its inputs as logits."""
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Dense(CLASSES, use_bias=False)])
    model.layers[0].set_weights([np.eye(CLASSES)])
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.0)
    model.compile(optimizer, loss, metrics=metrics, jit_compile=jit_compile, **kwargs)
    return model


def class_metrics(num_bins=15):
    return [
        calibration.BrierScore(from_logits=True),
        calibration.ExpectedCalibrationError(num_bins, from_logits=True),
    ]


def expected_scores(logits, labels, num_bins=15):
    p = softmax(logits.astype("float64"))
    return {
        "brier_score": calibration.brier_score(p, labels),
        "expected_calibration_error": calibration.expected_calibration_error(p, labels, num_bins),
    }


def assert_has(logs, expected, tolerance=1e-6):
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, abs=tolerance), name


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_fit_and_evaluate_report_the_numbers_of_the_functions(num_bins):
    logits, labels = classification()
    model = classifier(class_metrics(num_bins))
    history = model.fit(
        logits,
        labels,
        batch_size=BATCH,
        epochs=2,
        verbose=0,
        validation_data=(logits[:50], labels[:50]),
    ).history
    expected = expected_scores(logits, labels, num_bins)
    for epoch in range(2):  # the state is reset between epochs
        assert_has({name: values[epoch] for name, values in history.items()}, expected)
    held_out = expected_scores(logits[:50], labels[:50], num_bins)
    assert_has({name: history[f"val_{name}"][-1] for name in held_out}, held_out)
    assert_has(model.evaluate(logits, labels, BATCH, verbose=0, return_dict=True), expected)


def test_a_mean_over_batches_is_not_the_calibration_error():
    logits, labels = classification()
    expected = expected_scores(logits, labels)["expected_calibration_error"]
    batches = [slice(i, i + BATCH) for i in range(0, EXAMPLES, BATCH)]
    errors = [expected_scores(logits[b], labels[b])["expected_calibration_error"] for b in batches]
    metric = calibration.ExpectedCalibrationError(from_logits=True)
    for b in batches:
        metric.update_state(labels[b], logits[b])
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
    assert abs(np.mean(errors) - expected) > 0.05


@pytest.mark.parametrize("labels_are", ["column", "one-hot", "probabilities"])
def test_labels_in_other_shapes(labels_are):
    logits, labels = classification()
    if labels_are == "column":
        model = classifier(class_metrics())
        x, y = logits, labels[:, None]
    elif labels_are == "one-hot":
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model = classifier(class_metrics(), loss)
        x, y = logits, np.eye(CLASSES)[labels]
    else:
        metrics = [calibration.BrierScore(), calibration.ExpectedCalibrationError()]
        model = classifier(metrics, keras.losses.SparseCategoricalCrossentropy())
        x, y = softmax(logits), labels
    logs = model.evaluate(x, y, BATCH, verbose=0, return_dict=True)
    assert_has(logs, expected_scores(logits, labels))


@WEIGHTS
def test_a_weighted_example_counts_as_often_as_its_weight(shape):
    logits, labels = classification()
    weight = np.random.default_rng(1).integers(0, 4, size=EXAMPLES)
    model = classifier(None, weighted_metrics=class_metrics())
    expected = expected_scores(np.repeat(logits, weight, axis=0), np.repeat(labels, weight))
    weight = weight.reshape(shape).astype("float32")
    logs = model.evaluate(logits, labels, BATCH, 0, sample_weight=weight, return_dict=True)
    assert_has(logs, expected)
    unweighted = expected_scores(logits, labels)
    assert all(abs(unweighted[name] - expected[name]) > 1e-3 for name in expected)


def test_positions_and_masks():
    logits, labels = classification()
    logits, labels = logits[:100].reshape(10, 10, CLASSES), labels[:100].reshape(10, 10)
    for metric in class_metrics():
        metric.update_state(labels, logits)
        expected = expected_scores(logits.reshape(-1, CLASSES), labels.ravel())[metric.name]
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
        metric.reset_state()
        weight = np.arange(10) % 2  # of whole rows
        metric.update_state(labels, logits, sample_weight=weight)
        kept = expected_scores(logits[1::2].reshape(-1, CLASSES), labels[1::2].ravel())
        assert float(metric.result()) == pytest.approx(kept[metric.name], abs=1e-6)


def test_masked_positions_do_not_count():
    tokens = np.array([[1, 2, 0, 0], [3, 1, 2, 0]])
    labels = np.array([[0, 1, 3, 3], [2, 3, 1, 3]])
    table = classification()[0][:CLASSES]
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), keras.layers.Embedding(CLASSES, CLASSES, mask_zero=True)]
    )
    model.layers[0].set_weights([table])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=class_metrics(), jit_compile=JIT)
    logs = model.evaluate(tokens, labels, verbose=0, return_dict=True)
    some = tokens > 0
    assert_has(logs, expected_scores(table[tokens[some]], labels[some]))


@every_row("num_bins", [7, 10, 15, 100])
def test_confidences_on_edges_fall_where_the_function_puts_them(num_bins):
    edges = (np.arange(num_bins + 1) / num_bins).astype("float32")
    edges = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 2)])
    edges = edges[(edges > 0.5) & (edges <= 1)]
    p = np.stack([edges, 1 - edges], axis=-1)
    curve = calibration.reliability_curve(p, np.zeros(len(p), int), num_bins)
    metric = calibration.ExpectedCalibrationError(num_bins)

    def counts(bins):
        return np.bincount(bins, minlength=num_bins).tolist()

    assert counts(ops.convert_to_numpy(metric._bin(ops.convert_to_tensor(edges)))) == list(
        curve.count
    )
    rounded = (np.arange(1, num_bins) / num_bins).astype("float32")  # mutant: rounded edges
    if num_bins in (10, 100):  # edges of the others are rounded up anyway
        assert counts(np.searchsorted(rounded, edges, side="right")) != list(curve.count)


def regression(units):
    rng = np.random.default_rng(2)
    mean, log_stddev = rng.normal(size=(2, EXAMPLES, units)).astype("float32")
    y = mean + 1.3 * np.exp(log_stddev) * rng.normal(size=mean.shape)
    return mean, log_stddev, y.astype("float32")


def regressor(loss, metrics, units, jit_compile=JIT, **kwargs):
    """Returns its inputs."""
    model = keras.Sequential([keras.Input((units,)), keras.layers.Dense(units, use_bias=False)])
    model.layers[0].set_weights([np.eye(units)])
    model.compile(
        keras.optimizers.SGD(0.0), loss, metrics=metrics, jit_compile=jit_compile, **kwargs
    )
    return model


def expected_of_gaussian(mean, stddev, y, level):
    pit = calibration.probability_integral_transform(mean, stddev, y)
    return {
        "continuous_ranked_probability_score": calibration.continuous_ranked_probability_score(
            mean, stddev, y
        ),
        "interval_coverage": calibration.interval_coverage_curve(pit, [level])[0],
    }


def gaussian_metrics(level, stddev=None):
    return [
        calibration.ContinuousRankedProbabilityScore(stddev),
        calibration.IntervalCoverage(level, stddev),
    ]


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("level", [0.5, 0.9, 1])
def test_predicted_noise(units, level):
    mean, log_stddev, y = regression(units)
    outputs = np.concatenate([mean, log_stddev], axis=-1)
    model = regressor(kl.losses.GaussianNLL(), gaussian_metrics(level), 2 * units)
    expected = expected_of_gaussian(mean, np.exp(log_stddev.astype("float64")), y, level)
    logs = model.fit(outputs, y, batch_size=BATCH, verbose=0).history
    assert_has({name: values[0] for name, values in logs.items()}, expected)
    assert_has(model.evaluate(outputs, y, BATCH, verbose=0, return_dict=True), expected)
    wrong = expected_of_gaussian(mean, np.exp(-log_stddev), y, level)  # mutant: 1 / stddev
    if level < 1:
        assert all(abs(wrong[name] - expected[name]) > 1e-3 for name in expected)


@pytest.mark.parametrize("units", [1, 3])
def test_known_noise(units):
    mean, _, y = regression(units)
    model = regressor(kl.losses.GaussianNLL(0.7), gaussian_metrics(0.8, stddev=0.7), units)
    expected = expected_of_gaussian(mean, 0.7, y, 0.8)
    assert_has(model.evaluate(mean, y, BATCH, verbose=0, return_dict=True), expected)
    wrong = expected_of_gaussian(mean, 0.49, y, 0.8)  # mutant: the variance
    assert all(abs(wrong[name] - expected[name]) > 1e-3 for name in expected)


@WEIGHTS
@pytest.mark.parametrize("units", [1, 3])
def test_weights_of_regression(units, shape):
    mean, _, y = regression(units)
    weight = np.random.default_rng(1).integers(0, 4, size=EXAMPLES)
    expected = expected_of_gaussian(
        np.repeat(mean, weight, axis=0), 0.7, np.repeat(y, weight, axis=0), 0.8
    )
    model = regressor("mse", None, units, weighted_metrics=gaussian_metrics(0.8, stddev=0.7))
    weight = weight.reshape(shape).astype("float32")
    logs = model.evaluate(mean, y, BATCH, 0, sample_weight=weight, return_dict=True)
    assert_has(logs, expected)


def test_targets_without_the_last_axis():
    mean, _, y = regression(1)
    for metric in gaussian_metrics(0.8, stddev=0.7):
        metric.update_state(y[:, 0], mean)
        expected = expected_of_gaussian(mean, 0.7, y, 0.8)[metric.name]
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


@every_row(
    "name, arguments",
    [
        ("BrierScore", {"from_logits": True, "name": "brier"}),
        ("ExpectedCalibrationError", {"num_bins": 7, "from_logits": True}),
        ("ContinuousRankedProbabilityScore", {"stddev": 0.3}),
        ("IntervalCoverage", {"level": 0.5, "stddev": 0.3}),
    ],
)
def test_metrics_are_serialisable(name, arguments):
    metric = getattr(calibration, name)(**arguments)
    assert arguments.items() <= metric.get_config().items()
    config = keras.saving.serialize_keras_object(metric)
    assert config["registered_name"] == f"keras_langevin>{name}"
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(metric) and again.get_config() == metric.get_config()
    assert float(again.result()) == 0  # before any batch


def test_a_saved_model_keeps_its_metrics(tmp_path):
    logits, labels = classification()
    model = classifier(class_metrics(7))
    model.evaluate(logits, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    logs = again.evaluate(logits, labels, BATCH, verbose=0, return_dict=True)
    assert_has(logs, expected_scores(logits, labels, 7))


def test_an_ensemble_scores_the_average_of_its_members():
    logits, labels = classification()
    model = classifier(class_metrics())
    samples = [[np.eye(CLASSES) * scale] for scale in (0.2, 1.0, 3.0)]
    ensemble = kl.BayesianEnsembleModel(model, samples)
    p = np.mean([softmax(scale * logits) for scale in (0.2, 1.0, 3.0)], axis=0)
    expected = {
        "brier_score": calibration.brier_score(p, labels),
        "expected_calibration_error": calibration.expected_calibration_error(p, labels),
    }
    assert_has(ensemble.evaluate(logits, labels, BATCH, verbose=0, return_dict=True), expected)
    single = expected_scores(logits, labels)
    assert all(abs(single[name] - expected[name]) > 1e-3 for name in expected)


def test_callbacks_know_which_way_is_better():
    logits, labels = classification()
    model = classifier(class_metrics())
    for name in ("brier_score", "expected_calibration_error"):
        stop = keras.callbacks.EarlyStopping(monitor=name, patience=1)
        model.fit(logits, labels, batch_size=BATCH, epochs=2, verbose=0, callbacks=[stop])
        assert stop.monitor_op is ops.less


def test_metrics_of_one_member_say_so():
    assert all(metric.of_one_member for metric in gaussian_metrics(0.9))
    assert not any(hasattr(metric, "of_one_member") for metric in class_metrics())


@every_row(
    "make, message",
    [
        (lambda: calibration.ExpectedCalibrationError(0), "`num_bins` must be an integer >= 1"),
        (lambda: calibration.IntervalCoverage(90), r"`level` must be in \(0, 1\].*level=90"),
        (lambda: calibration.IntervalCoverage(stddev=0), "`stddev` must be greater than zero"),
        (
            lambda: calibration.ContinuousRankedProbabilityScore(stddev=-1),
            "`stddev` must be greater than zero. Received: stddev=-1",
        ),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_outputs_that_do_not_fit_are_refused():
    for metric in class_metrics():
        with pytest.raises(ValueError, match=r"two or more classes.*y_pred.shape=\(5, 1\)"):
            metric.update_state(np.zeros(5, int), np.zeros((5, 1)))
        with pytest.raises(
            ValueError, match=r"`y_true` must be integer labels.*y_true.shape=\(5, 2"
        ):
            metric.update_state(np.zeros((5, 2), int), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="must have an even length"):
        calibration.IntervalCoverage().update_state(np.zeros((5, 1)), np.zeros((5, 3)))
    for metric in gaussian_metrics(0.9, stddev=1.0):
        with pytest.raises(ValueError, match="targets must have the shape"):
            metric.update_state(np.zeros(5), np.zeros((5, 3)))
