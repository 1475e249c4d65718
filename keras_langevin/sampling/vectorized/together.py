"""Functions that train a model each, run so that what they `fit` is trained together."""

import contextlib
import sys
import warnings

from keras_langevin.keras_internals import intercepted_fit
from keras_langevin.sampling.vectorized.arguments_alike import difference
from keras_langevin.sampling.vectorized.joint_fit import joint_fit
from keras_langevin.sampling.vectorized.paused import PausedFunction


def run_together(function, numbers):
    """What `function(number)` returns for each of the chains, or the exception that it raised.

    Each runs until it calls `model.fit`. Where all that still run have done so, the models are
    trained as one program, and the functions go on, until the next `fit`. Chains whose `fit` has
    other arguments are trained after one another, and a warning says so.
    """
    with intercepted_fit(_ask), _kept_streams():
        functions = [PausedFunction(function, number) for number in numbers]
        try:
            for paused in functions:
                paused.resume()
            while any(not paused.is_done for paused in functions):
                for group in _groups(functions):
                    _train([functions[chain] for chain in group])
        finally:
            for paused in functions:
                paused.abandon()
    results = [paused.result for paused in functions]
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result  # such as the end of the program
    return results


@contextlib.contextmanager
def _kept_streams():
    """What the functions redirect or filter while others run ends with them."""
    filters, streams = warnings.filters[:], (sys.stdout, sys.stderr)
    try:
        yield
    finally:
        warnings.filters[:] = filters
        sys.stdout, sys.stderr = streams


def _ask(model, fit, arguments):
    """Stands as `fit` of every model."""
    paused = PausedFunction.current()
    return fit(model, **arguments) if paused is None else paused.ask((model, fit, arguments))


def _groups(functions):
    """Numbers of the chains that wait, those together whose `fit` has the same arguments."""
    groups, reasons = [], []
    for chain, paused in enumerate(functions):
        if paused.is_done:
            continue
        found = [_difference(functions[group[0]], paused) for group in groups]
        if None in found:
            groups[found.index(None)].append(chain)
        else:
            groups.append([chain])
            reasons += found[:1]
    if reasons:
        warnings.warn(
            "Chains are one program where their `fit` has the same data and arguments. Received: "
            f"other {reasons[0]} in some. Chains {_listed(groups)} run after one another. Make "
            "data sets outside of `train_fn`.",
            stacklevel=4,
        )
    return groups


def _listed(groups):
    return " and ".join(", ".join(map(str, group)) for group in groups)


def _difference(one, other):
    return difference(one.request[2], other.request[2])


def _train(members):
    model, fit, arguments = members[0].request
    with members[0].random_numbers():  # in whose order the data come
        if len(members) == 1:
            answers = [_result_or_error(fit, model, arguments)]
        else:
            answers = joint_fit([(*paused.request, paused.random_numbers) for paused in members])
    for paused, answer in zip(members, answers, strict=True):
        paused.resume(answer)


def _result_or_error(fit, model, arguments):
    try:
        return fit(model, **arguments)
    except Exception as error:
        return error
