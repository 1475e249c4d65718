"""One backend a run: `KERAS_BACKEND=jax pytest`. TensorFlow when nothing is said."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest


@pytest.fixture(autouse=True)
def fresh_session():
    """Names and seeds of one test do not depend on the tests before it."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
