"""The deliberately wrong versions of the package can still be made, and the tests refuse one."""

import keras
import mutants
import pytest


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
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the program runs on JAX")
@pytest.mark.parametrize("name", ["prior_forgotten", "checksum_ignored"])
def test_it_is_caught(name):
    failed, _, _ = mutants.run(name)
    assert failed
