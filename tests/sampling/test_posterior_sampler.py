import contextlib
import csv
import io
import itertools
import os
import re
import types

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin.optimizers import DOPLangevin, QDOPLangevin
from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.sampling.schedule import SamplingSchedule
from keras_langevin.statistics import is_tracked
from keras_langevin.storage.sample_store import SampleStore
from keras_langevin.weights import is_statistic, named_weights

NUM_DATA, BATCH = 20, 4  # five batches an epoch


class FakeLangevin(kl.Sampler):
    """A sampler of somebody else's: plain descent that states a target."""

    def __init__(self, learning_rate=0.01, *, num_data=NUM_DATA, temperature=0.5, **kwargs):
        super().__init__(
            learning_rate, num_data=num_data, temperature=temperature, prior=None, **kwargs
        )

    def advance(self, values, gradients, statistics, metric, learning_rate):
        return [θ - learning_rate * g for θ, g in zip(values, gradients, strict=True)], []

    def sampler_logs(self):
        return {"step_norm": np.float32(3.0)}


def data(poison=False):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_DATA, 3)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    if poison:
        y[-1] = np.nan
    return x, y


def network(*layers, units=1, dtype=None):
    return keras.Sequential(
        [
            keras.Input((3,)),
            *layers,
            keras.layers.Dense(units, name="out", dtype=dtype),
        ],
        name="net",
    )


def compiled(*layers, optimizer=None, loss="mse", model=None, **kwargs):
    model = network(*layers) if model is None else model
    optimizer = keras.optimizers.SGD(0.01) if optimizer is None else optimizer
    model.compile(optimizer, loss, **{"jit_compile": JIT_IF_NEEDED, **kwargs})
    return model


def fit(model, sampler, epochs=1, poison=False, **kwargs):
    x, y = data(poison)
    callbacks = [sampler, *kwargs.pop("callbacks", ())]
    arguments = {"batch_size": BATCH, "verbose": 0, "shuffle": False, **kwargs}
    return model.fit(x, y, epochs=epochs, callbacks=callbacks, **arguments)


def snapshot(model):
    return {
        name: np.array(keras.ops.convert_to_numpy(v)) for name, v in named_weights(model).items()
    }


def steps(sampler):
    return [sample.step for sample in sampler.samples]


def assert_same(one, other, **tolerance):
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], err_msg=name, **tolerance)


# ---------------------------------------------------------------------------- the schedule


@every_row("burn_in", [0, 1, 3])
@every_row("thinning", [1, 2, 3])
def test_schedule_is_its_definition(burn_in, thinning):
    schedule = SamplingSchedule(burn_in, thinning, "epoch")
    due = [e for e in range(1, 20) if e > burn_in and (e - burn_in) % thinning == 0]
    assert [e for e in range(1, 20) if schedule.due_within(e - 1, e) == e] == due
    assert [e for e in range(20) if schedule.includes(e)] == due


@every_row("execution", [1, 2, 3, 5, 7])
def test_doubling_keeps_what_the_doubled_schedule_draws(execution):
    """Also where an execution of several steps spans several positions."""
    for burn_in, thinning in [(0, 1), (4, 1), (3, 2), (5, 3)]:
        schedule = SamplingSchedule(burn_in, thinning, "step")
        windows = [(i, i + execution) for i in range(0, 120, execution)]
        drawn = {w: schedule.due_within(*w) for w in windows}
        for _ in range(3):
            schedule = schedule.doubled()
            kept = {w for w, position in drawn.items() if position and schedule.includes(position)}
            assert kept == {w for w in windows if schedule.due_within(*w) is not None}
        assert schedule.spacing == 8 * thinning


@pytest.mark.parametrize(
    "burn_in, thinning, epochs, expected",
    [
        (0, 1, 3, [5, 10, 15]),
        (1, 1, 3, [10, 15]),
        (1, 2, 5, [15, 25]),
        (0, 3, 5, [15]),
        (4, 1, 4, []),
    ],
)
def test_epochs(burn_in, thinning, epochs, expected):
    sampler = PosteriorSampler(burn_in, thinning)
    fit(compiled(), sampler, epochs)
    assert steps(sampler) == expected
    assert [f["position"] * 5 for f in sampler.samples.facts] == expected
    assert sampler.epochs_seen == epochs


