"""`learning_rate="auto"`, the metric's warm-up, the drift clip and the statistics' stride."""

import dataclasses

import keras
import numpy as np
import pytest
from cases import slow_but_for
from keras import ops
from targets.classification import automatic, compiled, data

import keras_langevin as kl
from keras_langevin.learning_rate.limits import StepSize


def rate(model):
    return float(ops.convert_to_numpy(model.optimizer.learning_rate))


class Rates(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.values = []

    def on_epoch_begin(self, epoch, logs=None):
        self.values.append(rate(self.model))


@slow_but_for(kl.QDOPLangevin)
def test_auto_finds_a_stable_rate_and_keeps_it_after_burn_in(case):
    model, rates = compiled(sampler=case.sampler), Rates()
    limit = kl.diagnostics.step_size(model, *data(), batch_size=20).stability_limit
    history = model.fit(
        *data(), 20, 20, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=8), rates]
    ).history
    assert len(history["loss"]) == 20  # of this fit, not of the metric's warm-up
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == 200
    assert min(rates.values) > 0
    assert len(set(rates.values[:9])) >= 3  # before epoch 1, and after epochs 1, 2, 4 and 8
    assert len(set(rates.values[8:])) == 1
    assert rates.values[0] < 1.2 * limit  # found on other minibatches
    assert history["loss"][-1] < history["loss"][0]
    assert 0 < history["minibatch_noise"][-1] <= 0.5 * (1 + 1e-6)  # rounded to float32


def test_auto_reads_every_kind_of_data():
    x, y = data()

    def generator():
        for start in range(0, 100000, 20):
            rows = np.arange(start, start + 20) % 200
            yield x[rows], y[rows], np.ones(20, "float32")

    class Sequence(keras.utils.PyDataset):
        def __len__(self):
            return 10

        def __getitem__(self, i):
            return x[20 * i : 20 * i + 20], y[20 * i : 20 * i + 20]

    for source in (generator(), Sequence()):
        model = automatic()
        sampler = kl.PosteriorSampler(burn_in=1)
        steps = None if isinstance(source, Sequence) else 10
        model.fit(
            source,
            steps_per_epoch=steps,
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=[sampler],
        )
        assert rate(model) > 0
        assert len(sampler.samples) == 2


@pytest.mark.neutral
def test_auto_needs_a_sampler_or_a_rate():
    model, (x, y) = compiled(), data()
    kl.track_statistics(model, model.optimizer)
    with pytest.raises(ValueError, match="find_learning_rate"):
        model.fit(x, y, verbose=0)
    model = compiled()
    model.optimizer.learning_rate = kl.find_learning_rate(model, x, y, batch_size=20)
    assert rate(model) > 0
    model.fit(x, y, batch_size=20, verbose=0)
    with pytest.raises(ValueError, match='or "auto"'):
        kl.SGLD("fast", num_data=10)


def test_bad_data_are_named_before_the_first_step():
    x, y = data()
    x[7] = np.nan
    with pytest.raises(FloatingPointError, match="curvature of the loss must be finite"):
        automatic().fit(x, y, 20, 2, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=1)])


def test_auto_survives_saving(tmp_path):
    model, (x, y) = automatic(), data()
    model.fit(x, y, 20, 2, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=1)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config()["learning_rate"] == "auto"
    assert loaded.optimizer.drift_clip == 10.0
    kl.track_statistics(loaded, loaded.optimizer)
    assert rate(loaded) == rate(model)
    loaded.fit(x, y, batch_size=20, verbose=0)  # goes on at the rate that was saved


@pytest.mark.neutral
def test_a_resumed_chain_keeps_its_rate(tmp_path):
    def run(epochs):
        sampler = kl.PosteriorSampler(burn_in=1, directory=tmp_path / "run", resume=True)
        model, rates = automatic(), Rates()
        start = sampler.epochs_seen
        model.fit(*data(), 20, epochs, initial_epoch=start, verbose=0, callbacks=[sampler, rates])
        return rates.values

    first = run(3)
    second = run(5)
    assert second == [first[-1]] * 2


