"""What TensorFlow logs and the user can do nothing about."""

import contextlib
import logging


@contextlib.contextmanager
def without_tensorflow_warnings():
    """Inside, TensorFlow logs errors alone."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