@pytest.mark.parametrize(
    "burn_in, thinning, execution, expected",
    [
        (0, 4, 1, [4, 8]),
        (7, 1, 1, [8, 9, 10]),
        (3, 3, 1, [6, 9]),
        (0, 3, 2, [4, 7, 9]),  # executions end at 2 4 5 | 7 9 10; due are 3 6 9
        (0, 1, 5, [5, 10]),
    ],
)
def test_steps(burn_in, thinning, execution, expected):
    if execution > 1 and keras.backend.backend() == "torch":
        pytest.skip("Keras has no steps_per_execution on torch")
    sampler = PosteriorSampler(burn_in, thinning, unit="step")
    fit(compiled(steps_per_execution=execution), sampler, epochs=2)
    assert steps(sampler) == expected
    assert sampler.steps_seen == 10


def test_counts_go_on_through_several_fits():
    model, sampler = compiled(), PosteriorSampler(1, 2)
    fit(model, sampler, 2)
    fit(model, sampler, 3)
    assert steps(sampler) == [15, 25]
    model, sampler = compiled(), PosteriorSampler(1, 4, unit="step")
    fit(model, sampler, 1)
    fit(model, sampler, 1)
    assert steps(sampler) == [5, 9]


def test_evaluate_and_predict_with_the_sampler_count_nothing():
    model, sampler = compiled(), PosteriorSampler(0)
    x, y = data()
    fit(model, sampler, 1, validation_data=(x, y))
    model.evaluate(x, y, callbacks=[sampler], verbose=0)
    model.predict(x, callbacks=[sampler], verbose=0)
    assert sampler.epochs_seen == len(sampler.samples) == 1


@pytest.mark.parametrize("directory", [False, True])
def test_max_samples_doubles_the_thinning(tmp_path, directory):
    directory = tmp_path / "run" if directory else None
    sampler = PosteriorSampler(2, 1, unit="step", max_samples=4, directory=directory)
    fit(compiled(), sampler, epochs=4)
    # 3 4 5 6 | 4 6 8 10 | 6 10 14 18
    assert steps(sampler) == [6, 10, 14, 18]
    assert sampler.thinning == 4
    plain = PosteriorSampler(2, 4, unit="step")
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = compiled()
    fit(model, plain, epochs=4)
    assert steps(plain) == steps(sampler)
    if directory:
        assert steps(types.SimpleNamespace(samples=SampleStore.load(directory))) == [6, 10, 14, 18]
        assert len(list(directory.glob("sample-*"))) == 4


# ------------------------------------------------------------------------ what is stored


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_samples_are_the_weights_of_their_moment(unit):
    """Real copies of changing weights; on JAX the state is fetched during the epoch."""
    model, sampler = compiled(), PosteriorSampler(0, unit=unit)
    seen = [snapshot(model)]
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(snapshot(model)))
    fit(model, sampler, 3, callbacks=[after])
    samples = list(sampler.samples)[:: 1 if unit == "epoch" else 5]
    kernels = [sample["net/out/kernel"] for sample in samples]
    assert all(np.abs(a - b).max() > 1e-4 for a, b in itertools.pairwise(kernels))
    assert_same(sampler.samples[-1], seen[-1])
    if unit == "step":
        assert_same(sampler.samples[4], seen[1])
        ends = [s["net/out/bias"][0] for s in sampler.samples]
        assert len(set(ends)) == 15


def test_a_sample_gives_back_the_whole_predictor():
    """The moving averages of BatchNormalization belong to it."""
    model, sampler = compiled(keras.layers.BatchNormalization(name="norm")), PosteriorSampler(0)
    fit(model, sampler, 2)
    x, _ = data()
    expected = model.predict(x, verbose=0)
    assert list(sampler.samples[0]) == [
        "net/norm/gamma",
        "net/norm/beta",
        "net/out/kernel",
        "net/out/bias",
        "net/norm/moving_mean",
        "net/norm/moving_variance",
    ]
    fit(model, PosteriorSampler(0), 3)
    assert np.abs(model.predict(x, verbose=0) - expected).max() > 1e-3
    for name, variable in named_weights(model).items():
        variable.assign(sampler.samples[-1][name])
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


