"""At which epochs and steps a sample is drawn."""

import types

import keras
import pytest
from targets.restartable import restartable
from targets.rows import every_row
from targets.sampler_runs import compiled, data, fit, plain, steps

from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.sampling.schedule import SamplingSchedule
from keras_langevin.storage.sample_store import SampleStore


@pytest.fixture(autouse=True)
def fresh_session():
    """Compiled models live on."""
    keras.utils.set_random_seed(0)


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


@every_row(
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
    fit(plain(), sampler, epochs)
    assert steps(sampler) == expected
    assert [f["position"] * 5 for f in sampler.samples.facts] == expected
    assert sampler.epochs_seen == epochs


@restartable
def stepping(execution):
    return compiled(steps_per_execution=execution)


# Keras has no steps_per_execution on torch.
EXECUTIONS = [1] if keras.backend.backend() == "torch" else [1, 2, 5]


@every_row(
    "burn_in, thinning, execution, expected",
    [
        row
        for row in [
            (0, 4, 1, [4, 8]),
            (7, 1, 1, [8, 9, 10]),
            (3, 3, 1, [6, 9]),
            (0, 3, 2, [4, 7, 9]),  # executions end at 2 4 5 | 7 9 10; due are 3 6 9
            (0, 1, 5, [5, 10]),
        ]
        if row[2] in EXECUTIONS
    ],
)
def test_steps(burn_in, thinning, execution, expected):
    sampler = PosteriorSampler(burn_in, thinning, unit="step")
    fit(stepping(execution), sampler, epochs=2)
    assert steps(sampler) == expected
    assert sampler.steps_seen == 10


def test_counts_go_on_through_several_fits():
    model, sampler = plain(), PosteriorSampler(1, 2)
    fit(model, sampler, 2)
    fit(model, sampler, 3)
    assert steps(sampler) == [15, 25]
    model, sampler = plain(), PosteriorSampler(1, 4, unit="step")
    fit(model, sampler, 1)
    fit(model, sampler, 1)
    assert steps(sampler) == [5, 9]


def test_evaluate_and_predict_with_the_sampler_count_nothing():
    model, sampler = plain(), PosteriorSampler(0)
    x, y = data()
    fit(model, sampler, 1, validation_data=(x, y))
    model.evaluate(x, y, callbacks=[sampler], verbose=0)
    model.predict(x, callbacks=[sampler], verbose=0)
    assert sampler.epochs_seen == len(sampler.samples) == 1


@every_row("directory", [None, "run"])
def test_max_samples_doubles_the_thinning(tmp_path, directory):
    directory = directory and tmp_path / directory
    sampler = PosteriorSampler(2, 1, unit="step", max_samples=4, directory=directory)
    fit(plain(), sampler, epochs=4)
    # 3 4 5 6 | 4 6 8 10 | 6 10 14 18
    assert steps(sampler) == [6, 10, 14, 18]
    assert sampler.thinning == 4
    unbounded = PosteriorSampler(2, 4, unit="step")
    fit(plain(), unbounded, epochs=4)
    assert steps(unbounded) == steps(sampler)
    if directory:
        assert steps(types.SimpleNamespace(samples=SampleStore.load(directory))) == [6, 10, 14, 18]
        assert len(list(directory.glob("sample-*"))) == 4


@every_row(
    "unit, epochs, expected",
    [("epoch", 4, [15, 20]), ("epoch", 3, [10, 15]), ("step", 2, [6, 7, 8, 9, 10])],
)
def test_burn_in_that_is_left_out_is_half_of_the_run(capsys, unit, epochs, expected):
    sampler = PosteriorSampler(unit=unit)
    fit(plain(), sampler, epochs, verbose=2)
    total = epochs * (1 if unit == "epoch" else 5)
    assert steps(sampler) == expected and sampler.burn_in == total // 2
    assert f"burn_in={total // 2}, half of {total} {unit}s" in capsys.readouterr().out
