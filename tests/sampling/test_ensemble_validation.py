"""The running ensemble's validation metrics in `fit`, and the members' log-likelihoods."""

import csv

import keras
import numpy as np
import pytest

import keras_langevin as kl

TRAIN, VALID = 60, 37


def data(seed=0, outputs=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(TRAIN + VALID, 4)).astype("float32")
    return x, rng.integers(0, outputs, TRAIN + VALID)


def classifier(optimizer=None):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = optimizer or kl.SGLD(0.05, num_data=TRAIN)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def run(model, sampler, x, y, epochs=7, more=(), validation=None, **kwargs):
    callbacks = [sampler, kl.EnsembleValidation(sampler, validation), *more]
    if validation is None:
        kwargs["validation_data"] = (x[TRAIN:], y[TRAIN:])
    fit = model.fit(
        x[:TRAIN], y[:TRAIN], epochs=epochs, batch_size=20, callbacks=callbacks, verbose=0, **kwargs
    )
    return fit.history


def evaluated(sampler, x, y, sample_weight=None):
    ensemble = sampler.ensemble()
    return ensemble.evaluate(x, y, sample_weight=sample_weight, verbose=0, return_dict=True)


def last(history):
    found = {k: v[-1] for k, v in history.items() if k.startswith("val_ensemble_")}
    return {k.removeprefix("val_ensemble_"): v for k, v in found.items()}


@pytest.mark.parametrize("sampler_arguments", [{}, {"max_samples": 2}, {"unit": "step"}])
def test_the_last_epoch_is_what_the_ensemble_evaluates_to(sampler_arguments):
    x, y = data()
    sampler = kl.PosteriorSampler(burn_in=2, **sampler_arguments)
    history = run(classifier(), sampler, x, y)
    expected = evaluated(sampler, x[TRAIN:], y[TRAIN:])
    assert set(expected) == {"loss", "accuracy"}
    assert last(history) == pytest.approx(expected, abs=1e-6)


@pytest.mark.neutral
def test_until_there_is_a_sample_they_are_the_model_s_own():
    x, y = data()
    history = run(classifier(), kl.PosteriorSampler(burn_in=3), x, y, epochs=6)
    own, ensemble = (np.array(history[f"val_{name}loss"]) for name in ("", "ensemble_"))
    np.testing.assert_allclose(ensemble[:4], own[:4], rtol=1e-5)  # the first sample is the point
    assert np.all(np.abs(ensemble[4:] - own[4:]) > 1e-4)


@pytest.mark.neutral
def test_every_member_is_evaluated_once(monkeypatch):
    calls = []
    add = kl.ensemble.RunningEnsemble.add
    monkeypatch.setattr(
        kl.ensemble.RunningEnsemble,
        "add",
        lambda self, weights, batches: (calls.append(1), add(self, weights, batches)),
    )
    x, y = data()
    run(classifier(), kl.PosteriorSampler(burn_in=1), x, y, epochs=6)
    assert len(calls) == 1 + 5  # the present weights once, then a sample an epoch


def test_sample_weights_and_a_statistics_tracking_sampler():
    x, y = data()
    weight = np.random.default_rng(1).uniform(0, 2, VALID).astype("float32")
    validation = (x[TRAIN:], y[TRAIN:], weight)
    sampler = kl.PosteriorSampler(burn_in=2)
    model = classifier(kl.QDOPLangevin(0.01, num_data=TRAIN))
    history = run(model, sampler, x, y, validation=validation)
    assert last(history) == pytest.approx(evaluated(sampler, *validation), abs=1e-6)
    unweighted = evaluated(sampler, *validation[:2])
    assert abs(last(history)["loss"] - unweighted["loss"]) > 1e-3


@pytest.mark.neutral
@pytest.mark.parametrize("loss", ["mse", kl.losses.GaussianNLL(), "binary_crossentropy"])
def test_other_likelihoods(loss):
    x, y = data(outputs=2)
    y = y.astype("float32")[:, None]
    units = 2 if isinstance(loss, kl.losses.GaussianNLL) else 1
    activation = "sigmoid" if loss == "binary_crossentropy" else None
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation)])
    model.compile(kl.SGLD(0.01, num_data=TRAIN), loss)
    sampler = kl.PosteriorSampler(burn_in=1)
    history = run(model, sampler, x, y)
    expected = evaluated(sampler, x[TRAIN:], y[TRAIN:])
    assert last(history)["loss"] == pytest.approx(expected["loss"], abs=1e-6)


