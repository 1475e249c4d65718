"""My training was interrupted. How does it go on, and does that change the samples?

    python examples/resume.py            # until it is interrupted, then again: it goes on
    python examples/resume.py --folder run

With `directory=` every sample is on disk as soon as it is drawn, and after each epoch a checkpoint.
With `resume=True` the same program, started again, continues after the last whole epoch. Here it is
interrupted on purpose, once, and compared with a run that was not: the samples are the same, bit
for bit, because noise and batches are functions of the epoch and nothing else.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_wine

import keras_langevin as kl

EPOCHS, INTERRUPTED_AFTER = 60, 23


class PowerCut(keras.callbacks.Callback):
    """Stops the process in the middle of an epoch."""

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.optimizer.iterations >= INTERRUPTED_AFTER * 6 + 3:
            raise KeyboardInterrupt


def train(folder, callbacks=()):
    """The program that is started again and again."""
    keras.utils.clear_session()  # as in a process that has just begun
    keras.utils.set_random_seed(0)
    x, y = load_wine(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
    model = keras.Sequential(
        [keras.Input((13,)), keras.layers.Dense(20, "tanh"), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kl.SGLD(num_data=len(x)), loss)
    sampler = kl.PosteriorSampler(burn_in=10, directory=folder, resume=True)
    if sampler.epochs_seen:
        print(f"going on after epoch {sampler.epochs_seen}, {len(sampler.samples)} samples stored")
    model.fit(
        kl.RandomBatches(x, y, batch_size=32, seed=0),  # their order depends on the epoch alone
        epochs=EPOCHS,
        initial_epoch=sampler.epochs_seen,
        callbacks=[sampler, *callbacks],
        verbose=0,
    )
    return sampler.samples


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.mkdtemp()))
    folder = parser.parse_args().folder
    try:
        train(folder / "interrupted", [PowerCut()])
    except KeyboardInterrupt:
        print("interrupted")
    interrupted, whole = train(folder / "interrupted"), train(folder / "whole")
    same = all(
        np.array_equal(ours[name], theirs[name])
        for ours, theirs in zip(interrupted, whole, strict=True)
        for name in ours
    )
    print(f"{len(interrupted)} samples, {'equal' if same else 'NOT equal'} to those of a whole run")


if __name__ == "__main__":
    main()
