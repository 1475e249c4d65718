"""Any optimizer, asked as if it were a sampler."""

from keras_langevin.keras_arguments import model as checked_model
from keras_langevin.keras_internals import inner_optimizer
from keras_langevin.optimizers.protocol import SamplerProtocol
from keras_langevin.optimizers.sampler import Sampler


class Snapshots(SamplerProtocol):
    """Answers for an optimizer that samples nothing, such as Adam: it states no target and no
    noise, so what `kl.PosteriorSampler` stores of it are plain snapshots."""


def as_sampler(optimizer):
    """The `kl.Sampler` itself, without the wrapper of float16 training; `Snapshots` for others."""
    optimizer = inner_optimizer(optimizer)
    return optimizer if isinstance(optimizer, Sampler) else Snapshots()


def sampler_of(model):
    """The `kl.Sampler` that a built model is compiled with.

    Raises:
        ValueError: If the model is not built, or has another optimizer or none.
    """
    optimizer = getattr(checked_model("model", model), "optimizer", None)
    sampler = as_sampler(optimizer)
    if model.built and isinstance(sampler, Sampler):
        return sampler
    raise ValueError(
        "The model must be built, and compiled with an optimizer of keras_langevin. Received: "
        f"model '{model.name}', {'built' if model.built else 'not built'}, "
        f"optimizer={type(inner_optimizer(optimizer)).__name__}. Begin the model with "
        "`keras.Input(...)` and call `model.compile(optimizer=kl.QDOPLangevin(...), loss=...)` "
        "first."
    )
