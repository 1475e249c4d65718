"""One of several classes per example."""

import math

import keras
import numpy as np
from keras import ops

from keras_langevin.keras_internals import logits_of, loss_argument
from keras_langevin.predictive.entropy import categorical_entropy, times_log
from keras_langevin.predictive.family import Family
from keras_langevin.predictive.label_weights import label_weights
from keras_langevin.predictive.probabilities import away_from_0_and_1, check_distributions
from keras_langevin.predictive.quality_of_classes import report_of_classes
from keras_langevin.predictive.quantiles import member_quantiles
from keras_langevin.predictive.registry import register_family
from keras_langevin.special_functions.bounds import no_less_than

# Arguments of the losses beside `from_logits`.
_DEFAULTS = {"axis": -1, "ignore_class": None, "label_smoothing": 0.0}


@register_family(
    (
        keras.losses.SparseCategoricalCrossentropy,
        keras.losses.CategoricalCrossentropy,
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.categorical_crossentropy,
    ),
    exact=True,
)
class Categorical(Family):
    """One axis of the outputs, the last unless the loss says another, are the classes, of which
    each label is one.

    A soft label q, a distribution over the classes, has the density exp(Σ_k q_k log p_k) for each
    member, as in Keras' loss. Probabilities are divided by their sum and kept away from 0 and 1 by
    `keras.config.epsilon()` where their logarithm is taken, as there.

    Args:
        output: `"logits"` or `"probabilities"`.
        axis: Of the classes.
        ignore_class: Number of a class whose labels do not count, as of
            `keras.losses.SparseCategoricalCrossentropy`.
        label_smoothing: As of `keras.losses.CategoricalCrossentropy`.
    """

    support = "classes"

    def __init__(self, output, axis=-1, ignore_class=None, label_smoothing=0.0):
        self.output = output
        self.axis = axis
        self.ignore_class = ignore_class
        self.label_smoothing = label_smoothing

    @classmethod
    def choices(cls):
        return {
            "logits": "softmax of the last axis gives the classes' probabilities",
            "probabilities": "the last axis are the classes' probabilities",
        }

    @classmethod
    def from_name(cls, output, **options):
        return cls(output, **options)

    @classmethod
    def from_loss(cls, loss):
        said = {key: loss_argument(loss, key, default) for key, default in _DEFAULTS.items()}
        from_logits = loss_argument(loss, "from_logits", False)
        return cls("logits" if from_logits else "probabilities", **said)

    @property
    def options(self):
        said = {key: getattr(self, key) for key in _DEFAULTS}
        return {key: value for key, value in said.items() if value != _DEFAULTS[key]}

    def for_rank(self, rank):
        if self.axis < 0:
            return self
        if rank is None:
            raise ValueError(
                "Where the shape of the outputs is not known, the axis of the classes must be "
                f"counted from the end. Received: a loss with axis={self.axis}. Compile it with a "
                "negative axis, such as axis=-3 for (batch, classes, height, width)."
            )
        axis = self.axis - rank
        return type(self)(self.output, **{**self.options, "axis": axis})

    @property
    def impossible_activations(self):
        return ("softmax", "sigmoid") if self.output == "logits" else ("linear",)

    def parameters(self, outputs):
        return ops.softmax(outputs, axis=self.axis) if self.output == "logits" else outputs

    def mean(self, parameters):
        return parameters

    def variance(self, parameters):
        """Of each class' indicator."""
        return parameters * (1 - parameters)

    def entropy(self, mean):
        return categorical_entropy(mean, self.axis)

    def quantiles(self, outputs, levels):
        """Of the members' probabilities: classes have no order."""
        return member_quantiles(self.parameters(outputs), levels)

    def sample(self, parameters, generator):
        """One-hot."""
        noise = generator.gumbel(size=parameters.shape)
        with np.errstate(divide="ignore"):
            best = np.argmax(np.log(parameters) + noise, axis=self.axis)
        one_hot = np.eye(parameters.shape[self.axis], dtype=parameters.dtype)[best]
        return np.moveaxis(one_hot, -1, self.axis)

    def log_likelihood(self, outputs, y):
        """`y`: integers, without the axis of the classes or with one number in it; or shares of
        the classes. An integer that is no class gives NaN, unless it does not count."""
        log_p = self._log_probabilities(outputs)
        shares = self.smoothed(self._shares(y, log_p))
        found = ops.sum(times_log(shares, log_p), axis=self.axis)
        counted = self.counted(y, outputs)
        return found if counted is None else ops.where(counted, found, ops.zeros_like(found))

    log_densities = log_likelihood

    def counted(self, y, outputs):
        numbers = None if self.ignore_class is None else self._class_numbers(y, outputs)
        return None if numbers is None else numbers != self.ignore_class

    def _log_probabilities(self, outputs):
        if self.output == "logits":
            return ops.log_softmax(outputs, axis=self.axis)
        logits = logits_of(outputs)
        if logits is not None:
            return ops.log_softmax(logits, axis=self.axis)
        p = outputs / ops.sum(outputs, axis=self.axis, keepdims=True)
        return ops.log(away_from_0_and_1(p))

    def _shares(self, y, members):
        """The share that a label gives to each class, in the layout of one member's outputs."""
        numbers, classes = self._class_numbers(y, members), members.shape[self.axis]
        if numbers is None:
            shares = ops.cast(y, members.dtype)
        else:
            numbers = ops.expand_dims(numbers, self.axis)
            behind = [1] * (-self.axis - 1)
            every = ops.reshape(ops.arange(classes, dtype="int32"), (-1, *behind))
            shares = ops.cast(numbers == every, members.dtype)
            is_class = (numbers >= 0) & (numbers < classes)
            shares = ops.where(is_class, shares, ops.full_like(shares, float("nan")))
        return shares

    def smoothed(self, shares):
        """The shares as the loss takes them. Keras divides by the length of the last axis,
        whichever is that of the classes."""
        if not self.label_smoothing:
            return shares
        width = shares.shape[-1] or ops.cast(ops.shape(shares)[-1], shares.dtype)
        return shares * (1 - self.label_smoothing) + self.label_smoothing / width

    def _class_numbers(self, y, members):
        """Integers without the axis of the classes; None of labels that are shares."""
        rank, classes = len(members.shape) - 1, members.shape[self.axis]
        if len(y.shape) == rank and y.shape[self.axis] == classes and classes > 1:
            return None
        if len(y.shape) == rank and y.shape[self.axis] == 1:
            y = ops.squeeze(y, axis=self.axis)
        if len(y.shape) != rank - 1:
            which = "the last one" if self.axis == -1 else f"axis {self.axis}"
            raise ValueError(
                "The labels must be class numbers, or one-hot vectors. Received: "
                f"y.shape={tuple(y.shape)} for predictions of {rank} axes with {classes} classes "
                f"in {which}."
            )
        return ops.cast(y, "int32")

    def num_labels(self, outputs):
        shape = list(outputs.shape)
        del shape[self.axis]
        return math.prod(shape[1:])

    def fisher_scores(self, outputs, draws):
        p = self.parameters(outputs)
        root = ops.sqrt(no_less_than(keras.config.epsilon(), p))
        total = ops.sum(root * draws, axis=self.axis, keepdims=True)
        return root * draws - p * total if self.output == "logits" else draws / root - total

    def check(self, parameters):
        if self.output == "probabilities":
            check_distributions(parameters, self.output, self.axis)

    def distribution(self, parameters, tfp):
        return super().distribution(np.moveaxis(parameters, self.axis, -1), tfp)

    def component(self, parameters, tfp):
        return tfp.distributions.Categorical(probs=parameters)

    def report(self, parameters, y, outside=None, weights=None):
        """Positions are examples."""
        y, members = map(ops.convert_to_tensor, (y, parameters))
        given = ops.convert_to_numpy(self._shares(y, members)).astype("float64")
        counted = self.counted(y, members)
        weights = label_weights(weights, np.moveaxis(given, self.axis, -1).shape[:-1])
        if counted is not None:
            weights = label_weights(weights * ops.convert_to_numpy(counted), weights.shape)
        return report_of_classes(
            self._flat(parameters),
            self._flat(given[None])[0],
            None if outside is None else self._flat(outside),
            weights.reshape(-1),
            self._flat(self.smoothed(given)[None])[0],
        )

    def _flat(self, members):
        """NumPy: `(members, n, classes)`."""
        last = np.moveaxis(members, self.axis, -1)
        return last.reshape(len(last), -1, last.shape[-1])
