"""How the samples were drawn: step size, noise and temperatures, where they can be measured."""

import warnings

import keras
import numpy as np

from keras_langevin.learning_rate.curvature import curvature
from keras_langevin.learning_rate.limits import step_size
from keras_langevin.optimizers.snapshots import as_sampler
from keras_langevin.predictive.row import Row, percent
from keras_langevin.storage.sample import Sample
from keras_langevin.training_data import num_examples
from keras_langevin.weights import weight_values

DIVERGED = Row(
    "has_diverged",
    True,
    "the run has diverged",
    "A step, or the model's present weights, were NaN or infinite: the rest is not measured.",
    "",
)


def has_diverged(model):
    """Whether its weights are not finite, or would have been but for a step that was not taken."""
    optimizer = model_optimizer(model)
    was_stopped = optimizer.on_nonfinite == "raise" and optimizer.nonfinite_steps > 0
    finite = (np.isfinite(value).all() for value in weight_values(model).values())
    return was_stopped or not all(finite)


def settings(optimizer, batch_size):
    """Rows of what the optimizer was told."""
    return [
        Row("optimizer", type(optimizer).__name__, "optimizer", ""),
        Row("learning_rate", rate_of(optimizer), "learning rate", "At the end of training.", ".3g"),
        Row("temperature", optimizer.temperature, "temperature", "1 is the posterior.", "g"),
        Row("num_data", optimizer.num_data, "training examples", "`num_data`.", ",.0f"),
        Row("batch_size", batch_size, "batch size", "", ",.0f"),
        Row("has_automatic_learning_rate", optimizer.has_automatic_learning_rate, "", ""),
    ]


def counts(training_data):
    """Rows of how many examples it was trained on, and how many numbers the label of one has."""
    x, y = training_data
    num_targets = max(np.size(a) // len(a) for a in keras.tree.flatten(y))
    return [
        Row(
            "num_training_examples",
            num_examples(x),
            "the same, of `training_data`",
            "Should be `num_data`.",
            ",d",
        ),
        Row("num_targets", num_targets, "", "", ",d"),
    ]


def clipped(share):
    """Rows of how many drifts were shortened; none where that is not known."""
    if share is None:
        return []
    label, meaning = "shortened drifts", "Share of the steps after burn-in; up to 1 % is harmless."
    return [percent("drift_clipped", share, label, meaning)]


def limits(model, x, y, batch_size, where):
    """Rows of what limits the learning rate, on the data `where` says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the findings say it
        found = step_size(model, x, y, batch_size)
    return [
        Row(
            "stability_limit",
            found.stability_limit,
            "largest stable learning rate",
            f"From the curvature of the loss on minibatches of {where}.",
            ".3g",
        ),
        Row(
            "minibatch_noise",
            found.minibatch_noise(rate_of(model_optimizer(model))),
            "minibatch noise",
            "Over the noise that the sampler adds on purpose; below 0.1 is exact sampling.",
            ".3g",
        ),
        Row(
            "learning_rate_for_tenth",
            found.learning_rate_at(0.1),
            "learning rate that makes it 0.1 or less",
            "Exact, and slower.",
            ".3g",
        ),
        Row(
            "recommended_learning_rate",
            found.recommended,
            "recommended learning rate",
            'What learning_rate="auto" would choose at the last weights.',
            ".3g",
        ),
    ]


def spectrum(model, x, y, batch_size):
    """Eigenvalues of the curvature in units of the metric on one minibatch, for a figure."""
    few = keras.tree.map_structure(lambda a: np.asarray(a)[:batch_size], (x, y))
    return curvature(model, *few).eigenvalues


def evenly(ensemble, most):
    """About `most` members as samples, evenly over those of every chain."""
    weights, chains = ensemble.weights_by_name(), ensemble.chains
    numbers = np.unique(chains)
    samples = []
    for chain in numbers:
        own = np.flatnonzero(chains == chain)
        places = np.linspace(0, len(own) - 1, max(most // len(numbers), 8)).round()
        for member in own[np.unique(places.astype(int))]:
            arrays = {name: stack[member] for name, stack in weights.items()}
            samples.append(Sample(arrays, chain=int(chain)))
    return samples


def temperatures(kind, found):
    """Rows of a measured temperature with its band."""
    return [
        Row(
            f"{kind}_temperature",
            found.value,
            f"{kind} temperature",
            f"How far the weights swing. Right: {found.low:.3g} to {found.high:.3g} (99 %).",
            ".3g",
        ),
        Row(f"{kind}_temperature_low", found.low, "", "", ".3g"),
        Row(f"{kind}_temperature_high", found.high, "", "", ".3g"),
    ]


def rate_of(optimizer):
    return optimizer.present_learning_rate


def model_optimizer(model):
    """The sampler of a model; one that states nothing for no model or another optimizer."""
    return as_sampler(getattr(model, "optimizer", None))
