"""Files that texts of the project name are there."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PATHS = re.compile(
    r"\b(?:tests|examples|keras_langevin|docs)/[\w/.-]*\w\.(?:py|md|jsonl|csv|json|png|c)\b"
)
LINKS = re.compile(r"\]\((?!https?:)([^)#]+)")


def texts():
    yield from ROOT.glob("*.md")
    for folder in ("keras_langevin", "tests", "examples"):
        for ending in ("*.py", "*.md"):
            yield from (ROOT / folder).rglob(ending)


def missing(text, folder):
    """Paths in the text that are no file: from the root, or in a link from the text's folder."""
    named = {path for path in PATHS.findall(text) if not (ROOT / path).exists()}
    linked = {link for link in LINKS.findall(text) if not (folder / link.strip()).exists()}
    return named, linked


def test_every_file_that_is_named_exists():
    wrong = {}
    for path in texts():
        named, linked = missing(path.read_text(encoding="utf-8"), path.parent)
        found = named | (linked if path.suffix == ".md" else set())
        if found:
            wrong[str(path.relative_to(ROOT))] = sorted(found)
    assert not wrong


def test_a_file_that_is_not_there_is_found():
    absent = "/".join(["tests", "no_such_test.py"])
    text = f"see `{absent}` and [a page](no_such_page.md), [this](README.md)"
    assert missing(text, ROOT) == ({absent}, {"no_such_page.md"})
