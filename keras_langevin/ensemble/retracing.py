"""No word of TensorFlow about functions that it takes for one that is traced again and again."""

import contextlib
import logging

import keras


@contextlib.contextmanager
def quiet_about_retracing():
    """Inside, TensorFlow does not warn of retracing. It counts the traces of all functions made by
    the same line of Keras, and an ensemble has several that compute, each traced once for a
    shape."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    logger = logging.getLogger("tensorflow")
    logger.addFilter(_is_of_something_else)
    try:
        yield
    finally:
        logger.removeFilter(_is_of_something_else)


def _is_of_something_else(record):
    return "triggered tf.function retracing" not in str(record.msg)
