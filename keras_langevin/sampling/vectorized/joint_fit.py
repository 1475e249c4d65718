"""One `fit` that trains the models of several chains as one program."""

import contextlib

import keras
import numpy as np

from keras_langevin.keras_internals import (
    batches_of_fit,
    replaced_steps,
    set_initial_epoch,
    taken_initial_epoch,
)
from keras_langevin.sampling.vectorized.members import Members, seeds_of
from keras_langevin.sampling.vectorized.states import ChainStates
from keras_langevin.sampling.vectorized.step import JointStep
from keras_langevin.weights import named_weights


def joint_fit(requests):
    """Keras' own `fit` of the first chain's model, with steps that advance all chains.

    The callbacks of each chain are called while that model, and the chain's own, have its weights
    and its optimizer's state, so that they need not know of the others. In the end each model has
    its own.

    Args:
        requests: For each chain its model, Keras' `fit`, the arguments of the call, and a context
            in which random numbers are the chain's.

    Returns:
        For each chain its `History`, or the exception that ended it.
    """
    models, _, _, contexts = zip(*requests, strict=True)
    callbacks = [_callbacks(arguments) for _, _, arguments, _ in requests]
    found = _shared(models, callbacks)
    if found is not None:
        return [_shared_error(found) for _ in requests]
    chains = _Chains(Members(models, contexts), callbacks)
    _, fit, arguments, _ = requests[0]
    try:
        fit(models[0], **{**arguments, "callbacks": [chains]})
    except _NoneGoesOn:
        pass
    except Exception as error:  # whatever data, layers and backends may raise
        return [chains.errors.get(chain, error) for chain in chains.numbers]
    finally:
        chains.part()
    return [chains.errors.get(chain, callbacks[chain][-1]) for chain in chains.numbers]


def _shared(models, callbacks):
    """What two chains have in common that each must have to itself; None where there is nothing."""
    trained = [{id(v) for v in model.trainable_variables} for model in models]
    kinds = {
        "a model": [{id(model)} for model in models],
        "an optimizer": [{id(model.optimizer)} for model in models],
        "weights that are trained": trained,
        "a callback": [{id(callback) for callback in one} for one in callbacks],
    }
    for words, owned in kinds.items():
        if len(set().union(*owned)) < sum(map(len, owned)):
            return words
    return None


def _shared_error(found):
    return ValueError(
        "With `vectorized=True` every chain must have a model, an optimizer and callbacks of its "
        f"own. Received: {found} that several chains share. Make it inside of `train_fn`."
    )


def _callbacks(arguments):
    found = arguments.get("callbacks") or []
    found = list(found) if isinstance(found, list | tuple) else [found]
    return [*found, keras.callbacks.History()]


class _NoneGoesOn(Exception):
    """All chains have ended."""


# Hooks that are handed on where a callback has them; Keras waits for every batch that has one.
OTHER_HOOKS = (
    *("on_train_batch_begin", "on_train_batch_end", "on_test_end"),
    *("on_test_batch_begin", "on_test_batch_end"),
)
ALIASES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


