"""Replicas of a model that share the examples of one batch, and processes that share a run."""

import contextlib

import keras


def num_replicas() -> int:
    """Replicas whose examples make up one batch: of TensorFlow's strategy, or processes of
    torch's. JAX has one, whatever its arrays are spread over."""
    if keras.backend.backend() == "tensorflow":
        return _strategy().num_replicas_in_sync
    return torch_processes()


def num_loss_shares() -> int:
    """Replicas whose gradients are summed, so that each divides its loss by their number. torch's
    `DistributedDataParallel` averages gradients, and has 1."""
    return 1 if keras.backend.backend() == "torch" else num_replicas()


def replica_index():
    """The place of this replica among all, a number or a tensor of one."""
    if num_replicas() == 1:
        return 0
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_replica_context().replica_id_in_sync_group
    import torch

    return torch.distributed.get_rank()


def torch_processes() -> int:
    """Processes of an initialized `torch.distributed`, 1 without one."""
    if keras.backend.backend() != "torch":
        return 1
    import torch

    is_used = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if is_used else 1


def variable_scope(model):
    """A context in which variables are made for every replica of the model."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def _strategy():
    import tensorflow as tf

    return tf.distribute.get_strategy()


# ------------------------------------------------- processes, each of which runs the program


def num_processes() -> int:
    """Processes that sample one chain together: those of `keras.distribution.initialize` on JAX, of
    `torch.distributed` on torch."""
    if keras.backend.backend() != "jax":
        return torch_processes()
    import jax

    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_writer() -> bool:
    """Whether this is the process that writes files for all."""
    if num_processes() == 1:
        return True
    if keras.backend.backend() == "jax":
        import jax

        return jax.process_index() == 0
    return replica_index() == 0


def barrier():
    """Waits until all processes are here."""
    if num_processes() == 1:
        return
    if keras.backend.backend() == "jax":
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices("keras_langevin")
    else:
        import torch

        torch.distributed.barrier()


@contextlib.contextmanager
def one_process_writes():
    """As a context: whether this process does the writing inside. All leave it together, also
    where the writing fails."""
    try:
        yield is_writer()
    finally:
        barrier()


def of_torch_processes(value):
    """A list of what every process of `torch.distributed` has in the place of `value`."""
    import torch

    found = [None] * torch_processes()
    torch.distributed.all_gather_object(found, value)
    return found
