"""One member scores what Keras' loss says of it: axis, ignored classes, smoothing, soft labels and
saturated probabilities, from logits and from probabilities."""

import keras
import numpy as np
import pytest
from keras import layers, losses, ops
from scipy import special

from keras_langevin.predictive import Bernoulli, Categorical, resolve_families
from keras_langevin.predictive.fisher_scores import scores
from keras_langevin.predictive.registry import find_family

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(6, 3, 4, 5)).astype("float32")  # batch, height, width, classes
SOFT = special.softmax(RNG.normal(size=LOGITS.shape), axis=-1).astype("float32")
NUMBERS = RNG.integers(0, 5, LOGITS.shape[:-1])


def tensor(x):
    return ops.convert_to_tensor(x)


def array(x):
    return ops.convert_to_numpy(x)


def score(family, outputs, y):
    """Of one member: minus the mean log density of the labels that count."""
    outputs = tensor(outputs[None])
    density = array(family.log_density(outputs, tensor(y)))
    counted = family.counted(tensor(y), outputs)
    if counted is None:
        return -density.mean()
    counted = array(counted)
    assert counted.shape == density.shape and (density[~counted] == 0).all()
    return -density[counted].mean()


def check(loss, outputs, y):
    family = find_family(loss).for_rank(outputs.ndim)
    expected = float(loss(tensor(y), tensor(outputs)))
    assert np.isfinite(expected)
    assert score(family, outputs, y) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    return family


def probabilities(axis=-1):
    return special.softmax(np.moveaxis(LOGITS, -1, axis), axis=axis)


FROM_LOGITS = pytest.mark.parametrize("from_logits", [True, False])


@FROM_LOGITS
@pytest.mark.parametrize("ignore_class", [None, 0, 3, -1, 255])
def test_an_ignored_class(from_logits, ignore_class):
    y = NUMBERS.copy()
    if ignore_class is not None:
        y[:, 1, :2] = ignore_class
    loss = losses.SparseCategoricalCrossentropy(from_logits, ignore_class=ignore_class)
    outputs = LOGITS if from_logits else probabilities()
    assert check(loss, outputs, y).ignore_class == ignore_class
    check(loss, outputs[:, 0, 0], y[:, 0, :1])


