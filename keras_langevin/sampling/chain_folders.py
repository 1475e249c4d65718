"""A folder for each of several chains, in which a run that was stopped goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from keras_langevin import arguments
from keras_langevin.sampling.posterior_sampler import PosteriorSampler
from keras_langevin.storage.errors import explain_write_errors

_MARK = ".shared-"


class ChainContext:
    """What `kl.sample_chains(..., directory=...)` passes to `train_fn` beside the chain's number.

    Args:
        number: Of the chain, >= 0.
        directory: Folder of the chain, for its samples and the checkpoint of its training.

    Raises:
        ValueError: If an argument is not what is said above.

    Example:

    ```python
    chain = kl.ChainContext(number=0, directory="run/chain-0")
    sampler = chain.sampler(burn_in=2)  # or kl.PosteriorSampler(directory=chain.directory, ...)
    model.compile(kl.SGLD(1e-3, num_data=len(x)), loss)
    model.fit(x, y, epochs=6, initial_epoch=sampler.epochs_seen, callbacks=[sampler], verbose=0)
    ```
    """

    def __init__(self, number: int, directory: str | os.PathLike):
        self.number = arguments.integer("number", number)
        self.directory = Path(arguments.path("directory", directory))

    def __repr__(self):
        return f"ChainContext(number={self.number}, directory='{self.directory}')"

    def sampler(self, burn_in: int | None = None, thinning: int = 1, **kwargs) -> PosteriorSampler:
        """A `kl.PosteriorSampler` that stores in the folder, and goes on with the run in it.

        Its `epochs_seen` is 0 in a new run: train a start then only.

        Args:
            burn_in, thinning: As of `kl.PosteriorSampler`.
            **kwargs: Its other arguments, but `directory`, `resume` and `chain`.
        """
        own = {"directory": self.directory, "resume": True, "chain": self.number}
        return PosteriorSampler(burn_in, thinning, **own, **kwargs)


@dataclasses.dataclass(frozen=True)
class ChainFolders:
    """The folders `chain-0`, `chain-1` ... of several chains.

    Attributes:
        directory: The folder that they are in.
        mark: A file in it. Who sees that, sees the disk of the process that began.
    """

    directory: Path
    mark: str

    def of(self, number: int) -> Path:
        return self.directory / f"chain-{number}"

    def are_shared(self) -> bool:
        """Whether this process reads and writes the folders of the one that began."""
        return (self.directory / self.mark).exists()


@contextlib.contextmanager
def chain_folders(directory: str | os.PathLike | None) -> Iterator[ChainFolders | None]:
    """`ChainFolders` that are marked as shared within it; `None` of no directory."""
    if directory is None:
        yield None
        return
    path = Path(directory).absolute()
    if path.exists() and not path.is_dir():
        raise ValueError(
            "`directory` must be a folder, new or that of the run to continue. Received the file: "
            f"directory='{path}'."
        )
    folders = ChainFolders(path, f"{_MARK}{uuid.uuid4().hex}")
    with explain_write_errors(path, "The folder of the chains", lambda: "Nothing was changed."):
        path.mkdir(parents=True, exist_ok=True)
        for left_by_a_kill in path.glob(f"{_MARK}*"):
            left_by_a_kill.unlink(missing_ok=True)
        (path / folders.mark).touch()
    try:
        yield folders
    finally:
        (path / folders.mark).unlink(missing_ok=True)
