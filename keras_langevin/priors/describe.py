"""Which prior each variable of a model has, as a table to read."""

from keras_langevin.keras_arguments import built_model
from keras_langevin.keras_internals import inner_optimizer
from keras_langevin.priors.fan_in import DEFAULT
from keras_langevin.priors.roles import note_roles, role_of
from keras_langevin.weights import parameters


class Description(str):
    """Text that a notebook or an interpreter shows as it is, not in quotes."""

    __slots__ = ()

    def __repr__(self):
        return str(self)


def describe(model) -> Description:
    """The prior of every variable that is sampled, a line each: path, shape, prior, and what the
    variable was taken for, with the fan-in of a kernel.

    Of a model compiled with a sampler it is that sampler's prior, of any other the default prior.

    Args:
        model: A built `keras.Model`, compiled or not.

    Example:

    >>> network = keras.Sequential([keras.Input((100,)), keras.layers.Dense(5, name="logits")])
    >>> kl.priors.describe(network)
    variable                  shape     prior        of
    sequential/logits/kernel  (100, 5)  N(0, 0.6^2)  output kernel, fan-in 100
    sequential/logits/bias    (5,)      N(0, 1^2)    vector
    """
    built_model("model", model)
    note_roles(model)
    prior = getattr(inner_optimizer(getattr(model, "optimizer", None)), "prior", DEFAULT)
    lines = [("variable", "shape", "prior", "of")]
    for variable in parameters(model):
        shape, words = str(tuple(variable.shape)), str(prior.for_variable(variable))
        lines.append((variable.path, shape, words, str(role_of(variable))))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return Description(
        "\n".join(
            "  ".join(cell.ljust(n) for cell, n in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
    )
