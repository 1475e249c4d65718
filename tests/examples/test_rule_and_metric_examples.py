"""`add_a_layer_rule.py` and `add_a_metric.py` run, what they print is right, and what they add
works with a report, in files and in a run that is stopped and goes on."""

import keras
import numpy as np
import pytest
from keras import ops
from targets.example_run import Run
from targets.resume_run import assert_same

import keras_langevin as kl
from keras_langevin.statistics.registry import _RULES

pytestmark = [
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def rule():
    run = Run("add_a_layer_rule")
    yield run
    _RULES.pop(run["RowDense"])


@pytest.fixture(scope="module")
def metric():
    return Run("add_a_metric")


def resumed(folder, make_model, make_optimizer, x, y):
    """The samples of four epochs, and of a run that is stopped after two and begun again."""

    def samples(name, *stops):
        for epochs in (*stops, 4):
            keras.utils.clear_session()
            keras.utils.set_random_seed(1)
            model = make_model()
            model.compile(make_optimizer(), loss())
            sampler = kl.PosteriorSampler(burn_in=1, directory=folder / name, resume=True)
            model.fit(
                x,
                y,
                batch_size=100,
                initial_epoch=sampler.epochs_seen,
                epochs=epochs,
                shuffle=False,
                verbose=0,
                callbacks=[sampler],
            )
        return list(sampler.samples)

    return samples("stopped", 2), samples("whole")


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def same_predictions(one, other, x):
    np.testing.assert_allclose(
        one.predict(x, verbose=0), other.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


# ------------------------------------------------------------------------------ the layer rule


def test_the_added_rule_measures_what_the_reference_does(rule):
    """Kernel and bias of both layers."""
    assert rule.number("Arrays measured") == 4
    assert rule.number("Largest relative error") < 1e-4


@pytest.mark.parametrize("wanted", ["quasi_diagonal", "inputs"])
def test_the_added_rule_serves_every_set_of_statistics(rule, wanted):
    from targets.statistics_cases import errors, measure

    x, y = rule["x"][:12], np.eye(10, dtype="float32")[rule["y"][:12]]
    model = keras.models.clone_model(rule["model"])
    measured = measure(model, x, y, "exact", wanted=wanted)
    if wanted == "inputs":
        inputs = next(v for path, v in measured.items() if "row_dense" in path)
        flat = x.reshape(12, 64).astype("float64")
        np.testing.assert_allclose(inputs["input_mean"], flat.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(
            inputs["input_second_moment"], (flat**2).mean(axis=0), rtol=1e-4, atol=1e-6
        )
        return
    expected = kl.statistics.reference.per_example_statistics(model, x, y, spatial="exact")
    assert max(errors(measured, expected).values()) < 1e-4


def test_a_wrong_rule_would_be_noticed(rule):
    """The same with the rows in another order."""
    from targets.statistics_cases import errors, measure

    class Flipped(rule["RowDenseRule"]):
        def features(self, layer, inputs, deltas):
            return [(ops.flip(inputs, axis=1), deltas)]

    x, y = rule["x"][:12], np.eye(10, dtype="float32")[rule["y"][:12]]
    model = keras.models.clone_model(rule["model"])
    kl.statistics.register_rule(rule["RowDense"], replace=True)(Flipped)
    try:
        measured = measure(model, x, y, "exact")
        expected = kl.statistics.reference.per_example_statistics(model, x, y, spatial="exact")
    finally:
        kl.statistics.register_rule(rule["RowDense"], replace=True)(rule["RowDenseRule"])
    assert max(errors(measured, expected).values()) > 0.1


def test_the_ensemble_of_the_added_layer_is_good(rule):
    assert rule.number("Accuracy of the ensemble") > 0.87
    assert rule.number("Nats an image") < rule.number("Nats an image of members") < np.log(10) / 2
    assert rule["report"]["optimizer"] == "QDOPLangevin"


def test_the_ensemble_of_the_added_layer_is_read_again(rule, tmp_path):
    ensemble = rule["sampler"].ensemble()
    ensemble.save(tmp_path / "ensemble.keras")
    again = keras.saving.load_model(tmp_path / "ensemble.keras")
    same_predictions(again, ensemble, rule["x_test"])


def test_a_run_with_the_added_layer_goes_on(rule, tmp_path):
    layers = rule["model"].get_config()

    def optimizer():
        return kl.QDOPLangevin(1e-3, num_data=400, seed=1)

    stopped, whole = resumed(
        tmp_path,
        lambda: keras.Sequential.from_config(layers),
        optimizer,
        rule["x"][:400],
        rule["y"][:400],
    )
    assert_same(stopped, whole)


# ---------------------------------------------------------------------------------- the metric


def test_the_ensembles_with_the_added_metric_are_good(metric):
    for dynamics in ("LangevinOptimizer", "SGHMC"):
        assert metric.number(f"Accuracy by {dynamics}") > 0.9
        assert metric.number(f"Nats an image by {dynamics}") < 0.4


def test_the_added_metric_is_a_number_an_array(metric):
    assert metric.lines["Numbers in the metric"] == f"4 for {64 * 32 + 32 + 32 * 10 + 10} weights"


def test_the_added_metric_is_the_mean_of_what_layers_measure(metric):
    """Against the reference, after the first minibatch, which sets it."""
    x, y = metric["x"][:32], metric["y"][:32]
    optimizer = kl.LangevinOptimizer(0.0, num_data=32, preconditioner=metric["ArrayFisher"]())
    model = metric["network"](optimizer)
    kl.warm_up_metric(model, x, y, batch_size=32, num_batches=1)
    expected = kl.statistics.reference.per_example_statistics(model, x, y)
    moments = [
        expected[layer.kernel.path][kind].mean()
        for layer in model.layers
        for kind in ("second_moment", "bias_second_moment")
    ]
    found = [float(ops.convert_to_numpy(v)) for v in optimizer.preconditioner.states]
    np.testing.assert_allclose(found, moments, rtol=1e-4)


def test_the_added_metric_keeps_the_transposition_of_its_factor(metric):
    """⟨Lᵀv, ξ⟩ = ⟨v, Lξ⟩ and L Lᵀ = C, which `kl.SGHMC` relies on; log det M counts entries."""
    added = metric["optimizer"].preconditioner
    held = added.current()
    generator = np.random.default_rng(0)
    shapes = added.layout.shapes
    v, ξ = ([generator.normal(size=s).astype("float32") for s in shapes] for _ in range(2))
    one = sum(np.vdot(a, b) for a, b in zip(map(np.asarray, added.whiten(held, v)), ξ, strict=True))
    copies = [ops.convert_to_tensor(n) for n in ξ]
    sampled = [ops.convert_to_numpy(a) for a in added.sample(held, copies)]
    assert one == pytest.approx(sum(np.vdot(a, b) for a, b in zip(v, sampled, strict=True)), 1e-3)
    twice = [2.0 * m for m in held]
    assert float(added.log_volume(held, twice)) == pytest.approx(
        np.log(2.0) * added.layout.num_weights, rel=1e-4
    )


def test_a_run_with_the_added_metric_goes_on(metric, tmp_path):
    def optimizer():
        added = metric["ArrayFisher"](kl.preconditioners.Averaging(rate=0.3))
        return kl.SGHMC(1e-3, num_data=400, preconditioner=added, seed=1)

    layers = metric["model"].get_config()
    stopped, whole = resumed(
        tmp_path,
        lambda: keras.Sequential.from_config(layers),
        optimizer,
        metric["x"][:400],
        metric["y"][:400],
    )
    assert_same(stopped, whole)


def test_the_added_metric_is_read_again_with_its_optimizer(metric, tmp_path):
    added = metric["ArrayFisher"](kl.preconditioners.Averaging(freeze_after=5))
    model = metric["network"](kl.LangevinOptimizer(1e-3, num_data=64, preconditioner=added, seed=1))
    x, y = metric["x"][:64], metric["y"][:64]
    model.fit(x, y, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=1, thinning=10)])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert type(again.preconditioner) is type(added)
    assert again.preconditioner.averaging == added.averaging
    for one, other in zip(again.preconditioner.states, added.states, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))
