"""Warnings of a run that goes wrong while `fit` still runs it."""

import itertools
import math
import warnings

from keras_langevin.keras_internals import inner_optimizer, regularization_loss
from keras_langevin.optimizers.drift_clip import HARMLESS, MOST_CLIPPED
from keras_langevin.optimizers.snapshots import as_sampler
from keras_langevin.sampling.phases import num_steps

FEWEST_EPOCHS, FEWEST_STEPS = 5, 100  # before anything is said
MARGIN = 0.05  # of the constant's loss, or nats
FEWEST_CLIPS = 4


class RunChecks:
    """Looks at every epoch of a chain, and says each thing once.

    Args:
        callback: The `kl.PosteriorSampler`, through whose `model` everything is read: on JAX that
            fetches the values of the moment.
    """

    def __init__(self, callback):
        self._losses, self._clips = _Losses(callback), _Clips(callback)
        self._said = set()

    def compare_with(self, constant):
        """Sets the `ConstantLoss` to beat; None where it is not known."""
        self._losses.constant = constant

    def epoch_end(self, loss, quantities, has_burned_in):
        """Looks at one epoch.

        Args:
            loss: Of training; None where it is not known.
            quantities: Of the sampler, by name.
            has_burned_in: Whether the next position of the schedule is after burn-in.
        """
        for check in (self._losses, self._clips):
            words = check.of_epoch(loss, quantities, has_burned_in)
            if words is not None and check not in self._said:
                self._said.add(check)
                warnings.warn(words, stacklevel=4)

    @property
    def drift_clipped(self):
        """Share of the steps since burn-in whose drift was shortened; None where there is no clip,
        or there were too few steps."""
        return self._clips.share


class _Clips:
    """Whether drifts are still shortened when samples are drawn, or about to be."""

    def __init__(self, callback):
        self.callback = callback
        self.burn_in, self.sampling = [], []  # (clips, steps) at the ends of epochs

    def of_epoch(self, loss, quantities, has_burned_in):
        if "drift_clipped" not in quantities:
            return None
        steps = _steps(self.callback)
        counts = round(quantities["drift_clipped"] * steps), steps
        if self.sampling:
            self.sampling.append(counts)
            return self._warning(self.sampling, "since burn-in ended")
        self.burn_in.append(counts)
        if not has_burned_in:
            return None
        self.sampling.append(counts)
        return self._warning(self.burn_in[len(self.burn_in) // 2 :], "at the end of burn-in")

    @property
    def share(self):
        clips, steps = _between(self.sampling or [(0, 0)])
        return clips / steps if steps >= FEWEST_STEPS else None

    def _warning(self, counts, when):
        clips, steps = _between(counts)
        if steps < FEWEST_STEPS or clips < FEWEST_CLIPS or clips <= MOST_CLIPPED * steps:
            return None
        rate = as_sampler(self.callback.model.optimizer).present_learning_rate
        return (
            f"The drift was shortened in {clips / steps:.1%} of the steps {when}, where "
            f"{HARMLESS:.0%} is harmless: the samples are not those of the posterior. "
            "Scale the inputs to a range of about 1, use larger batches, or pass a learning rate "
            f"below {rate:.2g}."
        )


def _between(counts):
    return tuple(last - first for first, last in zip(counts[0], counts[-1], strict=True))


class _Losses:
    """Whether the training loss is, and stays, worse than that of a constant prediction."""

    def __init__(self, callback):
        self.callback = callback
        self.constant = None
        self.losses = []

    def of_epoch(self, loss, quantities, has_burned_in):
        constant = self.constant
        if constant is None or loss is None or not math.isfinite(loss):
            return None
        added = regularization_loss(self.callback.model)
        if added is None:
            return None
        self.losses.append(float(loss) - added)
        half = self.losses[len(self.losses) // 2 :]
        size = max(abs(constant.value), 1.0) if constant.is_in_nats else abs(constant.value)
        is_early = len(self.losses) < FEWEST_EPOCHS
        if is_early or _steps(self.callback) < FEWEST_STEPS:
            return None
        if min(half) <= constant.value + MARGIN * size or self._arrives(half, constant.value):
            return None
        return (
            f"The training loss is {half[-1]:.4g} after {self.callback.epochs_seen} epochs, worse "
            f"than {constant.value:.4g}, which always predicting {constant.words} reaches: so will "
            f"the samples be. {self._advice(half)}"
        )

    def _arrives(self, half, value):
        """Whether it falls so fast that it will be below in time, on a straight line."""
        callback, seen = self.callback, len(self.losses)
        left = callback.burn_in - callback.epochs_seen if callback.unit == "epoch" else 0
        slope = (half[-1] - half[0]) / (len(half) - 1)
        return half[-1] + slope * max(left, seen // 2) <= value

    def _advice(self, half):
        sampler = as_sampler(self.callback.model.optimizer)
        falls = all(after < before for before, after in itertools.pairwise(half))
        if falls and sampler.has_automatic_learning_rate:
            return "It still falls: scale the inputs to about 1, and choose a longer `burn_in`."
        if falls:
            return (
                'It still falls: use `learning_rate="auto"` or a larger rate, or choose a longer '
                "`burn_in`."
            )
        instead = '`learning_rate="auto"`, or a tenth of the present rate'
        if sampler.has_automatic_learning_rate:
            instead = "a longer burn-in and larger batches"
        return (
            "Scale the inputs, and targets that are real numbers, to about 1; else try "
            f"{instead}, and a prior of the width that the trained weights have."
        )


def _steps(callback):
    return num_steps(inner_optimizer(callback.model.optimizer))
