"""The benchmarks run from end to end, shortened, and find nothing absurd: the limits are a multiple
of what is measured on a quiet machine (`examples/benchmarks/*.md`)."""

import json

import keras
import pytest
from targets.running import run_module

from examples.benchmarks import planning

pytestmark = [
    pytest.mark.slow,
    pytest.mark.further,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="run on JAX alone"),
]


def rows_of(script, folder, *arguments):
    run_module(f"benchmarks.{script}", *arguments, "--quick", "--results", folder)
    (path,) = folder.glob("*.jsonl")
    assert (folder / f"{path.stem}.md").exists()
    return [json.loads(line) for line in path.read_text().splitlines()]


def ratios_of_steps():
    table = run_module("benchmarks.step_time", "--quick")
    lines = [[cell.strip() for cell in line.split("|")[3:7]] for line in table.splitlines()[2:]]
    ratios = {method: float(ratio) for method, _, rival, ratio in lines if "Keras" in rival}
    assert len(ratios) == 6
    return ratios


def test_a_step_takes_about_as_long_as_the_plain_optimizer():
    """In one of three runs: what else the machine does slows a step, and never speeds it up."""
    measured = []
    for _ in range(3):
        measured.append(ratios_of_steps())
        if measured[-1]["SGLD"] < 2 and measured[-1]["QDOPLangevin"] < 4:
            return
    pytest.fail(f"Steps take too long over those of Keras' optimizers: {measured}")


def test_an_ensemble_predicts_faster_than_a_loop(tmp_path):
    rows = rows_of("predict", tmp_path)
    assert all(row["largest difference"] < 1e-4 for row in rows)
    assert rows[-1]["times faster than the loop"] > 10


def test_memory_does_not_grow_with_the_samples(tmp_path):
    copies = [row["copies"] for row in rows_of("memory", tmp_path) if row["samples on disk"]]
    assert copies[1] - copies[0] < 2  # four samples more


def test_chains_as_one_program_are_faster_than_one_after_another(tmp_path):
    seconds = {row["way"]: row["first"] for row in rows_of("many_chains", tmp_path)}
    assert seconds["one program"] < seconds["one after another"]


def test_devices_of_a_chain_add_up_its_gradient():
    """The numbers of a program that XLA compiled, on the page of plans."""
    found = planning.measured("SGLD")
    assert 1 <= found["added up"] < 1.01
    assert 0 <= found["state"] < 0.01


def test_time_grows_no_faster_than_size(tmp_path):
    rows = rows_of("scaling", tmp_path)
    for name in ("SGLD", "QDOPLangevin"):
        few, many = (row["ms"] / row["weights"] for row in rows if row["what"] == name)
        assert many < 2.5 * few
    assert (tmp_path / "scaling.png").exists()


def test_the_metric_brings_effective_samples(tmp_path):
    rows = rows_of("effective_samples", tmp_path, "regression", "--turns", 1)
    found = {r["method"]: r["effective samples"] for r in rows if r["kind"] == "samples"}
    assert found["QDOPLangevin"] > 4 * found["SGLD"]
    assert "| regression | jax | QDOPLangevin |" in (
        (tmp_path / "effective_samples.md").read_text()
    )
