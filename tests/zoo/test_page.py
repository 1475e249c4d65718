"""The page beside this file names every program."""

import pytest
from zoo.page import PAGE
from zoo.table import ROWS

pytestmark = pytest.mark.neutral


def test_every_program_is_on_the_page_and_none_failed():
    text = PAGE.read_text(encoding="utf-8")
    lines = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()]
    named = [line for line in lines if line in {row.name.replace("_", " ") for row in ROWS}]
    assert named == [row.name.replace("_", " ") for row in ROWS]
    assert "FAILS" not in text
