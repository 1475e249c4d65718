"""Masks, weights of losses and examples count as in the model's own `evaluate`."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_langevin as kl

RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 20, (30, 7)).astype("int32")
LABELS = IDS % 3
PADDED = np.arange(7) >= RNG.integers(2, 8, size=30)[:, None]
IDS[PADDED], LABELS[PADDED] = 0, 0


def tagger():
    model = keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            layers.Embedding(20, 6, mask_zero=True),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def members(model, count):
    shapes = [v.shape for v in model.trainable_variables]
    return [[RNG.normal(size=shape) for shape in shapes] for _ in range(count)]


@pytest.mark.parametrize("at_once", [1, 2, 5], ids="{}_at_once".format)
def test_loss_is_over_what_is_not_masked(at_once):
    model = tagger()
    ensemble = kl.BayesianEnsembleModel(model, members(model, 5), member_batch_size=at_once)
    probabilities = ensemble.predict(IDS, verbose=0)
    of_labels = np.take_along_axis(probabilities, LABELS[..., None], -1)[..., 0]
    found = ensemble.evaluate(IDS, LABELS, batch_size=30, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(-np.log(of_labels)[~PADDED].mean(), rel=1e-5)
    right = probabilities.argmax(-1) == LABELS
    assert found["accuracy"] == pytest.approx(right[~PADDED].mean(), rel=1e-5)
    log_likelihood = ensemble.log_likelihood(IDS, LABELS, verbose=0)
    assert (log_likelihood[:, PADDED] == 0).all() and (log_likelihood[:, ~PADDED] < 0).all()
    report = ensemble.report(IDS, LABELS, verbose=0)
    assert report["num_labels"] == (~PADDED).sum()
    assert report["negative_log_likelihood"] == pytest.approx(found["loss"], rel=1e-5)
    assert report["accuracy"] == pytest.approx(found["accuracy"], rel=1e-5)


def test_validation_of_the_ensemble_sees_the_mask():
    model = tagger()
    model.compile(
        kl.SGLD(0.01, num_data=30), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    sampler = kl.PosteriorSampler(burn_in=1)
    history = model.fit(
        IDS,
        LABELS,
        epochs=2,
        validation_data=(IDS, LABELS),
        verbose=0,
        callbacks=[sampler, kl.EnsembleValidation(sampler)],
    ).history
    for name in ("loss", "accuracy"):  # of one member, the model itself
        assert history[f"val_ensemble_{name}"][-1] == pytest.approx(
            history[f"val_{name}"][-1], rel=1e-5
        )


@pytest.mark.parametrize("per_label", [False, True], ids=["of_examples", "of_labels"])
def test_weights_of_examples_count_as_in_the_model(per_label):
    if not per_label and keras.backend.backend() == "torch":
        pytest.skip("Keras on torch does not spread them over positions itself")
    model = tagger()
    weights = RNG.uniform(0.5, 2.0, size=(30, 7) if per_label else (30, 1)).astype("float32")
    one = kl.BayesianEnsembleModel(model, [[v.numpy() for v in model.trainable_variables]])
    expected = model.evaluate(IDS, LABELS, sample_weight=weights, batch_size=30, verbose=0)
    found = one.evaluate(IDS, LABELS, sample_weight=weights, batch_size=30, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    report = one.report(IDS, LABELS, sample_weight=weights, verbose=0)
    assert report["negative_log_likelihood"] == pytest.approx(expected[0], rel=1e-5)


def test_weights_of_examples_reach_units_of_yes_or_no():
    x, y = RNG.normal(size=(12, 4)), RNG.integers(2, size=(12, 3))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    one = kl.BayesianEnsembleModel(model, members(model, 1))
    for variable, value in zip(model.trainable_variables, one.weights, strict=True):
        variable.assign(value[0])
    weights = RNG.uniform(0.5, 2.0, size=12)
    expected = model.evaluate(x, y, sample_weight=weights, verbose=0)
    assert one.evaluate(x, y, sample_weight=weights, verbose=0) == pytest.approx(expected, rel=1e-5)
