"""Every private name of Keras that this package touches, and nothing else.

A new Keras release that moves something breaks this room alone.
"""

from keras_langevin.keras_internals.fit import (
    batch_size_of_fit,
    batches_of_fit,
    data_batches,
    data_in_memory,
    dataset_of_fit,
    has_validation_data,
    validation_batches_of_fit,
)
from keras_langevin.keras_internals.functional import last_activation
from keras_langevin.keras_internals.model import (
    add_weights,
    call_in_training,
    compile_argument,
    flatten_layers,
    has_replaced_weights,
    mask_of,
    own_trainable_variables,
    present_all,
    present_without,
    remove_weights,
    without_weights,
)
from keras_langevin.keras_internals.optimizer import (
    JointOptimizer,
    inner_optimizer,
    learning_rate_schedule,
    loss_scale,
    rebuild_optimizer,
    schedule_step,
)

__all__ = [
    "JointOptimizer",
    "add_weights",
    "batch_size_of_fit",
    "batches_of_fit",
    "call_in_training",
    "compile_argument",
    "data_batches",
    "data_in_memory",
    "dataset_of_fit",
    "flatten_layers",
    "has_replaced_weights",
    "has_validation_data",
    "inner_optimizer",
    "last_activation",
    "learning_rate_schedule",
    "loss_scale",
    "mask_of",
    "own_trainable_variables",
    "present_all",
    "present_without",
    "rebuild_optimizer",
    "remove_weights",
    "schedule_step",
    "validation_batches_of_fit",
    "without_weights",
]