@FROM_LOGITS
@pytest.mark.parametrize("axis", [-1, 3, 1, -3, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_axis_of_the_classes_and_smoothed_labels(from_logits, axis, smoothing):
    if BACKEND == "tensorflow" and from_logits and axis == -3:
        pytest.skip("Keras' own loss raises")
    loss = losses.CategoricalCrossentropy(from_logits, label_smoothing=smoothing, axis=axis)
    outputs = np.moveaxis(LOGITS, -1, axis) if from_logits else probabilities(axis)
    one_hot = np.moveaxis(np.eye(5, dtype="float32")[NUMBERS], -1, axis)
    family = check(loss, outputs, one_hot)
    check(loss, outputs, np.moveaxis(SOFT, -1, axis))
    assert score(family, outputs, NUMBERS) == pytest.approx(score(family, outputs, one_hot))


@pytest.mark.torch
@pytest.mark.skipif(BACKEND != "torch", reason="Keras takes it on torch alone")
def test_the_axis_of_a_sparse_loss():
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, axis=1, ignore_class=2)
    check(loss, np.moveaxis(LOGITS, -1, 1), NUMBERS)


@FROM_LOGITS
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("y", [SOFT, (SOFT > 0.2).astype("float32")], ids=["soft", "whole"])
def test_yes_or_no_in_shades(from_logits, smoothing, y):
    loss = losses.BinaryCrossentropy(from_logits, label_smoothing=smoothing)
    check(loss, LOGITS if from_logits else special.expit(LOGITS), y)


@pytest.mark.parametrize("y", [0, 1, 0.3])
def test_saturated_probabilities_are_clipped_as_in_the_loss(y):
    certain = np.float32([[0.0, 1.0], [1e-9, 1 - 1e-9], [1.0, 0.0]])
    check(losses.BinaryCrossentropy(), certain, np.full_like(certain, y))
    check(losses.CategoricalCrossentropy(), certain, np.float32([[1 - y, y]] * 3))
    if y in (0, 1):
        check(losses.SparseCategoricalCrossentropy(), certain, np.array([y] * 3))


def test_probabilities_are_divided_by_their_sum():
    outputs = np.float32([[0.5, 0.3, 0.195]])
    check(losses.CategoricalCrossentropy(), outputs, np.float32([[0, 1, 0]]))
    check(losses.SparseCategoricalCrossentropy(), outputs, np.array([1]))


@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_functions_say_no_more_than_their_defaults(name):
    family = find_family(name)
    assert family.options == {} and family.output == "probabilities"


@pytest.mark.parametrize(
    "loss",
    [
        losses.CategoricalFocalCrossentropy(),
        losses.BinaryFocalCrossentropy(),
        losses.CategoricalGeneralizedCrossEntropy(),
        losses.Dice(),
        losses.Hinge(),
        type("Mine", (losses.BinaryCrossentropy,), {})(),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_what_is_no_density_has_no_family(loss):
    assert find_family(loss) is None


# ------------------------------------------------------------------- of several members


@pytest.mark.parametrize("axis", [-1, -3])
@pytest.mark.parametrize("labels", ["soft", "numbers"])
def test_the_density_of_the_ensemble_is_the_mean_of_the_members(axis, labels):
    members = np.stack([LOGITS, LOGITS[::-1]])
    p = special.softmax(members, axis=-1)
    if labels == "soft":
        each, y = (SOFT * np.log(p)).sum(-1), np.moveaxis(SOFT, -1, axis)
    else:
        each, y = np.log(np.take_along_axis(p, NUMBERS[None, ..., None], -1)[..., 0]), NUMBERS
    expected = np.logaddexp(*each) - np.log(2)
    for name, outputs in (("logits", members), ("probabilities", p)):
        family = Categorical(name, axis=axis)
        found = family.log_density(tensor(np.moveaxis(outputs, -1, axis)), tensor(y))
        np.testing.assert_allclose(array(found), expected, rtol=1e-4, atol=1e-5)
    yes = special.expit(members)
    each = SOFT * np.log(yes) + (1 - SOFT) * np.log(1 - yes)
    expected = np.logaddexp(*each) - np.log(2)
    found = Bernoulli("binary_logits").log_density(tensor(members), tensor(SOFT))
    np.testing.assert_allclose(array(found), expected, rtol=1e-4, atol=1e-5)


def test_everything_about_another_axis_is_what_it_is_of_the_last_one():
    members = np.stack([LOGITS, LOGITS[::-1]])
    moved = tensor(np.moveaxis(members, -1, -3))
    last, third = Categorical("logits"), Categorical("logits", axis=-3)
    for key, value in last.uncertainty(tensor(members), (0.1, 0.9)).items():
        expected = array(value)
        if key in ("mean", "quantiles"):
            expected = np.moveaxis(expected, -1, -3)
        found = array(third.uncertainty(moved, (0.1, 0.9))[key])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=key)
    assert third.num_labels(tensor(np.moveaxis(LOGITS, -1, 1))) == 12 == last.num_labels(LOGITS)
    draws = RNG.normal(size=(2, *LOGITS.shape)).astype("float32")
    for name in ("logits", "probabilities"):
        outputs = LOGITS if name == "logits" else probabilities()
        expected = scores(Categorical(name), tensor(outputs), tensor(draws))
        found = scores(
            Categorical(name, axis=-3),
            tensor(np.moveaxis(outputs, -1, -3)),
            tensor(np.moveaxis(draws, -1, -3)),
        )
        expected = np.moveaxis(array(expected), -1, -3)
        np.testing.assert_allclose(array(found), expected, rtol=1e-4, atol=1e-5)
    parameters = array(third.parameters(moved))
    third.check(parameters)
    with pytest.raises(ValueError, match="a sum over axis -3"):
        Categorical("probabilities", axis=-3).check(special.softmax(members, axis=-1))
    drawn = third.sample(parameters, np.random.default_rng(0))
    assert drawn.shape == parameters.shape and (drawn.sum(axis=-3) == 1).all()


# ----------------------------------------------------------------------- saving, resolving


def channels_first(loss):
    model = keras.Sequential([keras.Input((3, 4, 5)), layers.Permute((3, 1, 2))])
    model.compile("sgd", loss)
    return model


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (losses.CategoricalCrossentropy(True, axis=1, label_smoothing=0.1), {"axis": -3}),
        (losses.CategoricalCrossentropy(True, axis=-3), {"axis": -3}),
        (losses.CategoricalCrossentropy(True, axis=3), {}),
        (losses.SparseCategoricalCrossentropy(True, ignore_class=255), {"ignore_class": 255}),
        (losses.BinaryCrossentropy(True, label_smoothing=0.1), {}),
    ],
)
def test_a_family_is_made_again_from_its_name_and_its_options(loss, options):
    model = channels_first(loss)
    family = resolve_families(model)
    if getattr(loss, "label_smoothing", None):
        options = {**options, "label_smoothing": 0.1}
    assert family.options == options
    assert resolve_families(model, output=family.output).options == options
    plain = channels_first(None)
    again = resolve_families(plain, family.output, None, [family.options])
    assert vars(again) == vars(family) and type(again) is type(family)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.permute = layers.Permute((3, 1, 2))

    def call(self, x):
        return self.permute(x)


def test_the_axis_of_a_subclassed_model_is_counted_from_the_end():
    model = Subclassed()
    model.compile("sgd", losses.CategoricalCrossentropy(from_logits=True, axis=1))
    with pytest.raises(ValueError, match=r"Received: a loss with axis=1\. Compile it with a neg"):
        resolve_families(model)
    model(LOGITS)
    assert resolve_families(model).axis == -3
