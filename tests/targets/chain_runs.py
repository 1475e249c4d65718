"""Chains for worker processes, which import this file: nothing heavy at its top."""

import dataclasses
import os
import signal
import time
from pathlib import Path


@dataclasses.dataclass
class Drawn:
    """In place of a `ChainResult`."""

    value: object = None
    num_samples: int = 1
    seconds: float = 0.0

    def read(self):
        return self


@dataclasses.dataclass
class Dying:
    """Its process is killed in the first tries of one chain.

    Attributes:
        folder: In which every try leaves a file `<number>-<attempt>`.
        number: Of that chain.
        deaths: How many of its tries end so.
        others: Chains that it waits for, so that all of these have begun.
    """

    folder: Path
    number: int
    deaths: int
    others: tuple = ()

    def __call__(self, number, attempt):
        (self.folder / f"{number}-{attempt}").touch()
        while number == self.number and not all(self._has_begun(other) for other in self.others):
            time.sleep(0.01)
        if number == self.number and attempt < self.deaths:
            kill_me()
        return Drawn(os.getpid())

    def _has_begun(self, number):
        return any(self.folder.glob(f"{number}-*"))


def kill_me():
    os.kill(os.getpid(), signal.SIGKILL)


def set_mark(value):
    """An initializer."""
    os.environ["KERAS_LANGEVIN_TEST_MARK"] = value


def mark_and_processes():
    return os.environ.get("KERAS_LANGEVIN_TEST_MARK"), os.getpid(), os.getppid()


@dataclasses.dataclass
class Fitted:
    """A `train_fn`: a linear network, SGLD, a sample an epoch, all in the folder of the chain.

    Attributes:
        epochs: How many.
        kills: Chains that end at the beginning of epoch 2, the first time that they come there.
        end: How.
        seen: Of each call: the number, epochs seen before and after, its sampler.
    """

    epochs: int = 4
    kills: tuple = ()
    end: object = kill_me
    seen: list = dataclasses.field(default_factory=list)

    def __call__(self, chain, context):
        import keras
        import numpy as np

        import keras_langevin as kl

        keras.utils.set_random_seed(chain)
        x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
        y = x[:, :1]
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(kl.SGLD(1e-4, num_data=32), kl.losses.GaussianNLL(stddev=0.3))
        sampler = context.sampler(burn_in=0)
        before = sampler.epochs_seen

        def begin(epoch, logs=None):
            if chain in self.kills and epoch == 2 and before == 0:
                self.end()

        callbacks = [sampler, keras.callbacks.LambdaCallback(on_epoch_begin=begin)]
        fit = {"epochs": self.epochs, "initial_epoch": before, "batch_size": 16, "verbose": 0}
        model.fit(x, y, callbacks=callbacks, **fit)
        self.seen.append((chain, before, sampler.epochs_seen, sampler))
        return sampler