def test_facts_of_a_sample():
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)
    sampler = PosteriorSampler(0, chain=3)
    fit(compiled(optimizer=FakeLangevin(learning_rate=decay)), sampler, 2)
    assert [s.learning_rate for s in sampler.samples] == pytest.approx([0.05, 0.025])
    assert [s.temperature for s in sampler.samples] == [0.5, 0.5]
    assert [s.chain for s in sampler.samples] == [3, 3]


def test_an_optimizer_that_does_not_sample_gives_snapshots():
    sampler = PosteriorSampler(0)
    fit(compiled(optimizer="adam"), sampler, 1)
    assert sampler.samples[0].temperature is None
    assert sampler.samples[0].step == 5


def test_bfloat16_weights(tmp_path):
    model = compiled(model=network(dtype="bfloat16"))
    sampler = PosteriorSampler(0, directory=tmp_path / "run")
    fit(model, sampler, 1)
    assert_same(SampleStore.load(tmp_path / "run")[0], snapshot(model))
    assert sampler.samples[0]["net/out/kernel"].dtype.name == "bfloat16"


def test_under_a_loss_scale_optimizer():
    optimizer = keras.optimizers.LossScaleOptimizer(FakeLangevin(learning_rate=0.01))
    sampler = PosteriorSampler(0)
    history = fit(compiled(optimizer=optimizer), sampler, 1)
    assert sampler.samples[0].temperature == 0.5
    assert history.history["step_norm"] == [3.0]


# ---------------------------------------------------------------------------------- logs


def test_logs_reach_the_callbacks_after_it(tmp_path):
    path = tmp_path / "log.csv"
    sampler = PosteriorSampler(1)
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        history = fit(
            compiled(optimizer=FakeLangevin(learning_rate=0.25)),
            sampler,
            3,
            callbacks=[keras.callbacks.CSVLogger(path)],
            verbose=2,
        )
    expected = {
        "num_samples": [0, 1, 2],
        "learning_rate": [0.25] * 3,
        "temperature": [0.5] * 3,
        "step_norm": [3] * 3,
    }
    rows = list(csv.DictReader(path.read_text().splitlines()))
    for key, values in expected.items():
        assert history.history[key] == values, key
        assert all(type(v) is float for v in history.history[key])
        assert [float(row[key]) for row in rows] == values, key
    assert re.search(r"num_samples: 2.*temperature: 0\.5", screen.getvalue().replace("\n", " "))


def test_logs_of_an_optimizer_without_temperature():
    history = fit(compiled(), PosteriorSampler(0), 1).history
    assert history["num_samples"] == [1] and "temperature" not in history


# ---------------------------------------------------------------------------- divergence


def test_nonfinite_loss_stops_training_also_in_burn_in():
    model = compiled()
    sampler = PosteriorSampler(2)
    fit(model, sampler, 3)
    with pytest.raises(FloatingPointError, match=r"loss=nan, at step 20.*1 samples stored before"):
        fit(model, sampler, 1, poison=True)
    assert len(sampler.samples) == 1
    with pytest.raises(FloatingPointError, match="learning_rate"):
        fit(compiled(), PosteriorSampler(10), 1, poison=True)


def test_a_nonfinite_sample_is_never_stored(tmp_path):
    """The last batch makes the weights NaN: unit="step" meets them before the epoch ends."""
    sampler = PosteriorSampler(0, unit="step", directory=tmp_path / "run")
    with pytest.raises(
        FloatingPointError, match=r"NaN or infinity in net/out/kernel, net/out/bias"
    ):
        fit(compiled(), sampler, 1, poison=True)
    assert steps(sampler) == [1, 2, 3, 4]
    assert len(SampleStore.load(tmp_path / "run")) == 4


