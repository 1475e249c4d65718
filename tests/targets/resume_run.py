"""A run that can be killed at any moment and started again: `python resume_run.py FOLDER EPOCHS`.

`tests/contract/test_exact_resume.py` kills and compares. It prints one line after its first epoch.
"""

import sys

import keras
import numpy as np
from cases import JIT_IF_NEEDED

import keras_langevin as kl

N, BATCH = 60, 10
SAMPLERS = {
    "SGLD": lambda: kl.SGLD(0.01, num_data=N),
    "QDOPLangevin": lambda: kl.QDOPLangevin(1e-2, num_data=N),
    "SGHMC": lambda: kl.SGHMC(0.01, num_data=N, noise_estimate="successive_differences"),
    "SMILE": lambda: kl.SMILE(num_data=N),
    "RMSPropLangevin": lambda: kl.RMSPropLangevin(1e-3, num_data=N),
    "BNPLangevin": lambda: kl.BNPLangevin(1e-2, num_data=N),
    "auto": lambda: kl.SGLD("auto", num_data=N),
}


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 3)).astype("float32")
    return x, np.sin(x[:, :1]) + 0.1 * rng.normal(size=(N, 1)).astype("float32")


def model(name):
    """With dropout, whose generator's state is part of the run."""
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(1),
        ]
    )
    network.compile(SAMPLERS[name](), kl.losses.GaussianNLL(0.3), jit_compile=JIT_IF_NEEDED)
    return network


def run(folder, epochs, name="SGLD", shuffled_arrays=False, callbacks=(), **schedule):
    """Trains to that many epochs in all, from what the folder holds."""
    schedule = {"burn_in": 1, "thinning": 2, **schedule}
    network = model(name)
    sampler = kl.PosteriorSampler(directory=folder, resume=True, **schedule)
    x, y = data()
    batches = {"x": x, "y": y, "batch_size": BATCH}
    if not shuffled_arrays:
        batches = {"x": kl.RandomBatches(x, y, BATCH, seed=1)}
    callbacks = [sampler, *callbacks]
    first = sampler.epochs_seen
    network.fit(**batches, epochs=epochs, initial_epoch=first, callbacks=callbacks, verbose=0)
    return sampler.samples


class Ready(keras.callbacks.Callback):
    """Says once that an epoch is over, and with it all that takes long at the start."""

    said = False

    def on_epoch_end(self, epoch, logs=None):
        if not self.said:
            print("ready", flush=True)
        self.said = True


if __name__ == "__main__":
    keras.utils.set_random_seed(int(sys.argv[4]) if len(sys.argv) > 4 else 0)
    name = sys.argv[3] if len(sys.argv) > 3 else "SGLD"
    run(sys.argv[1], int(sys.argv[2]), name, callbacks=[Ready()])
