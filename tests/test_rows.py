"""A table as one test fails for each wrong row, and says for which."""

import pytest
from targets.rows import every_row


@pytest.fixture
def limit():
    return 2


def test_one_wrong_row_fails_the_test_and_the_others_are_run(limit):
    run = []

    @every_row("value, other", [(1, 1), (2, 3), (4, 4)])
    def test(value, other, limit):
        run.append(value)
        assert value == other and value != 4 * limit

    with pytest.raises(AssertionError, match=r"1 of 3 rows fail:\n- value=2, other=3\n *Assertion"):
        test(limit=limit)
    assert run == [1, 2, 4]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: pytest.fail("words"),
        lambda: pytest.skip("words"),
        lambda: (_ for _ in ()).throw(KeyError("words")),
    ],
)
def test_whatever_ends_a_row_is_a_failure(wrong):
    @every_row("call", [list, wrong])
    def test(call):
        call()

    with pytest.raises(AssertionError, match=r"1 of 2 rows fail.*\n.*\n.*words"):
        test()


def test_a_refusal_that_is_missing_is_a_failure():
    @every_row("value", ["1", "one"])
    def test(value):
        with pytest.raises(ValueError):
            int(value)

    with pytest.raises(AssertionError, match=r"1 of 2 rows fail:\n- value='1'\n.*DID NOT RAISE"):
        test()


def test_tables_over_each_other_are_all_pairs():
    pairs = []

    @every_row("first", [1, 2])
    @every_row("second", "ab")
    def test(first, second):
        pairs.append((first, second))

    test()
    assert pairs == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


@every_row("value", [1, 2])
def test_fixtures_are_those_of_pytest(value, limit):
    assert value <= limit


def test_a_table_of_nothing_is_refused():
    with pytest.raises(AssertionError, match="tests nothing"):
        every_row("value", [])
