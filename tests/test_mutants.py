"""The deliberately wrong versions of the package can still be made, and the tests refuse one."""

import subprocess
import sys

import keras
import mutants
import pytest

pytestmark = pytest.mark.neutral


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_what_it_changes_is_there(name):
    undo = []
    mutants.MUTANTS[name].make(lambda *args: undo.append(mutants.change(*args)))
    assert undo
    for one in reversed(undo):
        one()
    for file in mutants.MUTANTS[name].files:
        assert (mutants.TESTS / file).exists()


@pytest.mark.law
@pytest.mark.further
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the program runs on JAX")
def test_they_are_caught():
    command = [sys.executable, mutants.__file__, "--only", "prior_forgotten", "checksum_ignored"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "2 of 2 caught" in done.stdout, done.stdout + done.stderr[-2000:]
