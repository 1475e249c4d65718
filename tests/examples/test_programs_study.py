"""The study of public programs (`examples/studies/programs/`): its parts, and one of the programs
at a size that takes seconds."""

import json

import keras
import numpy as np
import pytest
from targets.running import run_calls

from examples.studies.programs import measure, programs
from examples.studies.programs.program import Program


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="run on JAX alone")
def test_a_program_runs_and_is_reported(tmp_path):
    results = tmp_path / "rows.jsonl"
    arguments = ["--quick", "--programs", "12", "--results", results]
    printed, again = run_calls("studies.programs.programs", arguments, arguments)
    (row,) = [json.loads(line) for line in results.read_text().splitlines()]  # not run again
    assert again and "| 12 | 7 of 7 |" in printed
    assert not any(row["stages"].values()) and not any(row["warm_stages"].values())
    losses = [row[f"{way}_loss"] for way in ("adam", "ensemble", "warm")]
    assert all(0.5 < loss < 1 for loss in losses) and len(set(losses)) == 3  # ratings in 0 to 1
    assert "| 12 collaborative_filtering_movielens |" in results.with_suffix(".md").read_text()


def linear(metrics=lambda: ["mae"]):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(20, 3)).astype("float32"), rng.normal(size=(20, 1)).astype("float32")
    return Program(
        source="none",
        make=lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]),
        train=data,
        test=data,
        num_data=20,
        loss="mse",
        metric="mae",
        metrics=metrics,
        epochs=2,
    )


def compiled(program):
    model = program.make()
    model.compile("sgd", program.loss, metrics=program.metrics())
    return model


def test_one_member_that_scores_other_numbers_is_found(monkeypatch):
    program = linear()
    model = compiled(program)
    found = measure.scores_of_one_member(program, model)
    # "mse" stands for a noise of variance 1/2.
    assert found["loss"] == pytest.approx(found["own_loss"] + 0.5 * np.log(np.pi), rel=1e-4)
    own = measure.named_weights(model)
    shifted = {name: weight + 0.1 for name, weight in own.items()}
    monkeypatch.setattr(measure, "named_weights", lambda model: shifted)
    with pytest.raises(AssertionError, match="mae differs by"):
        measure.scores_of_one_member(program, model)


def test_a_stage_that_fails_says_it_in_a_sentence():
    stages = measure.Stages()

    def fails():
        raise ValueError(
            "Exception encountered when calling Dense.call().\n\n\x1b[1mWrong.\x1b[0m Two."
        )

    assert stages.run("fit", fails) is None
    assert stages.run("predict", lambda: 3) == 3
    assert stages.words == {"fit": "ValueError: Wrong.", "predict": None}


def test_counts_are_those_of_the_rows():
    losses = {"12": (0.5, 0.4, 0.3), "13": (0.5, 0.6, 0.5), "14": (0.5, None, None)}
    rows = [
        {"program": number, "adam_loss": adam, "ensemble_loss": ours, "warm_loss": warm}
        for number, (adam, ours, warm) in losses.items()
    ]
    text = programs.counts(list(programs.by_program(rows)))
    assert (
        "random weights has a lower test loss than Adam in 1 of 2 programs, and not in 13." in text
    )
    assert "Adam's weights has a lower test loss than Adam in 1 of 2" in text
    rows.append({"program": "13", "adam_loss": 0.5, "ensemble_loss": 0.2, "warm_loss": 0.2})
    assert "2 of 2 programs." in programs.counts(list(programs.by_program(rows)))  # of the means