@pytest.mark.neutral
def test_a_long_run_gets_a_smaller_rate():
    found = []
    for epochs in (2, 400):
        keras.utils.set_random_seed(0)
        model, rates = automatic(), Rates()
        stop = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, model=model: setattr(model, "stop_training", True)
        )
        callbacks = [kl.PosteriorSampler(burn_in=1), rates, stop]
        model.fit(*data(), 20, epochs, verbose=0, callbacks=callbacks)
        found.append(rates.values[0])
    assert found[1] == pytest.approx(found[0] * 2 * (50 / 4000) ** (1 / 3), rel=0.2)


@pytest.mark.parametrize("schedule", [False, True])
def test_warm_up_fills_the_metric_and_moves_nothing(schedule):
    decay = keras.optimizers.schedules.ExponentialDecay(1e-2, 10, 0.9)
    model, (x, y) = compiled(decay if schedule else 1e-2), data()
    before = model.get_weights()
    assert kl.warm_up_metric(model, x, y, batch_size=20, num_batches=5) is model
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    preconditioner = model.optimizer.preconditioner
    assert float(ops.convert_to_numpy(preconditioner.count)) == 5
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == 0
    model.fit(x, y, batch_size=20, verbose=0)
    assert float(ops.convert_to_numpy(preconditioner.count)) == 15
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("size", "stride", "step"),
    [
        pytest.param(40, 4, 4, marks=pytest.mark.law),
        (80, None, 2),
        pytest.param(40, None, 1, marks=pytest.mark.law),
    ],
)
def test_a_stride_measures_the_examples_it_should(size, stride, step):
    """The metric of every fourth example is the metric of a batch of those alone; without a
    stride at least 32 examples are measured."""
    x, y = data(size)
    metrics = []
    for rows, every in ((slice(None, None, step), 1), (slice(None), stride)):
        keras.utils.set_random_seed(3)
        model = compiled(1e-2, statistics_stride=every)
        kl.track_statistics(model, model.optimizer)
        model.optimizer.learning_rate = 0.0
        model.fit(x[rows], y[rows], batch_size=len(x[rows]), shuffle=False, verbose=0)
        metrics.append([ops.convert_to_numpy(s) for s in model.optimizer.preconditioner.states])
    for alone, strided in zip(*metrics, strict=True):
        np.testing.assert_allclose(strided, alone, rtol=2e-5, atol=1e-8)


def test_the_drift_clip_shortens_what_is_too_long_and_counts_it():
    """Inputs a thousand times larger in one batch of ten."""
    x, y = data()
    x[100:120] *= 1000
    paths = {}
    for clip in (None, 2.0, 1e12):
        keras.utils.set_random_seed(0)
        model = compiled(1e-3, kl.SGLD, drift_clip=clip, temperature=0.0)
        history = model.fit(x, y, 20, 3, verbose=0, shuffle=False).history
        paths[clip] = (model.get_weights(), model.optimizer.sampler_logs(), history)
    assert "drift_clipped" not in paths[None][1]
    assert paths[1e12][1]["drift_clipped"] == 0
    for plain, unclipped in zip(paths[None][0], paths[1e12][0], strict=True):
        np.testing.assert_allclose(plain, unclipped, rtol=1e-5, atol=1e-6)
    assert 3 / 30 <= paths[2.0][1]["drift_clipped"] <= 0.5  # one batch of ten, three times
    assert np.isfinite(paths[2.0][2]["loss"][-1])


def test_auto_goes_with_the_noise_correction():
    assert kl.QDOPLangevin("auto", num_data=100, minibatch_correction=10).minibatch_correction == 10


def metric_of(model):
    return [ops.convert_to_numpy(v) for v in model.optimizer.preconditioner.states]


