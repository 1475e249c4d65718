"""Tests that need TensorFlow whatever the backend."""

import keras
import pytest


def imports_tensorflow(test):
    """Quick on TensorFlow; on other backends the import takes longer than the test."""
    if keras.backend.backend() != "tensorflow":
        test = pytest.mark.slow(test)
    return pytest.mark.backend(test)
