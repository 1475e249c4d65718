"""The Fisher information as a metric that is a function of the present weights."""

import keras
import numpy as np
from keras import ops

from keras_langevin.arguments import integer, non_negative_number, one_of
from keras_langevin.preconditioners.preconditioner import Preconditioner
from keras_langevin.predictive import at_least_float32, checked_meaning, resolve_families
from keras_langevin.statistics.track import untracked
from keras_langevin.weights import parameters

LABELS = ("model", "empirical")


class Fisher(Preconditioner):
    """M(θ) = F(θ) + δ I, F the Fisher information of the mean loss on fixed training inputs:

        F = (1/n) Σ_i E_Y[s sᵀ],   s the gradient of one example's loss with label Y

    evaluated anew at the weights of every step, so that M is a smooth function of θ and its
    derivative can enter the dynamics (`kl.SNGD`). The prior is not part of it. Subclasses say how
    much of F is kept.

    Args:
        fisher: `"model"`, Y drawn from the model's own prediction (the true Fisher information),
            or `"empirical"`, Y the label of the data.
        damping: δ ≥ 0, in the units of F. Networks have a singular F and need some.
        num_examples: n, how many training inputs F is averaged over. `kl.PosteriorSampler` takes
            them from the data of `fit`; see also `set_data`.
        output, noise_stddev: What the model's outputs mean, where the compiled loss does not say;
            as in `kl.BayesianEnsembleModel`. For `fisher="model"` only.

    Layers run in inference mode; weights that are not trained stay as they were when `set_data`
    was called.
    """

    def __init__(
        self, fisher="model", damping=0.1, num_examples=1024, output=None, noise_stddev=None
    ):
        self.fisher = one_of("fisher", fisher, LABELS)
        self.damping = non_negative_number("damping", damping)
        self.num_examples = integer("num_examples", num_examples, at_least=1)
        self.output, self.noise_stddev = checked_meaning(output, noise_stddev)
        self.model = self.data = None

    def attach(self, model):
        """Makes this the metric of a built model. Called by `kl.track_statistics`."""
        if self.fisher == "model":
            self.families = resolve_families(model, self.output, self.noise_stddev)
        if model is not self.model:
            self.data = None  # it was for another model
        self.model = model
        if self.data is not None and len(self.fixed) != len(model.non_trainable_variables):
            self._fix()  # layers were frozen since, or are trained again
        self.prepare()

    def prepare(self):
        """What a subclass does once the model is known."""

    def set_data(self, x, y=None):
        """Sets the inputs, and for the empirical Fisher the labels, that F is averaged over: the
        first `num_examples` of nested arrays. What is compiled keeps the data it began with."""
        if self.fisher == "empirical" and y is None:
            raise ValueError(
                'fisher="empirical" needs the labels of its examples. Received: y=None. Call '
                "`set_data(x, y)`."
            )
        arrays = x if self.fisher == "model" else (x, y)
        self.data = keras.tree.map_structure(lambda a: np.asarray(a)[: self.num_examples], arrays)
        self._fix()

    def _fix(self):
        self.fixed = [ops.convert_to_numpy(v) for v in self.model.non_trainable_variables]

    @property
    def approximates_fisher(self):
        return self.fisher == "empirical"

    @property
    def is_filled(self):
        return self.data is not None

    def update(self, values, gradients, statistics):
        return self.at(values), []

    def current(self):
        values = (ops.stop_gradient(v.value) for v in parameters(self.model))
        return self.at([ops.cast(θ, "float32") for θ in values])

    def at(self, values):
        """The metric at these weights."""
        if self.data is None:
            raise ValueError(
                "The Fisher metric has no inputs to be averaged over. Received: no data. Add "
                "`callbacks=[kl.PosteriorSampler(...)]` to `fit`, which takes them from the "
                "training data, or call `kl.track_statistics(model, optimizer)` and then "
                "`optimizer.preconditioner.set_data(x_train)` before training."
            )
        with untracked(self.model):
            return self.evaluate(values, self.tensors())

    def tensors(self):
        """The data that F is averaged over."""
        return keras.tree.map_structure(ops.convert_to_tensor, self.data)

    def evaluate(self, values, data):
        """The metric from the data as tensors."""
        raise NotImplementedError

    def outputs(self, values, x, also=()):
        """The model's outputs, float32 or wider; `also` are pairs of a variable and its value."""
        own = parameters(self.model)
        values = [ops.cast(θ, v.dtype) for θ, v in zip(values, own, strict=True)]
        fixed = zip(
            self.model.non_trainable_variables, map(ops.convert_to_tensor, self.fixed), strict=True
        )
        mapping = [*zip(own, values, strict=True), *fixed, *also]
        with keras.StatelessScope(state_mapping=mapping):
            outputs = self.model(x, training=False)
        return keras.tree.map_structure(at_least_float32, outputs)

    def loss(self, x, y, outputs):
        with keras.StatelessScope():
            return self.model.compute_loss(x, y, outputs, training=False)

    def get_config(self):
        return {
            "fisher": self.fisher,
            "damping": self.damping,
            "num_examples": self.num_examples,
            "output": self.output,
            "noise_stddev": self.noise_stddev,
        }
