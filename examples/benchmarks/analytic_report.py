"""The page of `analytic.py`."""

import collections

import numpy as np

from examples.benchmarks.analytic_targets import NOISES, TARGETS
from examples.studies.common import pages
from examples.studies.common.results import Results

# Sommer et al. (2026), arXiv:2602.06500: mean ± population standard deviation of seven chains.
PAPER_METHODS = ("SMILE-naive", "SGLD", "SGHMC", "pSMILE-naive")
TUNED = "pSMILE"
TUNED = "pSMILE"
PAPER = {
    ("ICG", "isotropic"): (".003±.001", ".033±.006", ".095±.033", ".006±.001"),
    ("ICG", "diagonal"): (".245±.027", ".184±.021", ".186±.020", ".038±.008"),
    ("ICG", "correlated"): (".502±.194", ".189±.029", ".235±.067", ".055±.007"),
    ("ICG", "spatial"): (".157±.010", ".328±.011", ".331±.011", ".093±.019"),
    ("Rosenbrock", "isotropic"): (".002±.001", ".005±.001", ".004±.002", ".004±.001"),
    ("Rosenbrock", "diagonal"): (".302±.111", ".085±.007", ".160±.027", ".046±.002"),
    ("Rosenbrock", "correlated"): (".265±.042", ".074±.007", ".085±.014", ".070±.005"),
    ("Rosenbrock", "spatial"): (".048±.005", ".079±.013", ".095±.013", ".052±.005"),
    ("Funnel", "isotropic"): (".014±.005", ".141±.019", ".128±.019", ".021±.005"),
    ("Funnel", "diagonal"): (".283±.146", ".063±.017", ".077±.039", ".042±.012"),
    ("Funnel", "correlated"): (".453±.231", ".147±.034", ".138±.039", ".004±.002"),
    ("Funnel", "spatial"): (".023±.008", ".241±.043", ".218±.034", ".012±.003"),
}

INTRODUCTION = """# Samplers under noisy gradients: densities with known moments

The benchmark of E. Sommer, K. Diao, J. Robnik, U. Seljak, D. Rügamer, "Can Microcanonical Langevin
Dynamics Leverage Mini-Batch Gradient Noise?", arXiv:2602.06500 (2026), through the optimizers of
this package: an ill-conditioned Gaussian (ICG), a Rosenbrock density and a funnel in ten
dimensions. Gradients are exact up to the noise of a sum over 256 rows of data with covariance I
(isotropic), spreads from 0.1 to 10 along the axes (diagonal) or along random directions
(correlated); spatial noise is correlated and depends on the position as well.

The score is b²_avg, the squared error of a chain's E[xᵢ²] over Var[xᵢ²], mean over i; smaller is
better. It uses every tenth point from the first on, burn-in included. *At rest* is the score of a
chain that never leaves its start. A score of that size says nothing about sampling, and one below
it may be that of a chain which has not gone far: see the distances.

All methods have one gradient a step and equally many steps (SMILE of the published code has two a
step, its pSMILE three). The learning rate of a cell, and SGHMC's momentum, is that with the best
mean score of {choosing} chains; reported are {reporting} other chains, mean ± standard error. The
paper's ± is the standard deviation over chains; how its step sizes were chosen is not known here.
SMILE's learning rate is the distance moved per step, its decoherence length 1000. Rates below 1e-5
are not tried: single precision would round such moves away. pSMILE tunes its rate in the first
fifth of the steps, which count in the score, to an energy error of 1e-4. Chains of one seed share
the noise of their gradients in all methods, rates and cells, so that entries are not independent.

    python -m examples.benchmarks.analytic --targets all --steps {steps}{variant}

{made_by}; one thread."""


