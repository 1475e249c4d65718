"""Pages say what their rows say: each is written again and compared, nothing is run."""

import os
import re
import shutil

import numpy as np
import pytest

pytest.importorskip("jax")  # of two benchmarks


@pytest.fixture(scope="module")
def studies():
    environment = dict(os.environ)
    from examples.studies import pages  # benchmarks of JAX alone set the backend of what they start

    os.environ.clear()
    os.environ.update(environment)
    return pages


def test_pages_are_those_of_their_rows(studies):
    stale = [str(p) for p, text in studies.texts().items() if p.read_text("utf-8") != text]
    assert not stale, f"Run `make pages`: {stale}"


def test_every_page_has_rows(studies):
    pages = {p for f in ("studies", "benchmarks") for p in studies.EXAMPLES.rglob(f"{f}/**/*.md")}
    assert pages == studies.texts().keys() - {studies.ROOT / "README.md"} - set(
        studies.ROOT.glob("docs/*.md")
    )


@pytest.mark.parametrize(
    "rows, column",
    [
        ("benchmarks/step_time.jsonl", "ratio"),
        ("benchmarks/soak.jsonl", "private_bytes"),
        ("studies/bnp/bandit.jsonl", "uniform"),
        ("studies/mnist/natural_langevin.csv", "nll"),
        ("studies/momentum/regression.jsonl", "lppd"),
        ("studies/reference_posteriors/reference_posteriors.jsonl", "off"),
        ("studies/ten_problems/ten_problems.jsonl", "nll"),
    ],
)
def test_other_rows_give_another_page(studies, rows, column, tmp_path):
    """So that a page which is older than its rows is found."""
    source = studies.EXAMPLES / rows
    for path in source.parent.glob(f"{source.stem}*"):
        shutil.copy(path, tmp_path)
    shown = source.with_suffix(".md").read_text("utf-8")
    copied = tmp_path / source.name
    assert studies.PAGES[rows](copied) == shown
    entry = re.compile(rf'(""?{column}""?: )(-?[0-9.e+-]+)')
    text = entry.sub(lambda m: f"{m[1]}{1.5 * float(m[2])}", copied.read_text("utf-8"))
    copied.write_text(text, "utf-8")
    assert studies.PAGES[rows](copied) != shown


def test_tables_without_a_place_are_an_error(studies, tmp_path):
    (tmp_path / "rows.md").write_text("# A page\n\n<!-- rows: one -->\n<!-- end of rows -->\n")
    written = studies.pages.with_tables(tmp_path / "rows.jsonl", {"one": "| 1 |"})
    assert written == "# A page\n\n<!-- rows: one -->\n\n| 1 |\n\n<!-- end of rows -->\n"
    with pytest.raises(SystemExit, match="two"):
        studies.pages.with_tables(tmp_path / "rows.jsonl", {"one": "| 1 |", "two": "| 2 |"})


def test_a_page_is_made_and_made_again(studies, tmp_path):
    rows, tables = tmp_path / "rows.jsonl", {"one": "| 1 |", "two": "| 2 |"}
    studies.pages.write(lambda path: studies.pages.with_tables(path, tables), rows)
    first = rows.with_suffix(".md").read_text("utf-8")
    assert "| 1 |" in first and studies.pages.with_tables(rows, tables) == first


def test_r_hat_of_old_rows(studies):
    """Of the value that TensorFlow Probability has, and the rows hold."""
    tfp = pytest.importorskip("tensorflow_probability")
    import keras_langevin as kl
    from examples.studies.common.r_hat import OLD, r_hat_of

    chains = np.random.default_rng(0).normal(size=(4, 100)) + np.arange(4)[:, None]
    halves = np.concatenate([chains[:, :50], chains[:, 50:]]).T
    value = float(tfp.mcmc.potential_scale_reduction(halves, independent_chain_ndims=1))
    expected = kl.diagnostics.r_hat(list(chains), rank_normalized=False)
    assert r_hat_of({OLD: value}, chains=4, draws=100) == pytest.approx(float(expected), rel=1e-6)
    assert value > 1.2 * expected
