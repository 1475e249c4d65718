"""Replicas of a model that share the examples of one batch."""

import keras


def num_replicas() -> int:
    """Replicas whose examples make up one batch."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync
    return 1
