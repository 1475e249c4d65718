"""The studies in `examples/studies/` run from end to end, at a size that takes seconds.

On JAX alone, which starts quickest; the examples are the same on every backend.
"""

import json

import keras
import numpy as np
import pytest
from targets.running import run_calls, run_module

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="run on JAX alone"),
]


def test_a_default_sampler_does_not_diverge_on_small_data(tmp_path):
    results = tmp_path / "results.jsonl"
    study = "studies.ten_problems.ten_problems"
    printed, again = run_calls(
        study,
        ["--problems", "breast_cancer", "--results", results],
        ["--results", results, "--report"],
    )
    assert "QDOP: 0 of 1 runs diverged" in printed
    assert len(results.read_text().splitlines()) == 3  # nothing is run again
    assert again


@pytest.mark.further
def test_default_settings_in_a_table(tmp_path):
    results = tmp_path / "results.jsonl"
    study = "studies.default_settings.default_settings"
    arguments = "--problems", "iris", "--sampler-only", "--results", results
    printed = run_module(study, *arguments)
    assert "| iris | 105 |" in printed
    run_module(study, *arguments, "--prior", "FanInNormal(10)")
    assert "QDOP, FanInNormal(10)" in results.with_suffix(".md").read_text()
    assert len(results.read_text().splitlines()) == 2


@pytest.mark.further
def test_where_runs_are_stopped_in_a_table(tmp_path):
    rows = tmp_path / "results.jsonl"
    arguments = ("--problems", "digits", "--seeds", 1, "--budget", 20, "--results", rows)
    printed = run_module("studies.stopping.stopping", *arguments, "--warm-start")
    assert "From Adam:" in printed and "| digits | 215 | 1 | 20 | 0 %" in printed
    (row,) = (json.loads(line) for line in rows.read_text().splitlines())
    stops = row["stops"].values()
    assert min(stop["samples"] for stop in stops) >= 16
    assert all(stop["lost"] == 0.0 for stop in stops if stop["samples"] == 20)


@pytest.mark.further
def test_the_study_tunes_tests_and_reports(tmp_path):
    common = ["--results", tmp_path / "study.csv", "--only", "adam,qdop-cold,qdop-t0"]
    study = "studies.mnist.natural_langevin"
    _, final, _ = run_calls(
        study,
        ["tune", "--trials", 1, "--tune-epochs", 6, *common],
        ["final", "--seeds", 1, "--epochs", 6, *common],
        ["report", "--results", tmp_path / "study.csv"],
    )
    assert "qdop-t0" in final
    page = (tmp_path / "study.md").read_text()
    assert "| QDOP, cold | point |" in page
    assert "|  | ensemble |" in page
    assert (tmp_path / "study_nll.png").exists()


@pytest.mark.further
def test_batch_normalization_simulation(tmp_path):
    printed = run_module("studies.bnp.simulation", "--quick", "--results", tmp_path / "rows.jsonl")
    assert "| wide | BNP | 0 | 2.9 |" in printed + page_beside(tmp_path)


@pytest.mark.further
def test_natural_gradient_figures(tmp_path):
    study = "studies.natural_gradient.figures"
    printed = run_module(study, "--quick", "--results", tmp_path / "rows.jsonl")
    assert "Langevin, jeffreys" in printed + page_beside(tmp_path)


def test_analytic_benchmark(tmp_path):
    rows = tmp_path / "rows.jsonl"
    run_module("benchmarks.analytic", "--methods", "SGLD", "--steps", 50_000, "--results", rows)
    rows = [json.loads(line) for line in rows.read_text().splitlines()]
    isotropic = [row for row in rows if row["noise"] == "isotropic"]
    (chosen,) = (row for row in isotropic if row["phase"] == "report")
    smallest = min(isotropic, key=lambda row: row["learning_rate"])
    # One score in 50 is above 0.5 by chance, one in 1000 above 2, so the median is compared.
    assert np.median(chosen["score"]) < 0.25  # 0.5 where a chain never leaves its start, as in:
    assert 0.45 < np.mean(smallest["score"]) < 0.55
    assert "| ICG | isotropic | 0.500 |" in page_beside(tmp_path)


def page_beside(folder):
    return "".join(path.read_text() for path in folder.glob("*.md"))
