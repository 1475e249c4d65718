"""Which loss says which likelihood, and what is refused."""

import keras
import numpy as np
import pytest
from keras import layers, losses, ops

import keras_langevin as kl
from keras_langevin.predictive import resolve_families
from keras_langevin.predictive.poisson import Poisson

pytestmark = pytest.mark.neutral


@pytest.mark.parametrize(
    ("loss", "output", "options"),
    [
        ("mae", "median", {}),
        ("mean_absolute_error", "median", {}),
        ("poisson", "rates", {}),
        (losses.poisson, "rates", {}),
        ("Huber", "huber_center", {}),
        (losses.Huber(delta=0.5), "huber_center", {"delta": 0.5}),
        ("log_cosh", "log_cosh_center", {}),
        ("msle", "log_normal_median", {}),
        (kl.losses.StudentTNLL(df=7.0), "student_t", {"df": 7.0}),
        (kl.losses.StudentTNLL(df=None), "student_t", {"df": None}),
        (kl.losses.NegativeBinomialNLL(), "negative_binomial", {}),
        (kl.losses.BetaNLL(), "beta", {}),
    ],
)
def test_a_loss_says_its_likelihood_and_a_file_says_it_again(loss, output, options):
    def model(loss):
        model = keras.Sequential([keras.Input((2,)), layers.Dense(6)])
        model.compile("sgd", loss)
        return model

    family = resolve_families(model(loss))
    assert family.output == output and family.options == options
    assert type(resolve_families(model(loss), output=output)) is type(family)
    again = resolve_families(model("hinge"), output, None, [family.options])
    assert type(again) is type(family) and vars(again) == vars(family)
    if family.loss_sets_scale:
        weighted = model(loss)
        weighted.compile("sgd", loss, loss_weights=[2.0])
        y = np.full((1, 6), 0.3, "float32")

        def total(family, weight, value):
            outputs = np.full((1, 1, 6), value, "float32")
            density = ops.convert_to_numpy(family.log_densities(outputs, y)).sum()
            return (
                density
                + weight * ops.convert_to_numpy(keras.losses.get(loss)(y, outputs[0])).mean()
            )

        gaps = [
            total(one, weight, 0.9) - total(one, weight, 1.9)
            for one, weight in ((family, 1.0), (resolve_families(weighted), 2.0))
        ]
        np.testing.assert_allclose(gaps, 0.0, atol=1e-5)  # the weighted loss, but for a constant


@pytest.mark.parametrize("name", ["Huber", "MeanAbsoluteError", "LogCosh", "MeanSquaredError"])
def test_a_sum_over_the_batch_is_another_noise(name):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(6)])
    model.compile("sgd", getattr(losses, name)(reduction="sum"))
    with pytest.raises(ValueError, match=f"loss={name} and reduction='sum'"):
        resolve_families(model)


def test_rates_below_0_are_refused():
    with pytest.raises(ValueError, match=r"Received: -0\.5\. End the model with the activation"):
        Poisson().check(np.float32([0.0, -0.5]))
    Poisson().check(np.float32([0.0, 0.5]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kl.losses.StudentTNLL(df=0.5), "`df` must be at least 1, or None. Received: df=0"),
        (lambda: kl.losses.StudentTNLL()(np.zeros((2, 1)), np.zeros((2, 3))), "an even length"),
        (
            lambda: kl.losses.StudentTNLL(df=None)(np.zeros((2, 1)), np.zeros((2, 4))),
            "a length that 3 divides",
        ),
        (lambda: kl.losses.BetaNLL()(np.zeros((2, 2)), np.zeros((2, 2))), r"y\.shape=\(2, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    "loss",
    [kl.losses.GaussianNLL(), kl.losses.BetaNLL(), kl.losses.StudentTNLL(df=None, name="mine")],
)
def test_losses_are_serialisable(loss):
    again = losses.deserialize(losses.serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
