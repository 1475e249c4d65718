"""Private names of Keras' `fit` that let one call of it train several models of one kind."""

import contextlib
import functools
import inspect
import threading

import keras

_lock = threading.Lock()
_users = []  # of the one interception that there is


@contextlib.contextmanager
def intercepted_fit(handler):
    """Inside, `model.fit` of every model in the process is `handler(model, fit, arguments)`.

    Args:
        handler: Function of the model, the `fit` that there was, and its arguments by name; the
            same one wherever this is used at the same time.
    """
    with _lock:
        if not _users:
            _intercept(handler)
        _users.append(handler)
    try:
        yield
    finally:
        with _lock:
            _users.pop()
            if not _users:
                _put_back()


def _intercept(handler):
    plain, signature = keras.Model.fit, inspect.signature(_trainers_fit())

    @functools.wraps(plain)
    def fit(self, *args, **kwargs):
        arguments = dict(signature.bind(self, *args, **kwargs).arguments)
        del arguments["self"]
        return handler(self, plain, arguments)

    fit.before = vars(keras.Model).get("fit")  # None where the class inherits it
    keras.Model.fit = fit


def _put_back():
    before = keras.Model.fit.before
    if before is None:
        del keras.Model.fit
    else:
        keras.Model.fit = before


def _trainers_fit():
    return next(vars(c)["fit"] for c in keras.Model.__mro__[1:] if "fit" in vars(c))


def taken_initial_epoch(model):
    """The epoch that a callback such as `BackupAndRestore` has `fit` begin with, or None; it is
    forgotten."""
    found, model._initial_epoch = getattr(model, "_initial_epoch", None), None
    return found


def set_initial_epoch(model, epoch):
    model._initial_epoch = epoch


@contextlib.contextmanager
def replaced_steps(model, train_function, test_function):
    """Inside, `fit` and its validation call these in the place of the functions that Keras
    compiles; yields a context within which it is Keras' own again.

    Args:
        train_function: Function of the state and an iterator over batches, as Keras has it on JAX:
            gives the logs and the state.
        test_function: The same for validation.
    """
    joint = {"train_function": train_function, "test_function": test_function}
    makers = {f"make_{name}": lambda force=False: None for name in joint}
    own = {name: getattr(model, name) for name in joint}
    attributes = model.__dict__  # past `Layer.__setattr__`, which takes as long as a step

    def join():
        attributes.update(joint | makers)

    def part():
        attributes.update(own)
        for name in makers:
            del attributes[name]

    @contextlib.contextmanager
    def alone():
        part()
        try:
            yield
        finally:
            own.update({name: attributes[name] for name in joint})
            join()

    join()
    try:
        yield alone
    finally:
        part()
