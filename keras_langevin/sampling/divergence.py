"""Stopping a run that has diverged, with the samples that it stored before."""

import math

import numpy as np
from keras import ops

from keras_langevin.keras_internals import inner_optimizer, loss_scale
from keras_langevin.optimizers.snapshots import as_sampler
from keras_langevin.storage.sample_folder import listed
from keras_langevin.weights import weight_values

SMALLEST_LOSS_SCALE = 2.0**-14  # the smallest number that float16 has with all its digits


class DivergenceGuard:
    """Raises a `FloatingPointError` where loss, steps or weights of a running `fit` are NaN or
    infinite, unless the optimizer was told to go on after such steps.

    Args:
        callback: The `kl.PosteriorSampler`, through whose `model` everything is read: on JAX that
            fetches the values of the moment.
    """

    def __init__(self, callback):
        self.callback = callback
        self._bad_before = self._sampler().nonfinite_steps

    def _sampler(self):
        return as_sampler(self.callback.model.optimizer)

    def check(self, loss=None):
        """Looks at the steps since the beginning, and at the loss of an epoch."""
        self._check_loss_scale()
        sampler = self._sampler()
        if sampler.on_nonfinite != "raise":
            return
        num_bad = sampler.nonfinite_steps - self._bad_before
        if num_bad > 0:
            raise self._diverged(
                f"NaN or infinity in {num_bad} steps, none of them taken, the last was step "
                f"{sampler.last_nonfinite_step}"
            )
        if loss is not None and not math.isfinite(loss):
            raise self._diverged(f"loss={loss}")

    def finite_weights(self):
        """The model's weights by name; raises where one of them is not finite."""
        weights = weight_values(self.callback.model)
        bad = [name for name, array in weights.items() if not np.isfinite(array).all()]
        if bad:
            raise self._diverged(f"NaN or infinity in {listed(bad)}")
        return weights

    def _check_loss_scale(self):
        """Raises where it is so small that it takes gradients away."""
        scale = loss_scale(self.callback.model.optimizer)
        if scale < SMALLEST_LOSS_SCALE:
            raise self._diverged(
                f"the loss scale of float16 at {scale:.2g}, which every step with NaN or infinity "
                "in a gradient halves and 2000 others double; the policy 'mixed_bfloat16' needs "
                "none"
            )

    def _diverged(self, what):
        optimizer = inner_optimizer(self.callback.model.optimizer)
        steps, rate = (
            ops.convert_to_numpy(v).item() for v in (optimizer.iterations, optimizer.learning_rate)
        )
        return FloatingPointError(
            "The loss and the weights must stay finite while sampling. "
            f"Received: {what}, at step {steps}, after "
            f"{self.callback.epochs_seen} whole epochs. Nearly always the "
            f"learning rate, here {rate:.3g}, is too large, so that every step overshoots "
            f"more than the last: {self._smaller_rate()} Else look for NaN or "
            "infinity in the training data; `on_nonfinite` of the optimizer says what becomes of "
            f"such steps. The {len(self.callback.samples)} samples stored before can be used."
        )

    def _smaller_rate(self):
        if not self._sampler().has_automatic_learning_rate:
            return (
                'use `learning_rate="auto"`, or a tenth of it; `kl.diagnostics.step_size` measures '
                "how large it may be."
            )
        return (
            '"auto" found it where the loss is curved less than further on. Pass a tenth of it; '
            'for counts, and where predictions begin far from the targets, pass `fisher="model"`, '
            "which `kl.QDOPLangevin` and `kl.DOPLangevin` take."
        )
