"""One backend a run: `KERAS_BACKEND=jax pytest`. TensorFlow when nothing is said."""

import gc
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# What JAX compiled, for the tests after this one, the other worker, processes that tests start and
# the next run: two thirds of the time of a test that trains is compilation.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{Path.cwd()}/.pytest_cache/jax_compilations")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

import keras
import pytest

pytest.register_assert_rewrite("targets")

if os.environ.get("KERAS_LANGEVIN_MUTANT"):
    import mutants

    mutants.apply(os.environ["KERAS_LANGEVIN_MUTANT"])


# Rooms of files, NumPy and words, in which no backend changes anything. Elsewhere a test is marked.
NEUTRAL = ("calibration", "examples", "plotting", "storage")

# Rooms of what is written in `keras.ops` and asks no more of a backend: CI runs them on JAX.
ALIKE = ("diagnostics", "learning_rate", "predictive", "report")

# Rooms of long chains and of clocks, where XLA must optimize what it compiles.
OPTIMIZED = ("examples", "fuzz", "laws")


def pytest_collection_modifyitems(items):
    for item in items:
        room = Path(item.fspath).parent.name
        for marker, rooms in (("neutral", NEUTRAL), ("alike", ALIKE)):
            if room in rooms:
                item.add_marker(marker)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Elsewhere a network of a dozen weights takes a few steps: what XLA spends on optimizing them
    is more than they take. Processes that a test starts do as it does."""
    is_optimized = Path(item.fspath).parent.name in OPTIMIZED
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(not is_optimized))
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_disable_most_optimizations", not is_optimized)


@pytest.fixture(autouse=True)
def fresh_session():
    """Names and seeds of one test do not depend on the tests before it."""
    keras.utils.clear_session()
    gc.freeze()  # what is no garbage now: looking through it before every test takes 0.4 s
    keras.utils.set_random_seed(0)
