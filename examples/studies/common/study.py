"""The course of a study whose command is started again until all of its rows are there."""

from examples.studies.common import pages
from examples.studies.common.results import Results


def run_all(options, names, run, report, page):
    """Runs what the file of rows lacks, prints the tables and writes the page.

    Args:
        options: Of the command line: `results`, the file; `seeds`, how many; `report`, whether
            nothing is run.
        names: What is run for each seed.
        run: Called with a name, a seed, the options and the `Results`, to which it adds.
        report: Makes the text to print of the rows.
        page: As of `pages.write`.
    """
    results = Results(options.results)
    for seed in [] if options.report else range(options.seeds):
        for name in names:
            run(name, seed, options, results)
    print(report(results.rows))
    pages.write(page, results.path)
