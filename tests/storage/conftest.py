"""A store needs no Keras, and a test of it no disk that turns."""

import os

import pytest
from targets.store_cases import draw

from keras_langevin.storage.sample_store import SampleStore


@pytest.fixture(autouse=True)
def fresh_session():
    """In place of the one for Keras, of which nothing is used here."""


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """An `fsync` takes 10 ms. Tests say whether it is called in time, none that the disk obeys;
    writers that are killed are other processes and wait."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def folder(tmp_path):
    """A store of three samples on the disk."""
    store = SampleStore(tmp_path / "run")
    for step in range(3):
        store.append(draw(step))
    return tmp_path / "run"
