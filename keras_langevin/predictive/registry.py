"""Which likelihoods are known: tables from a compiled loss, and from a name, to a family."""

import keras

from keras_langevin.arguments import boolean, shorten
from keras_langevin.predictive.family import Family

_BY_NAME = {}  # what `output=` takes
_BY_LOSS = {}  # classes of losses, and functions; of classes, whether exactly that one


def register_family(loss=(), replace=False, exact=False):
    """Class decorator: a `Family` for the models that are compiled with a loss.

    An ensemble, a report and a sampler with `fisher="model"` then know what the outputs of such a
    model mean; `output=` takes the family's names for models compiled with another loss.

    Args:
        loss: A `keras.losses.Loss` subclass, a function of `(y_true, y_pred)`, or the name that
            `compile` takes for it; or a tuple of them; `()` for a family known by name alone. Of
            a class, its subclasses count too, as long as they inherit `call`.
        replace: Registering a loss or a name twice is an error unless this is True.
        exact: Whether subclasses do not count.

    Raises:
        ValueError: If a loss is none, the decorated class no `Family` with a name, or another
            family has the loss or the name.

    Example:

    ```python
    import keras
    import keras_langevin as kl
    from keras import ops

    class ExponentialNLL(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(y_true * ops.exp(-y_pred) + y_pred, axis=-1)

    @kl.predictive.register_family(ExponentialNLL)
    class Exponential(kl.predictive.Family):
        output, meaning = "log_waiting_times", "logarithms of mean waiting times"
        sums_units = False

        def parameters(self, outputs):
            return ops.exp(outputs)

        def mean(self, waiting_time):
            return waiting_time

        def variance(self, waiting_time):
            return ops.square(waiting_time)

        def log_likelihood(self, outputs, y):
            return -y * ops.exp(-outputs) - outputs

        def cdf(self, waiting_time, y):
            return 1 - ops.exp(-y / waiting_time)
    ```
    """
    losses = [_checked_loss(one) for one in (loss if isinstance(loss, tuple) else (loss,))]
    boolean("replace", replace)
    boolean("exact", exact)

    def register(family_class):
        names = family_class.choices() if _is_class(family_class, Family) else {}
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(
                "A family must be a subclass of `kl.predictive.Family` that says the name of its "
                f'outputs. Received: {shorten(family_class)}. Write `output = "log_rates"` and '
                "a `meaning` in the class."
            )
        for table, keys in ((_BY_LOSS, losses), (_BY_NAME, names)):
            for key in keys:
                before = _class_in(table.get(key))
                if before is not None and not (replace or _is_written_again(family_class, before)):
                    raise ValueError(
                        f"A family for {_name(key)} is registered already: {before.__name__}. "
                        f"Received: {family_class.__name__}. Pass `replace=True` to put yours in "
                        "its place."
                    )
        _BY_LOSS.update(dict.fromkeys(losses, (family_class, exact)))
        _BY_NAME.update(dict.fromkeys(names, family_class))
        return family_class

    return register


def family_named(output):
    """The class of the families that have this name, or ValueError."""
    if not isinstance(output, str) or output not in _BY_NAME:
        raise ValueError(
            f"`output` must be one of:\n{choices()}\nReceived: output={shorten(output)}."
        )
    return _BY_NAME[output]


def find_family(loss):
    """The family that a loss, as `compile` takes it, stands for; None where that is not certain."""
    loss = keras.losses.get(loss)
    if not isinstance(loss, keras.losses.Loss):
        found = _BY_LOSS.get(loss) if callable(loss) else None
        return None if found is None else found[0].from_loss(loss)
    for cls in type(loss).__mro__:
        if cls in _BY_LOSS:
            family, exact = _BY_LOSS[cls]
            differs = cls is not type(loss) and (exact or type(loss).call is not cls.call)
            return None if differs else family.from_loss(loss)
    return None


def choices(activation=None):
    """The names that `output=` takes and their meanings, a line each: of models whose last layer
    has this activation, where it is known."""
    return "\n".join(
        f'  "{name}": {cls.choices()[name]}'
        for name, cls in _BY_NAME.items()
        if not _is_impossible(cls, name, activation)
    )


def _is_impossible(cls, name, activation):
    if activation is None:
        return False
    known = cls.impossible_activations
    if isinstance(known, property):  # it depends on the name
        known = cls.from_name(name).impossible_activations
    return activation in known


def _checked_loss(loss):
    found = loss
    if isinstance(loss, str):
        try:
            found = keras.losses.get(loss)
        except ValueError:
            found = None
    is_function = callable(found) and not isinstance(found, (type, keras.losses.Loss))
    if not is_function and not _is_class(found, keras.losses.Loss):
        raise ValueError(
            "`loss` must be a subclass of `keras.losses.Loss`, a function, the name of one, or a "
            f"tuple of them. Received: loss={shorten(loss)}. Pass the class, not an object of it."
        )
    return found


def _is_class(value, parent):
    return isinstance(value, type) and issubclass(value, parent)


def _class_in(entry):
    return entry[0] if isinstance(entry, tuple) else entry


def _is_written_again(cls, before):
    """A class statement that ran twice, as in the cell of a notebook."""
    return (cls.__module__, cls.__qualname__) == (before.__module__, before.__qualname__)


def _name(key):
    return f'output="{key}"' if isinstance(key, str) else key.__name__
