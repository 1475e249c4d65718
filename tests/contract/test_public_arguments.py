"""Every public callable has a row with all its arguments, takes them, and refuses others."""

import inspect

import keras
import numpy as np
import pytest
from targets.public_api_cases import CALLS, MADE_BY_THE_PACKAGE, NAMES, ensemble, public_names
from targets.public_api_engine import look_after
from targets.rows import every_row


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Some calls write."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.neutral
def test_the_table_names_everything_public():
    assert {name for name in CALLS if attribute(name)} == set(public_names()) - MADE_BY_THE_PACKAGE


def attribute(name):
    """Whether it stands in an `__all__`, and is no method."""
    owner = name.rpartition(".")[0]
    return not owner or owner.islower()


@pytest.mark.neutral
@every_row("name", CALLS)
def test_every_argument_is_in_the_table(name):
    call = CALLS[name]
    parameters = inspect.signature(call.function(name)).parameters.values()
    named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    assert named - {"self"} <= set(call.valid()) | set(call.left_to_keras)


TAKEN_HERE = [
    name
    for name, call in CALLS.items()
    if not call.needs_tensorflow or keras.backend.backend() == "tensorflow"
]


@every_row("name", TAKEN_HERE)
def test_valid_arguments_are_taken(name):
    call = CALLS[name]
    look_after(call.function(name)(**call.valid()))


@pytest.mark.neutral
@every_row("name", CALLS)
def test_unknown_and_missing_arguments_are_a_type_error(name):
    call = CALLS[name]
    function = call.function(name)
    with pytest.raises(TypeError, match=r"unexpected keyword|takes no arguments"):
        function(**call.valid(), no_such_argument=1)
    required = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    for one in required:
        with pytest.raises(TypeError, match="missing 1 required"):
            function(**{key: value for key, value in call.valid().items() if key != one})


# What no argument takes whose valid value is of that type.
OF_ANOTHER_TYPE = {
    bool: ["no", "", 0, 1, 1.0, np.array(True), [True]],
    int: [True, "1", 1.5, np.nan, np.array([1, 2]), [1], 2**70 + 0.5, 1j],
    float: [True, "1", np.nan, -np.inf, np.array([1.0, 2.0]), [1.0], 1j, 10**400],
    str: [True, 1, 1.5, b"x", ["x"], np.array(["x", "y"])],
    np.ndarray: ["abc", {"a": 1}, [[1], [1, 2]], np.array([{}]), np.array(["x", "y"]), 1j],
}


@pytest.mark.neutral
@every_row("name", NAMES)
def test_values_of_another_type_are_refused(name):
    """None of them in silence, and None only where it is the default."""
    call = CALLS[name]
    function, valid = call.function(name), call.valid()
    parameters = inspect.signature(function).parameters
    for argument, value in valid.items():
        wrong = list(OF_ANOTHER_TYPE.get(type(value), []))
        default = parameters[argument].default if argument in parameters else None
        if default is not None and wrong:
            wrong.append(None)
        for one in wrong:
            if isinstance(as_scalar(one), call.takes.get(argument, ())):
                continue
            with pytest.raises(ValueError, match="Received"):
                function(**{**call.valid(), argument: one})
                pytest.fail(f"{name}({argument}={one!r}) is accepted")


@every_row(
    "wrong",
    [{"training_data": 1}, {"batch_size": 0}, {"model": "m"}, {"html": 3}, {"verbose": "yes"}],
)
def test_a_report_refuses_before_it_computes(wrong):
    with pytest.raises(ValueError, match="Received"):
        ensemble().report(object(), object(), **wrong)


def as_scalar(value):
    return value.flat[0] if isinstance(value, np.ndarray) else value
