"""Pages of studies and benchmarks: what stands in them between two marks is made from rows."""

import re

MARKED = re.compile(r"(<!-- rows: (.*?) -->\n).*?(<!-- end of rows -->)", re.DOTALL)


def write(page, rows):
    """Writes the page beside its rows and says where it is.

    Args:
        page: Function that gives the text of the page, of the path of the rows.
        rows: `Path` of the file of rows. The page has its name, and ends in `.md`.
    """
    path = rows.with_suffix(".md")
    path.write_text(page(rows), encoding="utf-8")
    print(f"Page {path}")


def with_tables(rows, tables):
    """The page beside the rows with these tables between its marks; where there is no page yet, a
    page of the tables alone.

    Args:
        rows: `Path` of the file of rows.
        tables: Markdown by the name that the mark gives.
    """
    path = rows.with_suffix(".md")
    if path.exists():
        text = path.read_text(encoding="utf-8")
    else:
        text = "\n\n".join(f"<!-- rows: {name} -->\n<!-- end of rows -->" for name in tables) + "\n"
    missing = tables.keys() - names(text)
    if missing:
        raise SystemExit(
            f"Every table must have its place in {path}. Received: no mark "
            f"`<!-- rows: NAME -->` for {', '.join(sorted(missing))}."
        )
    return filled(text, tables)


def names(text):
    """Of the tables that have marks in the text."""
    return {name for _, name, _ in MARKED.findall(text)}


def filled(text, tables):
    """The text with each table between the marks that name it, `<!-- rows: NAME -->` and
    `<!-- end of rows -->`."""
    return MARKED.sub(lambda m: f"{m[1]}\n{tables[m[2]].strip()}\n\n{m[3]}", text)


def findings(rows):
    """What a person wrote about the rows, in `..._findings.txt` beside them; a list of one text, or
    of none."""
    path = rows.with_name(f"{rows.stem}_findings.txt")
    return [path.read_text(encoding="utf-8").strip()] if path.exists() else []