def page(path):
    """The text of the page of the rows in this file."""
    rows = Results(path).rows
    reported = [row for row in rows if row["phase"] == "report"]
    if not reported:
        raise SystemExit(f"{path} has no reported rows yet: run without --report first.")
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row["start"], row["steps"]].append(row)
    parts = [introduction(rows, reported), *pages.findings(path)]
    for start, steps in sorted(groups, key=lambda group: (group[0], -group[1])):
        parts += section(start, steps, Cells(groups[start, steps]))
    return "\n\n".join(parts) + "\n"


def introduction(rows, reported):
    choosing = next((len(row["seeds"]) for row in rows if row["phase"] == "choose"), "no")
    return INTRODUCTION.format(
        choosing=choosing,
        reporting=len(reported[0]["seeds"]),
        steps=max(row["steps"] for row in reported),
        variant=" [--start target]" if any(r["start"] == "target" for r in reported) else "",
        made_by="; ".join(sorted({row["made_by"] for row in reported})),
    )


def is_tuned(row):
    return row["method"] == TUNED


def mean_score(row):
    """Infinite where a chain is not finite."""
    return float(np.mean([np.inf if score is None else score for score in row["score"]]))


class Cells:
    """The rows of one table.

    Attributes:
        keys: (target, noise), in the order of the paper.
        methods: Names of the methods with one reported row a cell.
        reported: Row by (target, noise, method).
        tuned: Rows of the tuned method by (target, noise), smallest start first.
    """

    def __init__(self, rows):
        self.rows = rows
        reported = [row for row in rows if row["phase"] == "report"]
        found = {(row["target"], row["noise"]) for row in reported}
        self.keys = [(t, n) for t in TARGETS for n in NOISES if (t, n) in found]
        self.methods = [m for m in PAPER_METHODS if any(row["method"] == m for row in reported)]
        self.reported = {
            (row["target"], row["noise"], row["method"]): row
            for row in reported
            if not is_tuned(row)
        }
        self.tuned = collections.defaultdict(list)
        for row in sorted(filter(is_tuned, reported), key=lambda row: row["learning_rate"]):
            self.tuned[row["target"], row["noise"]].append(row)

    def table(self, shown, reference=None, with_paper=False):
        """Of `shown(row)`, a column a method, the tuned one from its smallest start. `reference` is
        a title and a function of (target, noise) for a column before those."""
        columns = [] if reference is None else [reference]
        for method in self.methods:
            columns.append((method, lambda *key, m=method: self._shown(shown, (*key, m))))
            if with_paper:
                place = PAPER_METHODS.index(method)
                columns.append(("paper", lambda *key, i=place: PAPER[key][i]))
        if self.tuned:
            columns.append((TUNED, lambda *key: "".join(map(shown, self.tuned[key][:1]))))
        head = ["target", "noise", *(title for title, _ in columns)]
        return table(head, [[*key, *(f(*key) for _, f in columns)] for key in self.keys])

    def _shown(self, shown, key):
        return shown(self.reported[key]) if key in self.reported else ""

    def is_at_edge(self, row):
        """The chosen learning rate is the smallest or largest that was tried."""
        names = ("target", "noise", "method", "settings")
        rates = [
            r["learning_rate"]
            for r in self.rows
            if r["phase"] == "choose" and all(r[name] == row[name] for name in names)
        ]
        return row["learning_rate"] in (min(rates), max(rates))


def section(start, steps, cells):
    """Headings, tables and sentences of one start and length."""
    where = {"published": "the published start", "target": "a draw from the target"}[start]
    parts = [f"## From {where}, {steps:,} steps"]
    if start == "published":
        parts.append("Score, beside it that of the paper after 1,000,000 steps:")
        parts.append(cells.table(score, ("at rest", at_rest), with_paper=True))
    else:
        parts += ["Score; a chain at rest has 1 on average:", cells.table(score)]
    parts += findings(start, cells)
    parts += [
        "Chosen learning rate (with the momentum of SGHMC; * the smallest or largest that was "
        "tried); of pSMILE the step size in the end:",
        cells.table(lambda row: learning_rate(row, cells)),
        "Distance travelled, and how much of the slowest direction was seen, largest minus "
        "smallest value in standard deviations:",
        cells.table(movement),
        "Score without the first fifth of the steps, at the same learning rates:",
        cells.table(lambda row: score(row, "late_score")),
    ]
    if cells.tuned:
        parts += ["pSMILE from each of its starts:", tuned_table(cells)]
    return parts


