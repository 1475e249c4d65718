"""An ensemble with one member that holds the model's own weights is the model."""

import keras
import numpy as np
import pytest
from keras import ops, tree
from zoo.row import BATCH, EXAMPLES
from zoo.table import rows_here

import keras_langevin as kl
from keras_langevin.weights import named_weights

EXACT = ("probabilities", "logits", "binary_probabilities", "binary_logits", "values")


def draw_weights(model, seed):
    """Puts the trainable weights elsewhere and returns all of them, one member's."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        before = ops.convert_to_numpy(variable)
        variable.assign(before + 0.2 * rng.normal(size=before.shape))
    return {name: ops.convert_to_numpy(v) for name, v in named_weights(model).items()}


def predicted(model, heads, x):
    """What the model predicts, as its likelihood states it: probabilities for logits, and means."""
    flat = tree.flatten(model.predict(x, batch_size=BATCH, verbose=0))
    return [_stated(family, output) for family, output in zip(heads, flat, strict=True)]


def _stated(family, output):
    if family.output == "logits":
        return ops.convert_to_numpy(ops.softmax(output, axis=family.options.get("axis", -1)))
    if family.output == "binary_logits":
        return 1 / (1 + np.exp(-output))
    return output[..., : output.shape[-1] // 2] if "log_scale" in family.output else output


def scored(model, x, y):
    """Loss without what regularizers add, and metrics."""
    found = model.evaluate(x, y, batch_size=EXAMPLES, verbose=0, return_dict=True)
    return found.pop("loss"), {k: v for k, v in found.items() if not k.endswith("_loss")}


def penalty(model, x):
    model(x, training=False)
    return float(sum(ops.convert_to_numpy(loss) for loss in model.losses))


@pytest.mark.parametrize("row", rows_here("one member"))
def test_one_member_is_the_model(row, tmp_path):
    x, y = row.data()
    model = row.compiled("adam")
    if not model.built:
        model.evaluate(x, y, batch_size=BATCH, verbose=0)
    one = kl.BayesianEnsembleModel(model, [draw_weights(model, 0)], output=row.output)
    gaps = []
    for seed in (1, 2):
        member = draw_weights(model, seed)
        one.set_weights([value[None] for value in member.values()])
        expected = predicted(model, one.heads, x)
        found = tree.flatten(one.predict(x, batch_size=BATCH, verbose=0))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
        if row.loss is None:
            continue
        loss, metrics = scored(model, x, y)
        own_loss, own_metrics = scored(one, x, y)
        gaps.append(own_loss - (loss - penalty(model, x)))
        for name, value in metrics.items():
            np.testing.assert_allclose(own_metrics[name], value, rtol=1e-5, err_msg=name)
    if row.loss is None:
        return
    # Constants of a density are the same for all weights, and 0 where it is a probability.
    tolerance = 2e-5 * max(1.0, abs(loss))
    np.testing.assert_allclose(gaps[0], gaps[1], atol=tolerance)
    if all(family.output in EXACT for family in one.heads):
        np.testing.assert_allclose(gaps, 0.0, atol=tolerance)
    reported(one, x, y, own_loss)
    loaded = reloaded(one, tmp_path)
    for ours, theirs in zip(
        tree.flatten(loaded.predict(x, batch_size=BATCH, verbose=0)), expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(scored(loaded, x, y)[0], own_loss, rtol=1e-5)


def reported(one, x, y, loss):
    """The report's likelihoods of labels are what `evaluate` adds up."""
    report = one.report(x, y, verbose=0)
    several = len(one.heads.families) > 1
    total = 0.0
    for name, family, weight, labels in zip(
        one.heads.names, one.heads, one.heads.loss_weights, one.heads.by_output(y), strict=True
    ):
        if not family.has_likelihood:
            return
        if family.loss_sets_scale:  # of all labels of an example together
            weight = np.prod(labels.shape[1:-1])
        key = "negative_log_likelihood"
        total += weight * report[f"{name}_{key}" if several else key]
    np.testing.assert_allclose(total, loss, rtol=2e-4, atol=1e-4)


def reloaded(one, tmp_path):
    one.save(tmp_path / "one.keras")
    return keras.saving.load_model(tmp_path / "one.keras", safe_mode=False)
