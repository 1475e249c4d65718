"""Writes every page of the studies and benchmarks again from its rows, and the tables that the
README takes from them. Nothing is run.

    python -m examples.studies.pages
    python -m examples.studies.pages --check    fails if a page is not what its rows give
"""

import argparse
from pathlib import Path

from examples.benchmarks import (
    analytic,
    effective_samples,
    many_chains,
    memory,
    noise_quality,
    planning,
    predict,
    scaling,
    serving,
    soak,
    step_time,
)
from examples.studies import readme_tables
from examples.studies.bnp import bandit, resnet, simulation
from examples.studies.common import pages
from examples.studies.default_settings import default_settings
from examples.studies.mnist import report as natural_langevin
from examples.studies.momentum import images, language, regression
from examples.studies.natural_gradient import figures
from examples.studies.programs import programs
from examples.studies.reference_posteriors import report as reference_posteriors
from examples.studies.stopping import stopping
from examples.studies.ten_problems import ten_problems

EXAMPLES = Path(__file__).parents[1]
ROOT = EXAMPLES.parent
PAGES = {
    "benchmarks/analytic.jsonl": analytic.page,
    "benchmarks/effective_samples.jsonl": effective_samples.page,
    "benchmarks/many_chains.jsonl": many_chains.page,
    "benchmarks/memory.jsonl": memory.page,
    "benchmarks/noise_quality.jsonl": noise_quality.page,
    "benchmarks/planning.jsonl": planning.page,
    "benchmarks/predict.jsonl": predict.page,
    "benchmarks/scaling.jsonl": scaling.page,
    "benchmarks/serving.jsonl": serving.page,
    "benchmarks/soak.jsonl": soak.page,
    "benchmarks/step_time.jsonl": step_time.page,
    "studies/bnp/bandit.jsonl": bandit.page,
    "studies/bnp/resnet.jsonl": resnet.page,
    "studies/bnp/simulation.jsonl": simulation.page,
    "studies/default_settings/default_settings.jsonl": default_settings.page,
    "studies/mnist/natural_langevin.csv": natural_langevin.page,
    "studies/momentum/images.jsonl": images.page,
    "studies/momentum/language.jsonl": language.page,
    "studies/momentum/regression.jsonl": regression.page,
    "studies/natural_gradient/figures.jsonl": figures.page,
    "studies/programs/programs.jsonl": programs.page,
    "studies/reference_posteriors/reference_posteriors.jsonl": reference_posteriors.page,
    "studies/stopping/stopping.jsonl": stopping.page,
    "studies/ten_problems/ten_problems.jsonl": ten_problems.page,
}


def texts():
    """What every page should say, by its path."""
    found = {}
    for rows, page in PAGES.items():
        path = EXAMPLES / rows
        found[path.with_suffix(".md")] = page(path)
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        text = path.read_text(encoding="utf-8")
        found[path] = pages.filled(text, readme_tables.tables(EXAMPLES, pages.names(text)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    stale = {p: t for p, t in texts().items() if p.read_text(encoding="utf-8") != t}
    for path, text in stale.items():
        print(f"{path.relative_to(ROOT)}: not what its rows give" if options.check else path)
        if not options.check:
            path.write_text(text, encoding="utf-8")
    if options.check and stale:
        raise SystemExit("Run `make pages`.")


if __name__ == "__main__":
    main()