# ------------------------------------------------------------------------------------- cells


def score(row, name="score"):
    finite = [value for value in row[name] if value is not None]
    if len(finite) < len(row[name]):
        return f"{len(row[name]) - len(finite)} of {len(row[name])} not finite"
    mean = np.mean(finite)
    digits = 3 if mean >= 0.01 else 4
    return f"{mean:.{digits}f} ± {standard_error(row, name):.{digits}f}"


def standard_error(row, name="score"):
    return float(np.std(row[name], ddof=1) / len(row[name]) ** 0.5)


def at_rest(target, noise=None):
    found = TARGETS[target]
    return f"{found.bias(found.start**2):.3f}"


def learning_rate(row, cells):
    if is_tuned(row):
        return spread(row["step_size"])
    momentum = f", {row['settings']['momentum']:g}" if row["settings"] else ""
    return f"{row['learning_rate']:.2g}{momentum}{' *' if cells.is_at_edge(row) else ''}"


def spread(values):
    """One number where they agree to two digits, else the smallest and the largest."""
    if None in values:
        return "not finite"
    low, high = (f"{value:.2g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def movement(row):
    if None in row["distance"]:
        return "not finite"
    return f"{np.mean(row['distance']):,.0f}; {np.mean(row['span']):.1f}"


def tuned_table(cells):
    head = ["target", "noise", "start", "step size in the end", "score", "% of steps taken back"]
    lines = []
    for key in cells.keys:
        for row in cells.tuned[key]:
            taken_back = 100 * np.mean(row["rejected_steps"]) / row["steps"]
            cells_of_row = [f"{row['learning_rate']:g}", spread(row["step_size"]), score(row)]
            lines.append([*key, *cells_of_row, f"{taken_back:.2g}"])
    return table(head, lines)


def table(head, lines):
    """In Markdown; two columns hold words, the others numbers."""
    rules = ["---"] * 2 + ["---:"] * (len(head) - 2)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rules, *lines])


# ---------------------------------------------------------------------------------- sentences


def findings(start, cells):
    sentences = [compared("pSMILE-naive", other, cells) for other in PAPER_METHODS[:-1]]
    if start == "published":
        sentences.append(not_better_than_rest(cells))
    return [" ".join(filter(None, sentences))]


def compared(method, other, cells):
    """In how many cells the method's score is the lower one, and by two standard errors."""
    keys = [key for key in cells.keys if key[1] != "isotropic"]
    pairs = [(cells.reported.get((*k, method)), cells.reported.get((*k, other))) for k in keys]
    pairs = [pair for pair in pairs if None not in pair]
    if not pairs:
        return ""
    gaps = np.array([mean_score(b) - mean_score(a) for a, b in pairs])
    errors = np.array([np.hypot(standard_error(a), standard_error(b)) for a, b in pairs])
    return (
        f"Of the {len(pairs)} cells with other than isotropic noise {method} scores lower than "
        f"{other} in {sum(gaps > 0)}, by more than two standard errors in "
        f"{sum(gaps > 2 * errors)}; higher by as much in {sum(gaps < -2 * errors)}."
    )


def not_better_than_rest(cells):
    rows = [*cells.reported.values(), *(rows[0] for rows in cells.tuned.values())]
    bad = collections.Counter(
        row["method"] for row in rows if mean_score(row) >= float(at_rest(row["target"]))
    )
    if not bad:
        return "No mean score is as large as that of a chain at rest."
    counts = ", ".join(f"{name} {count}" for name, count in bad.items())
    return f"Cells in which a method is no better than a chain at rest: {counts}."
