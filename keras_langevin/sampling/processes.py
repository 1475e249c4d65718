"""Several processes that sample one chain: what they must have in common."""

import keras
import numpy as np
from keras import ops

from keras_langevin.distribution import num_processes, of_torch_processes, torch_processes
from keras_langevin.keras_internals import is_in_fit
from keras_langevin.weights import parameters

LOOP = "`examples/several_processes.py` has it"


def refuse_separate_chains(model):
    """Raises where each process would train its copy of the model by itself, as `fit` does on
    torch, and on JAX without a distribution."""
    if keras.backend.backend() == "jax":
        _refuse_without_distribution()
    if torch_processes() > 1 and is_in_fit(model):
        raise ValueError(
            "Processes of `torch.distributed` must sample one chain in a loop of your own, since "
            "`fit` trains the copy of each process by itself, with the same noise. Received: `fit` "
            f"in one of {torch_processes()} processes. Call the optimizer in a loop with "
            f"`DistributedDataParallel` ({LOOP}), or leave `torch.distributed` out and use "
            "`kl.sample_chains` for independent chains."
        )


def _refuse_without_distribution():
    if num_processes() > 1 and keras.distribution.distribution() is None:
        raise ValueError(
            "Processes of JAX must sample one chain together: each by itself would sample another "
            f"with the same noise. Received: one of {num_processes()} processes, and no "
            "distribution. Call `keras.distribution.set_distribution` before the model is made, "
            "and after `keras.utils.clear_session`, which forgets it; or leave "
            "`keras.distribution.initialize` out and use `kl.sample_chains` for independent chains."
        )


def check_same_weights(model):
    """Raises unless the processes have the same weights, but for rounding."""
    if torch_processes() == 1:
        return
    mine = np.concatenate([np.ravel(ops.convert_to_numpy(v)) for v in parameters(model)])
    first, *others = of_torch_processes(mine[:: max(mine.size // 1000, 1)])
    if all(np.allclose(first, other, rtol=1e-3, atol=1e-6) for other in others):
        return
    raise ValueError(
        "Processes of `torch.distributed` must sample one chain, with the same weights. Received: "
        f"weights that differ between {torch_processes()} processes after an epoch. Pass the same "
        "`seed` to the optimizer everywhere, call the `DistributedDataParallel` model, and make it "
        f"after the `kl.PosteriorSampler` was shown the model ({LOOP})."
    )
