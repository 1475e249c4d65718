"""Chooses the settings of the digits example, on parts of its TRAINING set only.

    KERAS_BACKEND=jax python -m examples.studies.digits.tuning --dataset digits

`digits`: three-fold cross-validation of the 1,078 training images. `mnist`: training on the first
50,000 training images, validation on the last 10,000. The measure is the mean negative
log-likelihood of the held-out part: of the ensemble for samplers, of the weights after the best
epoch for the baselines. Any backend gives the same choices; JAX is quickest.
"""

import argparse
import dataclasses
import itertools

import keras
import numpy as np
from sklearn.model_selection import StratifiedKFold

import keras_langevin as kl
from examples.studies.common import digit_images
from examples.studies.common.digit_network import probabilities
from examples.studies.digits import methods
from examples.studies.digits.methods import PLANS

TEMPERATURES = [1.0, 0.3, 0.1, 0.03]
GRIDS = {
    "Adam": {"learning_rate": [3e-4, 1e-3, 3e-3, 1e-2]},
    "Adam, dropout": {"learning_rate": [3e-4, 1e-3, 3e-3], "dropout": [0.1, 0.2, 0.5]},
    "SGLD": {"learning_rate": [0.1, 0.2, 0.4], "temperature": TEMPERATURES},
    "RMSPropLangevin": {"learning_rate": [1e-3, 2e-3, 4e-3], "temperature": TEMPERATURES},
    "DOPLangevin": {"learning_rate": [1e-3, 3e-3, 1e-2], "temperature": TEMPERATURES},
    "QDOPLangevin": {"learning_rate": [1e-3, 3e-3, 1e-2], "temperature": TEMPERATURES},
    "BNPLangevin": {"learning_rate": [0.03, 0.1, 0.3], "temperature": TEMPERATURES},
    "NGD": {"learning_rate": [3e-3, 1e-2, 3e-2]},  # which sets the temperature
    "SNGD": {"learning_rate": [3e-3, 1e-2, 3e-2]},
}


class HeldOutLikelihood(keras.callbacks.Callback):
    """The negative log-likelihood of held-out images after every epoch."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.values = x, y, []

    def on_epoch_end(self, epoch, logs=None):
        p = probabilities(self.model, self.x)
        self.values.append(kl.calibration.negative_log_likelihood(p, self.y))


def folds(dataset, images):
    """Pairs of indices into the training set: to train on, to validate on."""
    if dataset == "mnist":
        return [(np.arange(50_000), np.arange(50_000, 60_000))]
    splitter = StratifiedKFold(3, shuffle=True, random_state=0)
    return list(splitter.split(images.x_train, images.y_train))


def candidates(method):
    grid = GRIDS[method.name]
    for values in itertools.product(*grid.values()):
        yield dataclasses.replace(method, epochs=None, **dict(zip(grid, values, strict=True)))


def curve(method, plan, images, fold):
    """Held-out negative log-likelihood: one number of a sampler, one per epoch of a baseline."""
    training, validation = fold
    x, y = images.x_train[validation], images.y_train[validation]
    held_out = HeldOutLikelihood(x, y)
    callbacks = [] if method.samples else [held_out]
    try:
        _, sampler = methods.train(
            method, plan, images.x_train[training], images.y_train[training], callbacks=callbacks
        )
    except FloatingPointError:
        return [np.inf]
    if sampler is None:
        return held_out.values
    return [kl.calibration.negative_log_likelihood(sampler.ensemble().predict(x, verbose=0), y)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", choices=PLANS, default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--methods", nargs="*", choices=GRIDS, default=list(GRIDS))
    options = parser.parse_args()
    images = digit_images.load(options.dataset, options.data_dir)
    plan = PLANS[options.dataset]
    for method in (m for m in plan.methods if m.name in options.methods):
        for candidate in candidates(method):
            curves = [curve(candidate, plan, images, f) for f in folds(options.dataset, images)]
            mean = np.mean(curves, axis=0)
            settings = {name: getattr(candidate, name) for name in GRIDS[method.name]}
            epoch = "" if method.samples else f", best after epoch {mean.argmin() + 1}"
            print(f"{method.name:<16} {settings}: {mean.min():.4f}{epoch}", flush=True)


if __name__ == "__main__":
    main()
