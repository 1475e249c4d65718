"""The scripts at the root of `examples/`: short, of one file each, and what they print holds."""

import ast
import re

import keras
import pytest
from targets.running import ROOT, run_script

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.stem != "__init__")
LONGEST = 80  # lines

runs = pytest.mark.skipif(keras.backend.backend() == "torch", reason="on JAX and TensorFlow")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_fits_a_page_and_stands_alone(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST
    tree = ast.parse(text)
    assert f"python examples/{path.name}" in ast.get_docstring(tree)
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & ({"examples"} | {other.stem for other in SCRIPTS})


def numbers(line):
    """All in a line of output, percents as shares."""
    found = re.findall(r"(-?\d+\.?\d*(?:e[+-]?\d+)?) ?(%?)", line)
    return [float(number) / (100 if percent else 1) for number, percent in found]


def printed(script, folder):
    """Lists of the numbers of each line, by the line's first word."""
    lines = run_script(script, folder).splitlines()
    return {line.split()[0]: numbers(line) for line in lines if line.strip()}


@pytest.mark.slow
@runs
def test_classify(tmp_path):
    found = printed("classify.py", tmp_path)
    (accuracy, nll, auroc), (own_accuracy, own_nll, own_auroc) = found["Adam"], found["posterior"]
    assert own_nll < nll + 0.005 and own_auroc > auroc + 0.02
    assert own_accuracy > accuracy - 0.01 > 0.94
    assert (tmp_path / "classify.png").exists()


@pytest.mark.slow
@runs
def test_regression_bands(tmp_path):
    found = printed("regression_bands.py", tmp_path)
    (_, coverage, _, nll), (_, own_coverage, _, own_nll) = found["Adam"], found["posterior"]
    assert 0.86 < own_coverage < 0.95  # of 221 patients: standard error 0.02
    assert coverage < own_coverage and own_nll < nll
    assert (tmp_path / "regression_bands.png").exists()


@pytest.mark.slow
@runs
def test_warm_start(tmp_path):
    found = printed("warm_start.py", tmp_path)
    (accuracy, nll, auroc), (own_accuracy, own_nll, own_auroc) = found["trained"], found["ensemble"]
    assert own_nll < nll and own_auroc > auroc
    assert own_accuracy > accuracy - 0.005 > 0.94


@pytest.mark.slow
@runs
def test_choose_temperature(tmp_path):
    lines = run_script("choose_temperature.py", tmp_path).splitlines()
    tried = dict(numbers(line) for line in lines if line.startswith("T ="))
    (chosen, own, adam) = numbers(next(line for line in lines if line.startswith("chosen")))
    better = [t for t in tried if tried[t] < tried[chosen]]  # by no more than a standard error
    assert 1.0 not in better and all(t < chosen for t in better) and len(tried) == 3
    assert own < adam
    assert (tmp_path / "choose_temperature.png").exists()


@pytest.mark.slow
@runs
def test_several_chains(tmp_path):
    lines = run_script("several_chains.py", tmp_path).splitlines()
    losses = [numbers(line)[-1] for line in lines if line.startswith("chain ")]
    _, joined = numbers(next(line for line in lines if line.startswith("all chains")))
    r_hat, _ = numbers(next(line for line in lines if line.startswith("R-hat")))
    assert len(losses) == 3 and joined < sum(losses) / 3 + 1e-4  # by Jensen's inequality
    assert 0.99 < r_hat < 1.5
    assert (tmp_path / "several_chains.png").exists()


@pytest.mark.slow
@runs
def test_resume(tmp_path):
    found = run_script("resume.py", tmp_path, "--folder", tmp_path)
    assert "interrupted\ngoing on after epoch 23, 13 samples stored" in found
    assert "50 samples, equal to those of a whole run" in found


@pytest.mark.slow
@pytest.mark.backend
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it sets the backend itself")
def test_serve(tmp_path):
    lines = run_script("serve.py", tmp_path).splitlines()
    members, _, accuracy = numbers(lines[0])
    (difference,) = numbers(lines[1])
    assert members == 50 and accuracy > 0.95
    assert difference < 1e-5