class _Chains(keras.callbacks.Callback):
    """Calls the callbacks of every chain while the model is that chain's.

    Args:
        members: The `Members`, whose first model is the one that `fit` trains.
        callbacks: For each chain a list.

    Attributes:
        errors: From the number of a chain to the exception that ended it.
    """

    def __init__(self, members, callbacks):
        super().__init__()
        self.members, self.callbacks, self.numbers = members, callbacks, range(len(callbacks))
        self.errors, self.states, self.step = {}, None, None
        self._alive = set(self.numbers)  # whose callbacks are called
        self._is_stopped = [False for _ in self.numbers]  # what `model.stop_training` says
        self._last_logs = {}  # of chains that stopped within the epoch
        self._joined = contextlib.ExitStack()
        for name in OTHER_HOOKS:
            if any(_has(callback, name) for one in callbacks for callback in one):
                setattr(self, name, self._hook(name))

    def set_model(self, model):
        super().set_model(model)
        for callback in (callback for one in self.callbacks for callback in one):
            callback.set_model(model)

    def on_train_begin(self, logs=None):
        self._join()
        epochs = {}
        for chain in sorted(self._alive):
            params = {**self.params, "verbose": 0 if chain else self.params.get("verbose")}
            self._call(chain, "set_params", params)
            self._call(chain, "on_train_begin", logs)
            epochs[chain] = taken_initial_epoch(self.members.models[0])
        self._begin_at(epochs)
        self.step.seeds.update(seeds_of(self.states.attributes))  # of a run that was resumed
        self._end_with_the_last()

    def on_epoch_begin(self, epoch, logs=None):
        self.step.begin_epoch()
        self._hook("on_epoch_begin")(epoch, logs)
        self._end_with_the_last()

    def on_epoch_end(self, epoch, logs=None):
        own = [self._logs_of(chain, logs) for chain in self.numbers]
        shown = [own[chain] for chain in sorted(self._alive)]
        for chain in sorted(self._alive):
            self._call(chain, "on_epoch_end", epoch, own[chain])
            if chain in self._alive and not self.step.goes_on[chain]:
                self._end(chain, own[chain])
        logs.update(_means(shown) | logs)
        self.model.stop_training = not self._alive

    def on_test_begin(self, logs=None):
        self.step.begin_test()
        self._hook("on_test_begin")(logs)

    def on_train_end(self, logs=None):
        for chain in sorted(self._alive):
            self._end(chain, logs)

    # ----------------------------------------------------------------------- from one to the other

    def _join(self):
        model = self.members.models[0]
        batch = batches_of_fit(model, 1)[0]
        for chain in self.numbers[1:]:
            try:
                self.members.prepare(chain, batch)
            except Exception as error:  # whatever layers and losses may raise
                self.errors[chain] = error
                self._alive.discard(chain)
        self.states = ChainStates(model, *self.members.states(self.errors))
        self.step = JointStep(model, self.states, self.members.seeds())
        self.step.goes_on[list(self.errors)] = False
        functions = self.step.train_function, self.step.test_function
        self._alone = self._joined.enter_context(replaced_steps(model, *functions))

    def part(self):
        """Gives every model what its chain has become, and the first one back to Keras."""
        self._joined.close()
        if self.states is not None and not self.states.is_lost:
            self.members.take(self.states)
        first, names = self.members.models[0], list(named_weights(self.members.models[0]))
        rows = zip(self.members.models, self.callbacks, self._is_stopped, strict=True)
        for model, callbacks, is_stopped in rows:
            model.history, model.stop_training = callbacks[-1], is_stopped
            is_named_alike = list(named_weights(model)) == names  # as what was sampled is
            for callback in callbacks:
                keras.callbacks.Callback.set_model(callback, model if is_named_alike else first)

    def _begin_at(self, epochs):
        """The epoch that callbacks have `fit` begin with, which is one for all chains."""
        if len(set(epochs.values())) > 1:
            error = ValueError(
                "With `vectorized=True` all chains must go on from the same epoch. Received: "
                f"{epochs}, from a callback such as `BackupAndRestore`. Run them without "
                "`vectorized` until they are equally far, or begin anew."
            )
            for chain in epochs:
                self._fail(chain, error)
        elif epochs:
            set_initial_epoch(self.model, epochs.popitem()[1])

    # -------------------------------------------------------------------------------- their hooks

    def _hook(self, name):
        def hook(*args, **kwargs):
            for chain in sorted(self._alive):
                own = self._own(name, chain)
                if own is None:
                    self._call(chain, name, *args, **kwargs)
                elif kwargs:
                    self._call(chain, name, *args, **{**kwargs, "logs": own})
                else:
                    self._call(chain, name, *args[:-1], own)

        return hook

    def _own(self, name, chain):
        """The logs that a hook has of a chain; None where they are not its own."""
        logs = {"on_train_batch_end": self.step.logs, "on_test_batch_end": self.step.test_logs}
        found = (logs | {"on_test_end": self.step.test_logs}).get(name)
        return found and _of_chain(found, chain)

    def _call(self, chain, name, *args, **kwargs):
        """Calls a hook of a chain's callbacks; an exception ends the chain, and no other."""
        models = [vars(self.members.models[i]) for i in (0, chain)]  # past `Layer.__setattr__`
        was_stopped = self._is_stopped[chain]
        for model in models:
            model["stop_training"] = was_stopped
        with self._alone(), self.states.of(chain, self.members.variables(chain)):
            try:
                for callback in self.callbacks[chain]:
                    getattr(callback, name)(*args, **kwargs)
            except Exception as error:  # whatever callbacks may raise
                self._fail(chain, error)
        is_changed = any(bool(model["stop_training"]) != was_stopped for model in models)
        self._set_stopped(chain, was_stopped != is_changed)
        models[0]["stop_training"] = not self.step.goes_on.any()

    def _set_stopped(self, chain, is_stopped):
        """Whether it takes no step more; its epoch ends as it does in `fit`, and then it."""
        self._is_stopped[chain] = is_stopped
        if is_stopped and self.step.goes_on[chain]:
            self._last_logs[chain] = self._logs_of(chain)
        self.step.goes_on[chain] = chain in self._alive and not is_stopped

    def _end(self, chain, logs):
        self._call(chain, "on_train_end", logs)
        self._alive.discard(chain)
        self.step.goes_on[chain] = False

    def _fail(self, chain, error):
        self.errors[chain], self.step.goes_on[chain] = error, False
        self._alive.discard(chain)

    def _end_with_the_last(self):
        if not self._alive:
            raise _NoneGoesOn

    def _logs_of(self, chain, logs=()):
        """Of an epoch, as `fit` of the chain alone would have them."""
        own = _of_chain(self.step.logs, chain) | self._last_logs.pop(chain, {})
        test = _of_chain(self.step.test_logs, chain)
        test = {f"val_{name}": value for name, value in test.items()}
        return own | {name: value for name, value in test.items() if name in (logs or ())}


def _of_chain(logs, chain):
    """Of arrays with a number or more for each chain those of one."""
    return {name: _number(np.asarray(values)[chain]) for name, values in logs.items()}


def _number(value):
    return float(value) if np.size(value) == 1 else np.asarray(value)


def _has(callback, name):
    names = (name, ALIASES.get(name, name))
    return any(_function(callback, n) is not getattr(keras.callbacks.Callback, n) for n in names)


def _function(callback, name):
    found = getattr(callback, name)
    return getattr(found, "__func__", found)


def _means(logs):
    """Of every number that all have."""
    names = [name for name in (logs[0] if logs else ()) if all(name in one for one in logs)]
    found = {name: np.mean([one[name] for one in logs], axis=0) for name in names}
    return {name: _number(mean) for name, mean in found.items()}