def test_several_outputs():
    x, y = data()
    inputs = keras.Input((4,))
    outputs = {"a": keras.layers.Dense(3)(inputs), "b": keras.layers.Dense(1)(inputs)}
    model = keras.Model(inputs, outputs)
    losses = {"a": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "b": "mse"}
    model.compile(kl.SGLD(0.01, num_data=TRAIN), losses, metrics={"a": ["accuracy"]})
    sampler = kl.PosteriorSampler(burn_in=1)
    labels = {"a": y, "b": x[:, :1]}
    train = {k: v[:TRAIN] for k, v in labels.items()}
    valid = x[TRAIN:], {k: v[TRAIN:] for k, v in labels.items()}
    callbacks = [sampler, kl.EnsembleValidation(sampler, valid)]
    history = model.fit(x[:TRAIN], train, epochs=4, callbacks=callbacks, verbose=0).history
    expected = evaluated(sampler, *valid)
    assert last(history)["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert last(history)["a_accuracy"] == pytest.approx(expected["a_accuracy"], abs=1e-6)
    members = sampler.ensemble().log_likelihood(*valid, verbose=0)
    assert members["a"].shape == members["b"].shape == (3, VALID)


def test_a_resumed_run_averages_what_was_stored_before(tmp_path):
    x, y = data()
    first = kl.PosteriorSampler(burn_in=1, directory=tmp_path / "run")
    run(classifier(), first, x, y, epochs=4)
    keras.utils.clear_session()
    second = kl.PosteriorSampler(burn_in=1, directory=tmp_path / "run", resume=True)
    history = run(classifier(), second, x, y, epochs=6, initial_epoch=4)
    assert len(second.samples) == 5
    expected = evaluated(second, x[TRAIN:], y[TRAIN:])
    assert last(history) == pytest.approx(expected, abs=1e-6)


@pytest.mark.neutral
def test_keras_callbacks_see_it(tmp_path):
    x, y = data()
    early = keras.callbacks.EarlyStopping(
        "val_ensemble_loss", min_delta=10.0, patience=2, mode="min", start_from_epoch=3
    )
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5", "val_ensemble_accuracy", mode="max", save_weights_only=True
    )
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    sampler = kl.PosteriorSampler(burn_in=3)
    history = run(classifier(), sampler, x, y, epochs=20, more=[early, best, log])
    assert len(history["loss"]) == 6  # stopped: nothing gains 10 nats
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    logged = [float(row["val_ensemble_loss"]) for row in rows]
    np.testing.assert_allclose(logged, history["val_ensemble_loss"], rtol=1e-6)
    assert (tmp_path / "best.weights.h5").exists()


@pytest.mark.backend
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorBoard is TensorFlow's")
def test_tensorboard_shows_it(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorflow.python.summary.summary_iterator import summary_iterator

    x, y = data()
    board = keras.callbacks.TensorBoard(str(tmp_path))
    run(classifier(), kl.PosteriorSampler(burn_in=1), x, y, epochs=2, more=[board])
    (file,) = (tmp_path / "validation").glob("events*")
    tags = {value.tag for event in summary_iterator(str(file)) for value in event.summary.value}
    assert {"epoch_ensemble_loss", "epoch_ensemble_accuracy"} <= tags


class Shuffled(keras.utils.PyDataset):
    """Other labels first every time it is read."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.reads = x, y, 0

    def __len__(self):
        return 1

    def __getitem__(self, index):
        self.reads += 1
        order = np.random.default_rng(self.reads).permutation(len(self.x))
        return self.x[order], self.y[order]


@pytest.mark.neutral
def test_what_does_not_come_in_the_same_order_is_refused():
    x, y = data()
    with pytest.raises(ValueError, match="same order every time"):
        run(classifier(), kl.PosteriorSampler(burn_in=0), x, y, validation=Shuffled(x, y))


@pytest.mark.neutral
def test_soft_labels_have_the_density_of_evaluate():
    x, _ = data()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile(kl.SGLD(0.05, num_data=TRAIN), "categorical_crossentropy")
    soft = np.random.default_rng(0).dirichlet([1, 2, 3], TRAIN + VALID).astype("float32")
    sampler = kl.PosteriorSampler(burn_in=1)
    history = run(model, sampler, x, soft, epochs=4)
    assert last(history) == pytest.approx(evaluated(sampler, x[TRAIN:], soft[TRAIN:]), abs=1e-6)


@pytest.mark.filterwarnings("ignore:`num_data` must be:UserWarning")
@pytest.mark.neutral
def test_misuse_is_named():
    x, y = data()
    sampler = kl.PosteriorSampler(burn_in=1)
    with pytest.raises(ValueError, match="sampler=None"):
        kl.EnsembleValidation(None)
    with pytest.raises(ValueError, match="before its `EnsembleValidation`"):
        classifier().fit(x, y, callbacks=[kl.EnsembleValidation(sampler), sampler], verbose=0)
    with pytest.raises(ValueError, match="no validation data"):
        callbacks = [sampler, kl.EnsembleValidation(sampler)]
        classifier().fit(x, y, callbacks=callbacks, verbose=0)


def test_log_likelihoods_of_members():
    x, y = data()
    samples = [[np.random.default_rng(s).normal(size=(4, 3)), np.zeros(3)] for s in range(7)]
    ensemble = kl.BayesianEnsembleModel(classifier(), samples, member_batch_size=3)
    found = ensemble.log_likelihood(x, y, verbose=0)
    probabilities = ensemble.predict_members(x, verbose=0)
    expected = np.log(probabilities[:, np.arange(len(y)), y])
    np.testing.assert_allclose(found, expected, atol=2e-6)
    loss = ensemble.evaluate(x, y, verbose=0)[0]
    assert -np.mean(np.log(np.mean(np.exp(found), axis=0))) == pytest.approx(loss, abs=1e-6)
    with pytest.raises(ValueError, match="y=None"):
        ensemble.log_likelihood(x, verbose=0)


@pytest.mark.neutral
def test_log_likelihoods_of_a_dataset():
    x, y = data()

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            rows = slice(40 * index, 40 * index + 40)
            return x[rows], y[rows]

    ensemble = kl.BayesianEnsembleModel(classifier(), [[np.ones((4, 3)), np.zeros(3)]])
    found = ensemble.log_likelihood(Batches(), verbose=0)
    np.testing.assert_allclose(found, ensemble.log_likelihood(x, y, verbose=0))
