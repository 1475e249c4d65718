"""One backend a run: `KERAS_BACKEND=jax pytest`. TensorFlow when nothing is said."""

import gc
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

pytest.register_assert_rewrite("targets")

if os.environ.get("KERAS_LANGEVIN_MUTANT"):
    import mutants

    mutants.apply(os.environ["KERAS_LANGEVIN_MUTANT"])


@pytest.fixture(autouse=True)
def fresh_session():
    """Names and seeds of one test do not depend on the tests before it."""
    keras.utils.clear_session()
    gc.freeze()  # what is no garbage now: looking through it before every test takes 0.4 s
    keras.utils.set_random_seed(0)