def test_nonfinite_weights_with_a_finite_loss_are_not_checkpointed(tmp_path):
    class Broken(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            self.assign(variable, variable * np.float32("nan"))

    sampler = PosteriorSampler(5, directory=tmp_path / "run")
    with pytest.raises(FloatingPointError, match="net/out/kernel"):
        fit(compiled(optimizer=Broken(0.1)), sampler, 1, batch_size=NUM_DATA)
    assert not (tmp_path / "run" / "checkpoint.json").exists()


# ------------------------------------------------------------------------------- set_model


def test_probes_are_installed_and_follow_the_optimizer():
    model, sampler = compiled(optimizer=QDOPLangevin(1e-3, num_data=NUM_DATA)), PosteriorSampler(0)
    fit(model, sampler, 1)
    assert is_tracked(model)
    variables = [id(v) for v in model.trainable_variables]
    fit(model, sampler, 1)
    assert [id(v) for v in model.trainable_variables] == variables
    model.compile(DOPLangevin(1e-3, num_data=NUM_DATA), loss="mse")
    with pytest.raises(ValueError, match="the optimizer is DOPLangevin, stored is QDOPLangevin"):
        fit(model, sampler, 1)
    fit(model, PosteriorSampler(0), 1)
    kinds = {v.statistic.kind for v in model.trainable_variables if is_statistic(v)}
    assert kinds == {"second_moment", "bias_second_moment"}


def test_no_probes_for_an_optimizer_that_needs_none():
    model = compiled()
    fit(model, PosteriorSampler(0), 1)
    assert not is_tracked(model)


def test_probes_and_resume_with_a_sampling_optimizer(tmp_path):
    """The probes' values, the metric and the noise go on where they were."""

    def run(epochs, initial_epoch=0, **kwargs):
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        model = compiled(optimizer=QDOPLangevin(1e-3, num_data=NUM_DATA, seed=3))
        sampler = PosteriorSampler(0, **kwargs)
        fit(model, sampler, epochs, initial_epoch=initial_epoch)
        assert is_tracked(model) and list(sampler.samples[0]) == ["net/out/kernel", "net/out/bias"]
        return sampler.samples

    whole = run(3)
    run(1, directory=tmp_path / "run")
    resumed = run(3, 1, directory=tmp_path / "run", resume=True)
    assert [s.step for s in resumed] == [5, 10, 15]
    for one, other in zip(resumed, whole, strict=True):
        assert_same(one, other, rtol=1e-6, atol=1e-7)


def test_an_unbuilt_model_is_refused():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def call(self, x):
            return self.layer(x)

    for model in (Subclassed(), keras.Sequential([keras.layers.Dense(1)])):
        model.compile(optimizer="sgd", loss="mse")
        if keras.backend.backend() == "tensorflow":  # the others build it before
            with pytest.raises(ValueError, match=r"keras\.Input"):
                fit(model, PosteriorSampler(0), 1)
            model(data()[0])
        sampler = PosteriorSampler(0)
        fit(model, sampler, 1)
        assert len(sampler.samples) == 1


@pytest.mark.parametrize("reduction", ["sum", None, "none"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_loss_that_is_not_a_mean_is_refused(reduction, nested):
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    model = compiled(optimizer=FakeLangevin(learning_rate=0.01), loss=[loss] if nested else loss)
    with pytest.raises(ValueError, match=f"MEAN.*Received: reduction={reduction!r}"):
        fit(model, PosteriorSampler(0), 1)


def test_a_sum_is_allowed_where_nothing_is_sampled():
    loss = keras.losses.MeanSquaredError(reduction="sum")
    sampler = PosteriorSampler(0)
    fit(compiled(loss=loss), sampler, 1)
    assert len(sampler.samples) == 1


def test_another_model_is_refused_before_it_trains():
    sampler = PosteriorSampler(0)
    fit(compiled(), sampler, 1)
    other = compiled(keras.layers.Dense(2, name="more"))
    before = snapshot(other)
    with pytest.raises(ValueError, match=r"'net/more/kernel' is not in the store"):
        fit(other, sampler, 1)
    assert_same(snapshot(other), before)


def test_a_bare_callback_with_steps():
    """Keras would call its batch hook from another thread (not on TensorFlow)."""
    model, sampler = compiled(), PosteriorSampler(0, unit="step")
    x, y = data()
    expected = contextlib.nullcontext()
    if keras.backend.backend() != "tensorflow":
        expected = pytest.raises(ValueError, match=r"callbacks=\[sampler\]")
    with expected:
        model.fit(x, y, callbacks=sampler, verbose=0, batch_size=BATCH)
    sampler = PosteriorSampler(0)
    compiled().fit(x, y, callbacks=sampler, verbose=0, batch_size=BATCH)
    assert len(sampler.samples) == 1


@every_row(
    "arguments",
    [
        {"burn_in": -1},
        {"burn_in": True},
        {"burn_in": 1.0},
        {"burn_in": None},
        {"thinning": 0},
        {"thinning": "2"},
        {"unit": "epochs"},
        {"max_samples": 1},
        {"max_samples": 2.5},
        {"chain": -1},
        {"directory": 3},
        {"directory": ""},
        {"resume": 1},
    ],
)
def test_arguments_are_checked(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=rf"`{name}` must be .*Received: {name}={value!r}\."):
        PosteriorSampler(**{"burn_in": 0, **arguments})


# ------------------------------------------------------------------------------- ensemble


def test_ensemble_of_nothing():
    sampler = PosteriorSampler(5, 2)
    fit(compiled(), sampler, 3)
    with pytest.raises(ValueError, match=r"3 epochs seen, burn_in=5, thinning=2.* at epoch 7"):
        sampler.ensemble()


def test_ensemble_of_the_samples():
    model, sampler = compiled(), PosteriorSampler(0)
    fit(model, sampler, 2)
    ensemble = sampler.ensemble(name="e")
    assert (ensemble.name, ensemble.num_members) == ("e", 2)
    inputs = np.ones((3, *model.input_shape[1:]), "float32")
    last = np.mean([predict_with(model, sample, inputs) for sample in sampler.samples], axis=0)
    np.testing.assert_allclose(ensemble.predict(inputs, verbose=0), last, rtol=1e-5)


def predict_with(model, sample, inputs):
    for name, variable in named_weights(model).items():
        variable.assign(sample[name])
    return model.predict(inputs, verbose=0)


# --------------------------------------------------------------------------------- resume


def fresh_model(*layers, **kwargs):
    """The same model as in a new process."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    return compiled(*layers, optimizer=keras.optimizers.Adam(0.05), **kwargs)


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_two_epochs_and_two_are_four(tmp_path, unit):
    layers = lambda: (  # noqa: E731
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(0.3, seed=1, name="drop"),
    )
    kinds = {"burn_in": 1, "thinning": 1 if unit == "epoch" else 4, "unit": unit}
    whole = PosteriorSampler(**kinds)
    model = fresh_model(*layers())
    fit(model, whole, 4)
    expected = snapshot(model)

    fit(fresh_model(*layers()), PosteriorSampler(**kinds, directory=tmp_path / "run"), 2)
    model = fresh_model(*layers())
    sampler = PosteriorSampler(**kinds, directory=tmp_path / "run", resume=True)
    assert sampler.epochs_seen == 2
    fit(model, sampler, 4, initial_epoch=sampler.epochs_seen)

    assert sampler.epochs_seen == 4 and steps(sampler) == steps(whole)
    assert_same(snapshot(model), expected, rtol=1e-6, atol=1e-7)
    for one, other in zip(sampler.samples, whole.samples, strict=True):
        assert_same(one, other, rtol=1e-6, atol=1e-7)
    for variable in named_weights(model).values():
        variable.assign(variable * 0)
    fit(model, sampler, 4, initial_epoch=4)  # a second fit restores nothing
    assert not any(array.any() for array in snapshot(model).values())


def test_resume_after_a_crash_within_an_epoch_stores_no_position_twice(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 8:
                raise KeyboardInterrupt

    arguments = {"burn_in": 0, "thinning": 2, "unit": "step", "directory": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        fit(fresh_model(), PosteriorSampler(**arguments), 2, callbacks=[Interrupt()])
    assert len(SampleStore.load(tmp_path / "run")) == 4
    sampler = PosteriorSampler(**arguments, resume=True)
    assert (sampler.epochs_seen, sampler.steps_seen) == (1, 5)
    fit(fresh_model(), sampler, 2, initial_epoch=1)
    assert steps(sampler) == [2, 4, 6, 8, 10]


def test_resume_keeps_the_doubled_thinning(tmp_path):
    arguments = {"burn_in": 0, "max_samples": 2, "directory": tmp_path / "run"}
    fit(fresh_model(), PosteriorSampler(**arguments), 3)
    sampler = PosteriorSampler(**arguments, resume=True)
    assert sampler.thinning == 2
    fit(fresh_model(), sampler, 4, initial_epoch=3)
    assert steps(sampler) == [10, 20]


def test_resume_of_nothing_starts_a_run(tmp_path):
    for _ in range(2):
        sampler = PosteriorSampler(0, directory=tmp_path / "run", resume=True)
        assert sampler.epochs_seen == 0
    fit(fresh_model(), sampler, 1)
    assert len(sampler.samples) == 1
    with pytest.raises(ValueError, match="`resume=True` must come with"):
        PosteriorSampler(0, resume=True)


def test_a_run_is_not_overwritten(tmp_path):
    fit(fresh_model(), PosteriorSampler(9, directory=tmp_path / "run"), 1)  # burn-in only
    with pytest.raises(ValueError, match="resume=True"):
        PosteriorSampler(9, directory=tmp_path / "run")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "file").touch()
    with pytest.raises(ValueError, match=r"must hold a manifest\.json"):
        PosteriorSampler(9, directory=tmp_path / "notes", resume=True)


def test_resume_refuses_what_does_not_fit(tmp_path):
    fit(fresh_model(), PosteriorSampler(0, 1, directory=tmp_path / "run"), 1)
    with pytest.raises(ValueError, match="burn_in=1, stored 0, thinning=2, stored 1"):
        PosteriorSampler(1, 2, directory=tmp_path / "run", resume=True)

    def resume(model):
        fit(model, PosteriorSampler(0, directory=tmp_path / "run", resume=True), 1)

    with pytest.raises(
        ValueError, match=r"'net/out/kernel' is \(3, 2\) float32, stored is \(3, 1\)"
    ):
        resume(compiled(model=network(units=2)))
    with pytest.raises(ValueError, match="'net/other/kernel' is not in the store"):
        resume(fresh_model(keras.layers.Dense(3, name="other")))
    with pytest.raises(ValueError, match="the optimizer is SGD, stored is Adam"):
        resume(compiled(optimizer=keras.optimizers.SGD(0.1, momentum=0.9)))
    with pytest.raises(ValueError, match="the optimizer must have the variables"):
        resume(compiled(optimizer=keras.optimizers.Adam(0.1, amsgrad=True)))


@pytest.mark.parametrize("file", ["checkpoint.json", "checkpoint-000001.npz"])
def test_a_damaged_checkpoint_is_refused(tmp_path, file):
    fit(fresh_model(), PosteriorSampler(0, directory=tmp_path / "run"), 1)
    path = tmp_path / "run" / file
    good = path.read_bytes()
    for damaged in (good[:-9], good[:300] + bytes([good[300] ^ 1]) + good[301:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{file}', and it"):
            PosteriorSampler(0, directory=tmp_path / "run", resume=True)
    path.write_bytes(good)
    assert PosteriorSampler(0, directory=tmp_path / "run", resume=True).epochs_seen == 1


def test_a_crash_while_the_checkpoint_is_written(tmp_path, monkeypatch):
    """The state of the epoch before is found, and only files that count remain afterwards."""
    run = tmp_path / "run"
    fit(fresh_model(), PosteriorSampler(0, directory=run), 1)
    replace = os.replace

    def crash(source, target):
        if "checkpoint.json" in str(target):
            raise KeyboardInterrupt
        replace(source, target)

    sampler = PosteriorSampler(0, directory=run, resume=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.replace", crash)
        fit(fresh_model(), sampler, 2, initial_epoch=1)
    assert (run / "checkpoint-000002.npz").exists()
    sampler = PosteriorSampler(0, directory=run, resume=True)
    assert sampler.epochs_seen == 1
    fit(fresh_model(), sampler, 3, initial_epoch=1)
    assert steps(sampler) == [5, 10, 15]
    assert sorted(p.name for p in run.iterdir()) == [
        "checkpoint-000003.npz",
        "checkpoint.json",
        "manifest.json",
        "sample-000000.npz",
        "sample-000001.npz",
        "sample-000002.npz",
    ]
