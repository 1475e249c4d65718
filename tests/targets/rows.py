"""A table as one test: every row is run, and all that fail are named."""

import functools
import inspect

import pytest

LONGEST = 600  # characters of a row's error
FAILURES = (Exception, pytest.fail.Exception, pytest.skip.Exception)  # no row skips the others


def every_row(names, rows):
    """Runs a test for all rows in turn, where `pytest.mark.parametrize` would make a case of each.

    A case costs its collection in each worker and the set-up of its fixtures, a row costs
    nothing. For tables of quick calls: the fixtures of the test are those of all rows. Over each
    other, as marks are, two tables are run for all pairs of their rows.

    Args:
        names: Arguments of the test that a row gives, as "probabilities, labels".
        rows: Their values, one for each name; the value alone where there is one name. These are
            what a failure shows: a row of lambdas needs a name before them.
    """
    names = [name.strip() for name in names.split(",")]
    rows = [dict(zip(names, row if len(names) > 1 else (row,), strict=True)) for row in rows]
    assert rows, "a table without rows tests nothing"

    def decorate(test):
        inner = getattr(test, "rows", [{}])
        return _loop(getattr(test, "row_test", test), [{**a, **b} for a in rows for b in inner])

    return decorate


def _loop(test, rows):
    @functools.wraps(test)
    def run(**fixtures):
        __tracebackhide__ = True
        failures, cause = [], None
        for row in rows:
            try:
                test(**row, **fixtures)
            except FAILURES as error:
                failures.append(f"- {_shown(row)}\n    {type(error).__name__}: {error}"[:LONGEST])
                cause = cause or error
        if failures:
            heading = f"{len(failures)} of {len(rows)} rows fail:"
            raise AssertionError("\n".join([heading, *failures])) from cause

    del run.__wrapped__  # whose arguments are not those of `run`
    signature = inspect.signature(test)
    fixtures = [p for name, p in signature.parameters.items() if name not in rows[0]]
    run.__signature__ = signature.replace(parameters=fixtures)
    run.rows, run.row_test = rows, test
    return run


def _shown(row):
    shown = (f"{name}={getattr(value, '__name__', repr(value))}" for name, value in row.items())
    return ", ".join(shown)[:200]
