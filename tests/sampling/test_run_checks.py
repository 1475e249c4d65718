"""Warnings of a run that goes wrong, while it runs, and none for one that does not."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers

import keras_langevin as kl
from keras_langevin.predictive.constant_loss import constant_loss

pytestmark = pytest.mark.timeout(120)
ROWS = 200
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


def classes(scale=1.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3)).astype("float32")
    y = (x[:, 0] + 0.3 * rng.normal(size=ROWS) > 0.5).astype("int32")
    return scale * x, y


def fit(
    optimizer, data=None, epochs=12, burn_in=6, loss=LOGITS, outputs=2, layer=None, **arguments
):
    x, y = classes() if data is None else data
    model = keras.Sequential([keras.Input((3,)), layer or layers.Dense(outputs)])
    model.compile(optimizer, loss, jit_compile=JIT_IF_NEEDED)
    sampler = kl.PosteriorSampler(burn_in=burn_in)
    model.fit(x, y, batch_size=10, epochs=epochs, callbacks=[sampler], verbose=0, **arguments)
    return model


def test_a_loss_that_stays_above_that_of_a_constant():
    hot = kl.SGLD(0.5, num_data=ROWS, temperature=300.0)
    with pytest.warns(UserWarning) as caught:
        fit(hot, epochs=20)
    (words,) = [str(w.message) for w in caught if "training loss" in str(w.message)]
    assert "how often each class occurs" in words and 'learning_rate="auto"' in words


def test_a_loss_that_falls_too_slowly():
    ordinary = classes()
    x = 0.01 * ordinary[0]
    with pytest.warns(UserWarning, match="training loss.*It still falls: use") as caught:
        fit(kl.SGLD(1e-3, num_data=ROWS), (x, ordinary[1]), layer=biased(), burn_in=8)
    assert len([w for w in caught if "training loss" in str(w.message)]) == 1


def biased():
    """Begins sure of the wrong class."""
    return layers.Dense(2, bias_initializer=keras.initializers.Constant([-3.0, 3.0]))


def test_no_false_alarm_of_the_loss():
    rng = np.random.default_rng(1)
    noise = classes()[0], rng.integers(0, 2, ROWS)
    fit(kl.SGLD(0.05, num_data=ROWS), noise)  # there is nothing to learn
    fit(kl.SGLD(0.02, num_data=ROWS), burn_in=11)  # falls
    ordered = tuple(a[np.argsort(classes()[1], kind="stable")] for a in classes())
    fit(kl.SGLD(0.05, num_data=ROWS), ordered, shuffle=False)
    heavy = layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.5))
    fit(kl.SGLD(0.02, num_data=ROWS), layer=heavy)


def test_the_advice_is_not_what_is_done_already():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile(kl.SGLD(num_data=ROWS), LOGITS)
    sampler = kl.PosteriorSampler(burn_in=3)
    sampler.set_model(model)
    checks = sampler._checks
    model.optimizer.iterations.assign(500)
    model.optimizer.learning_rate = 0.1
    checks.compare_with(constant_loss(model, classes()[1]))
    with pytest.warns(UserWarning, match="training loss is 3 after .*longer burn-in and") as caught:
        for _ in range(9):
            checks.epoch_end(3.0, {}, True)
    (words,) = [str(w.message) for w in caught if "training loss" in str(w.message)]
    assert "auto" not in words


def constant(loss, y, outputs, weights=None):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(outputs)])
    model.compile("sgd", loss)
    found = constant_loss(model, y, weights)
    return None if found is None else found.value


def trained(loss, y, outputs, weights=None):
    """The loss that a bias alone comes to."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(outputs)])
    model.compile(keras.optimizers.Adam(0.05), loss, jit_compile=JIT_IF_NEEDED)
    x = np.zeros((len(y), 2), "float32")
    model.fit(x, y, batch_size=len(y), sample_weight=weights, epochs=400, verbose=0)
    return model.evaluate(x, y, sample_weight=weights, verbose=0)


@pytest.mark.neutral
@pytest.mark.parametrize(
    "loss, kind, outputs",
    [
        (LOGITS, "whole", 3),
        (keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), "one-hot", 3),
        (BINARY, "binary", 2),
        ("mse", "real", 2),
        ("mae", "real", 2),
        (kl.losses.GaussianNLL(0.5), "real", 2),
        (kl.losses.GaussianNLL(), "real", 4),
        (kl.losses.StudentTNLL(df=4.0), "real", 4),
    ],
)
def test_the_best_constant_is_what_a_bias_learns(loss, kind, outputs):
    rng = np.random.default_rng(2)
    y = {
        "whole": rng.choice(3, 60, p=[0.6, 0.3, 0.1]),
        "one-hot": np.eye(3, dtype="float32")[rng.choice(3, 60, p=[0.6, 0.3, 0.1])],
        "binary": (rng.uniform(size=(60, 2)) < [0.2, 0.7]).astype("float32"),
        "real": rng.normal(size=(60, 2)).astype("float32"),
    }[kind]
    assert constant(loss, y, outputs) == pytest.approx(trained(loss, y, outputs), abs=2e-3)


@pytest.mark.neutral
def test_the_best_constant_under_weights():
    rng = np.random.default_rng(3)
    y, weights = rng.choice(3, 60), rng.uniform(0.5, 1.5, 60).astype("float32")
    found = constant(LOGITS, y, 3, weights)
    assert found == pytest.approx(trained(LOGITS, y, 3, weights), abs=2e-3)


def test_constants_that_are_not_known():
    assert constant(LOGITS, np.ones(10, int), 3) is None  # one class alone
    assert constant("cosine_similarity", np.eye(3, dtype="float32"), 3) is None
    assert constant("mse", np.full((9, 1), np.nan, "float32"), 1) is None


def heavy_tails():
    """One input in twenty is thirty times as large."""
    rng = np.random.default_rng(4)
    x = classes()[0] * np.where(rng.uniform(size=(ROWS, 1)) < 0.05, 30.0, 1.0).astype("float32")
    return x, (rng.uniform(size=ROWS) < 0.5).astype("int32")


def test_drifts_that_are_shortened():
    clipped = kl.SGLD(1e-4, num_data=ROWS, drift_clip=1.5)
    with pytest.warns(UserWarning) as caught:
        fit(clipped, heavy_tails(), epochs=30, burn_in=12)
    (words,) = [str(w.message) for w in caught if "drift" in str(w.message)]
    assert "at the end of burn-in" in words and "Scale the inputs" in words


def test_drifts_that_are_not():
    fit(kl.SGLD(0.02, num_data=ROWS, drift_clip=10.0), epochs=30, burn_in=12)
    fit(
        kl.SGLD(1e-4, num_data=ROWS, drift_clip=1.5), heavy_tails(), epochs=3, burn_in=1
    )  # few steps
