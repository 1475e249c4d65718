"""The models of chains that are trained together."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_langevin.keras_internals import (
    build_on,
    call_in_training,
    compile_argument,
    compute_loss,
    inner_optimizer,
)
from keras_langevin.sampling.vectorized.states import attributes_of, set_attributes
from keras_langevin.statistics.track import (
    is_tracked,
    label_seed,
    track_statistics,
    untracked,
)
from keras_langevin.weights import is_statistic, named_weights, parameters

TOLERANCE = 1e-4  # the same operations in the same order differ by nothing


class Members:
    """Models that differ in weights and seeds alone.

    Args:
        models: One a chain. The first is the one that `fit` trains.
        contexts: For each a function that gives a context in which random numbers are its own.
    """

    def __init__(self, models, contexts):
        self.models, self.contexts = models, contexts
        self._variables = {}

    def prepare(self, chain, batch):
        """Builds the model of a chain and gives it the variables that the first one has.

        Args:
            batch: `(x, y, sample_weight)`, on which outputs and loss are compared.

        Raises:
            ValueError: If it is another network, or is compiled otherwise.
        """
        first, model = self.models[0], self.models[chain]
        with self.contexts[chain]():
            build_on(model, batch)
        check_alike(first, model, chain, batch)
        if is_tracked(first):
            track_statistics(model, model.optimizer)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        model.stop_training = False
        self._variables[chain] = _variables(model)

    def variables(self, chain):
        """Of the model and the optimizer of a chain, in the order of the first one's; none of the
        first itself, and of one that is not prepared."""
        return self._variables.get(chain, ())

    def states(self, failed):
        """For `ChainStates`: the values of the first model's variables in each chain, and the
        attributes of each optimizer. Chains that have `failed` are as the first."""
        first = _variables(self.models[0])
        values, attributes = [], []
        for chain, model in enumerate(self.models):
            model = self.models[0] if chain in failed else model
            pairs = zip(first, _variables(model), strict=True)
            values.append({id(v): own.value for v, own in pairs})
            attributes.append(attributes_of(model.optimizer))
        return values, attributes

    def take(self, states):
        """Gives every model the values of its chain."""
        for chain, model in enumerate(self.models):
            own = self._variables.get(chain, () if chain else states.variables)
            for variable, value in zip(own, states.values(chain), strict=False):
                variable.assign(value)
            set_attributes(model.optimizer, states.attributes[chain])

    def seeds(self):
        """From each seed that the first model's step knows to those of all."""
        seeds = seeds_of([attributes_of(model.optimizer) for model in self.models])
        for seed, of_chains in seeds.items():
            if len(set(of_chains)) == 1:
                warnings.warn(
                    "Chains must have noise of their own. Received: optimizers with the same seed "
                    f"{seed} in all. Pass `seed=chain`, or none.",
                    stacklevel=2,
                )
        labels = [label_seed(model) for model in self.models]
        return seeds if labels[0] is None else seeds | {labels[0]: labels}


def seeds_of(attributes):
    seeds = [one.get("seed") for one in attributes]
    return {} if seeds[0] is None else {seeds[0]: seeds}


def check_alike(first, model, chain, batch):
    """Raises a `ValueError` where the model of a chain is not the first one with other weights."""
    found = _difference(first, model, batch)
    if found is not None:
        raise ValueError(
            "With `vectorized=True` the networks of all chains must be the same but for weights "
            f"and seeds. Received: in chain {chain} {found}. Make them alike, or leave "
            "`vectorized` out."
        )


def _difference(first, model, batch):
    for what in (_shapes, _optimizer_words, _metrics):
        expected, found = what(first), what(model)
        if found != expected:
            return f"{WORDS[what.__name__]} {found}, where the first has {expected}"
    outputs, loss = _outputs_and_loss(model, model, batch)
    expected_outputs, expected_loss = _outputs_and_loss(first, model, batch)
    if not all(map(_close, expected_outputs, outputs)):
        return "other outputs for the same weights"
    if not _close(expected_loss, loss):
        return "another loss for the same outputs"
    return None


WORDS = {"_shapes": "weights of shapes", "_optimizer_words": "the optimizer", "_metrics": "metrics"}


def _shapes(model):
    """Of those that are trained, and of the others."""
    groups = (parameters(model), model.non_trainable_variables)
    return [[tuple(v.shape) for v in group if not is_statistic(v)] for group in groups]


def _optimizer_words(model):
    optimizer = inner_optimizer(model.optimizer)
    try:
        config = dict(optimizer.get_config())
    except NotImplementedError:  # of a schedule that has none
        return type(optimizer).__name__
    if config.get("learning_rate") != "auto" and isinstance(config.get("learning_rate"), float):
        del config["learning_rate"]  # a variable, of which each chain has its own
    config = {k: v for k, v in config.items() if k not in ("name", "seed")}
    return f"{type(optimizer).__name__}({config})"


def _metrics(model):
    given = [compile_argument(model, name) for name in ("metrics", "weighted_metrics")]
    return [m if isinstance(m, str) else type(m).__name__ for m in keras.tree.flatten(given)]


def _outputs_and_loss(model, source, batch):
    """What `model` gives in training with weights and random states of the `source`: outputs and
    moving averages after it, and the loss. The models themselves notice nothing."""
    x, y, sample_weight = batch
    values = list(zip(_states(model), map(ops.convert_to_tensor, _states(source)), strict=True))
    with keras.StatelessScope(values, collect_losses=True) as scope, untracked(model):
        outputs = call_in_training(model, x)
        loss = compute_loss(model, x, y, outputs, sample_weight)
        after = [scope.get_current_value(v) for v, _ in values]
    flat = [*keras.tree.flatten(outputs), *(a for a in after if a is not None)]
    return [ops.convert_to_numpy(o) for o in flat], ops.convert_to_numpy(loss)


def _states(model):
    """Weights, and random states."""
    weights = list(named_weights(model).values())
    known = {id(v) for v in weights}
    rest = [v for v in model.non_trainable_variables if not is_statistic(v)]
    return [*weights, *(v for v in rest if id(v) not in known)]


def _variables(model):
    return [*model.trainable_variables, *model.non_trainable_variables, *model.optimizer.variables]


def _close(expected, found):
    scale = TOLERANCE * np.abs(expected.astype("float64")).max(initial=0.0)
    return np.allclose(found, expected, TOLERANCE, scale, equal_nan=True)
