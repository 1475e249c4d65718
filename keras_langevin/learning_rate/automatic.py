"""`learning_rate="auto"`, and the same for a training loop of one's own."""

import numpy as np
from keras import ops

from keras_langevin.arguments import integer
from keras_langevin.keras_internals import (
    batches_of_fit,
    inner_optimizer,
    kept_while_compiled,
)
from keras_langevin.learning_rate.curvature import CurvatureProbe
from keras_langevin.learning_rate.limits import CURVATURE_BATCHES, measure, step_size
from keras_langevin.learning_rate.warm_up import METRIC_BATCHES, fill_metric, of_one_size
from keras_langevin.model_loss import check_states_a_loss
from keras_langevin.optimizers.snapshots import sampler_of

BACK_OFF, MOST_BACK_OFFS = 0.1, 3  # the factor on the rate, and how often


def find_learning_rate(model, x, y, batch_size=32, sample_weight=None, num_steps=None) -> float:
    """A learning rate that is stable at the present weights and lets minibatches add less noise
    than the temperature asks for: `kl.diagnostics.step_size(...).recommended_for(num_steps)`.

    `learning_rate="auto"` does this in `fit`, and again during burn-in, as the curvature changes.

    Args:
        model: Built, and compiled with an optimizer of this package.
        x, y, sample_weight: Training data as for `fit`, arrays or nested arrays.
        batch_size: As in `fit`.
        num_steps: Of the run; the longer, the smaller the rate. `None` where nobody knows.

    Example:

    >>> model.compile(optimizer=kl.QDOPLangevin("auto", num_data=len(x)), loss=loss)
    >>> model.optimizer.learning_rate = kl.find_learning_rate(model, x, y, batch_size=500)
    """
    if num_steps is not None:
        num_steps = integer("num_steps", num_steps, at_least=1)
    return step_size(model, x, y, batch_size, sample_weight).recommended_for(num_steps)


class AutomaticLearningRate:
    """Sets the learning rate of a model in `fit` to `StepSize.recommended_for` the steps of the
    run: before the first step, at the end of epochs 1, 2, 4, 8 ... of burn-in, and at its end, so
    that samples are drawn at one rate.

    The curvature along the way can be far larger than where it was measured. An epoch of burn-in
    that diverges is therefore undone, and from then on the rate is a tenth of what is recommended.

    Args:
        num_steps: Of the whole `fit`, None where nobody knows.
    """

    def __init__(self, model, num_steps):
        self.model = model
        self.optimizer = sampler_of(model)
        self.num_steps = num_steps
        self.found = None
        self._num_back_offs, self._state = 0, None

    def begin(self):
        batches = batches_of_fit(self.model, METRIC_BATCHES)
        if not batches:
            raise ValueError(
                'learning_rate="auto" must find the training data in `fit`. Received: none, from '
                "a training loop of your own or a data set that cannot be read. Set "
                "`model.optimizer.learning_rate = kl.find_learning_rate(model, x, y, batch_size)` "
                "instead."
            )
        check_states_a_loss(self.model)
        fill_metric(self.model, of_one_size(batches))
        self._set(batches)

    def remember(self):
        """The state at the beginning of an epoch of burn-in."""
        # Copied: torch's arrays are views of what steps change.
        self._state = [np.array(ops.convert_to_numpy(v)) for v in self._variables()]

    def back_off(self):
        """Returns to the state that is remembered, with a tenth of the rate. Three times in all.

        Returns:
            The rate that was too large; None where it gives up.
        """
        if self._state is None or self._num_back_offs == MOST_BACK_OFFS:
            return None
        rate = self.optimizer.present_learning_rate
        for variable, value in zip(self._variables(), self._state, strict=True):
            variable.assign(value)
        self._num_back_offs += 1
        self.optimizer.learning_rate = BACK_OFF * rate
        return rate

    def _variables(self):
        return [*self.model.variables, *inner_optimizer(self.model.optimizer).variables]

    def epoch_end(self, epochs):
        if epochs & (epochs - 1) == 0:
            self.settle()

    def settle(self):
        self._set(batches_of_fit(self.model, CURVATURE_BATCHES))

    def in_words(self, num_steps):
        """What was found, why, and what it will give; `num_steps` are those after burn-in."""
        rate, found = self.optimizer.present_learning_rate, self.found
        limit, why = found.smaller_limit, "above which steps grow (2/λ)"
        if limit == found.noise_limit:
            why = f"where minibatches of {found.batch_size} add as much noise as is asked for"
        words = f'learning_rate="auto": {rate:.2g}, {rate / limit:.0%} of {limit:.2g}, {why}'
        if not (num_steps and found.temperature):
            return f"{words}."
        effective = found.effective_samples(rate, num_steps)
        return (
            f"{words}; the {num_steps:,} steps after burn-in are worth about {effective:,.0f} "
            "independent samples along half of the directions or more, and fewer along flat ones."
        )

    def _set(self, batches):
        probe = kept_while_compiled(self.model, lambda: CurvatureProbe(self.model))
        try:
            found = measure(probe, of_one_size(batches)[:CURVATURE_BATCHES])
        except FloatingPointError:
            raise
        except Exception as error:  # whatever layers, losses and backends may raise
            raise ValueError(
                'learning_rate="auto" must measure how the loss is curved, and a layer or the loss '
                f"of the model '{self.model.name}' does not let it. Received: {error}. Pass a "
                "learning rate in its place, such as "
                f"`kl.{type(self.optimizer).__name__}(learning_rate=1e-3, num_data=N)`."
            ) from error
        self.optimizer.gradient_noise = found.gradient_noise
        self.found = found
        share = BACK_OFF**self._num_back_offs
        self.optimizer.learning_rate = share * found.recommended_for(self.num_steps)