def learns(model, sampler, epochs, start=0):
    """Whether the metric changes, in each epoch of a `fit`."""
    changed, before = [], []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            before[:] = metric_of(self.model)

        def on_epoch_end(self, epoch, logs=None):
            pairs = zip(before, metric_of(self.model), strict=True)
            changed.append(any((a != b).any() for a, b in pairs))

    if not model.optimizer.built:
        kl.track_statistics(model, model.optimizer)
        model.optimizer.build(model.trainable_variables)
    callbacks = [sampler, Watch()]
    model.fit(*data(), 20, epochs, initial_epoch=start, verbose=0, callbacks=callbacks)
    return changed


@pytest.mark.parametrize("learning_rate", ["auto", 1e-3])
def test_the_metric_is_held_when_burn_in_ends(learning_rate):
    model, sampler = compiled(learning_rate), kl.PosteriorSampler(burn_in=2)
    assert learns(model, sampler, 4) == [True, True, False, False]
    assert learns(model, sampler, 6, start=4) == [False, False]  # goes on
    assert learns(model, kl.PosteriorSampler(burn_in=1), 2) == [True, False]  # burns in again
    assert learns(model, kl.PosteriorSampler(burn_in=0), 1) == [False]


def test_a_metric_that_nothing_has_filled_is_not_held():
    assert learns(compiled(1e-3), kl.PosteriorSampler(burn_in=0), 2) == [True, False]


def test_a_metric_that_is_to_go_on_learning():
    averaging = kl.preconditioners.Averaging(freeze_after=None)
    model = compiled(1e-3, averaging=averaging)
    assert learns(model, kl.PosteriorSampler(burn_in=1), 3) == [True] * 3
    schedule = kl.schedules.CyclicalCosine(1e-3, cycle_steps=10, exploration=0.5)
    assert learns(compiled(schedule), kl.PosteriorSampler(burn_in=1), 3) == [True] * 3


def test_what_auto_found_is_said_once_when_burn_in_ends(capsys):
    model = automatic()
    model.fit(*data(), 20, 6, verbose=2, callbacks=[kl.PosteriorSampler(burn_in=2)])
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if 'learning_rate="auto"' in line]
    assert f"{rate(model):.2g}" in line and "the 40 steps after burn-in" in line
    assert out.index("Epoch 2/6") < out.index(line) < out.index("Epoch 3/6")


def test_a_rate_takes_a_share_of_the_limits_that_falls_with_the_run():
    found = StepSize(4.0, 1.0, 20, 200, 1.0)  # 2/λ = 0.5, and 0.2 where the noises are equal
    assert found.recommended == found.recommended_for(400) == pytest.approx(0.1)
    assert found.recommended_for(50_000) == pytest.approx(0.2 * 0.1)
    full = dataclasses.replace(found, gradient_noise=0.0)
    assert full.recommended_for(50_000) == pytest.approx(0.5 * 0.1)
    assert full.effective_samples(0.05, 1000) == pytest.approx(0.05 * 1000 / 2)


def test_the_clip_in_use():
    assert kl.QDOPLangevin("auto", num_data=10).drift_clip == 10.0
    assert kl.QDOPLangevin(1e-3, num_data=10).drift_clip is None
    assert kl.QDOPLangevin("auto", num_data=10, drift_clip=float("inf")).drift_clip is None
    with pytest.raises(ValueError, match="Received: drift_clip="):
        kl.SGLD(1e-3, num_data=10, drift_clip=0.5)


def test_the_noise_of_batches_without_end_is_that_of_their_size():
    x, y = data()

    def generator():
        while True:
            rows = np.random.randint(0, 200, 20)
            yield x[rows], y[rows]

    model = automatic()
    sampler = kl.PosteriorSampler(burn_in=2)
    fit = {"steps_per_epoch": 50, "epochs": 3, "shuffle": False, "verbose": 0}
    history = model.fit(generator(), callbacks=[sampler], **fit)
    noise = history.history["minibatch_noise"][-1]
    assert noise == pytest.approx(model.optimizer.minibatch_noise(20))
