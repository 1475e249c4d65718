"""`learning_rate="auto"`, and the same for a training loop of one's own."""

import math

from keras_langevin.keras_internals import batches_of_fit
from keras_langevin.learning_rate.curvature import CurvatureProbe
from keras_langevin.learning_rate.limits import CURVATURE_BATCHES, measure, step_size
from keras_langevin.learning_rate.warm_up import METRIC_BATCHES, fill_metric, of_one_size
from keras_langevin.optimizers.snapshots import sampler_of

TRAVEL = 20.0


def find_learning_rate(model, x, y, batch_size=32, sample_weight=None) -> float:
    """A learning rate that is stable at the present weights and lets minibatches add less noise
    than the temperature asks for: `kl.diagnostics.step_size(...).recommended`, see there.

    `learning_rate="auto"` does this in `fit`, and again during burn-in, as the curvature changes.

    Args:
        model: Built, and compiled with an optimizer of this package.
        x, y, sample_weight: Training data as for `fit`, arrays or nested arrays.
        batch_size: As in `fit`.

    Example:

    >>> model.compile(optimizer=kl.QDOPLangevin("auto", num_data=len(x)), loss=loss)
    >>> model.optimizer.learning_rate = kl.find_learning_rate(model, x, y, batch_size=500)
    """
    return step_size(model, x, y, batch_size, sample_weight).recommended


class AutomaticLearningRate:
    """Sets the learning rate of a model in `fit`: before the first step, then at the end of
    epochs 1, 2, 4, 8 ... as long as there is burn-in, so that samples are drawn at one rate.

    A long run can afford a smaller rate, which has less bias: the rate is no larger than what
    takes the chain through `TRAVEL` relaxation times of the metric: 1/η steps, and (1−β)/η with a
    momentum β.

    Args:
        num_steps: Of the whole `fit`, None where nobody knows.
    """

    def __init__(self, model, num_steps):
        self.model = model
        self.optimizer = sampler_of(model)
        travel = TRAVEL * (1.0 - self.optimizer.momentum)
        self.affordable = travel / num_steps if num_steps else math.inf
        self.probe = None

    def begin(self):
        batches = batches_of_fit(self.model, METRIC_BATCHES)
        if not batches:
            raise ValueError(
                'learning_rate="auto" must find the training data in `fit`. Received: none, from '
                "a training loop of your own or a data set that cannot be read. Set "
                "`model.optimizer.learning_rate = kl.find_learning_rate(model, x, y, batch_size)` "
                "instead."
            )
        fill_metric(self.model, of_one_size(batches))
        self._set(batches)

    def epoch_end(self, epochs):
        if epochs & (epochs - 1) == 0:
            self._set(batches_of_fit(self.model, CURVATURE_BATCHES))

    def _set(self, batches):
        self.probe = self.probe or CurvatureProbe(self.model)
        found = measure(self.probe, of_one_size(batches)[:CURVATURE_BATCHES])
        self.optimizer.gradient_noise = found.gradient_noise
        self.optimizer.learning_rate = min(found.recommended, self.affordable)
