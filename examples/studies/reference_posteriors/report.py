"""The page of the rows: the references, and how far each sampler is from them."""

import json

import numpy as np

from examples.benchmarks.timing import last_rows
from examples.studies.common import pages
from examples.studies.common.results import Results
from examples.studies.common.tables import table
from examples.studies.reference_posteriors import references

KEY = ("posterior", "sampler", "batches", "gradients", "label")
NEAR, NARROWEST, WIDEST = 0.1, 0.9, 1.1  # of `off` and of `width`


def page(path):
    """The page beside the rows; of several labels all show what agrees, the last one everything."""
    rows = last_rows(Results(path).rows, KEY)
    labels = [label for (label,) in order(rows, "label")]
    last = [row for row in rows if row["label"] == labels[-1]]
    tables = {"references": reference_table(), "agreement": by_label(rows, labels)}
    tables |= {"off and width": by_run(last, off_and_width), "lppd": by_run(last, lppd)}
    return pages.with_tables(path, tables | {"gradients": gradients_table(last)})


def reference_table():
    lines = []
    for path in sorted(references.FOLDER.glob("*.npz")):
        with np.load(path) as stored:
            facts, density = json.loads(str(stored["facts"])), stored["log_density"]
        counts = [facts[name] for name in ("num_data", "num_weights", "draws", "divergent")]
        line = [path.stem, *(f"{count:,}" for count in counts), f"{facts['gradients_a_draw']:.0f}"]
        line += [f"{facts['r_hat']:.3f}", f"{facts['ess']:,.0f}", f"{facts['chain_off']:.3f}"]
        lines.append([*line, f"{density.mean():.3f}"])
    head = ["posterior", "rows", "weights", "draws a chain", "divergent", "gradients a draw"]
    return table([*head, "R-hat", "ESS", "chain off", "LPPD"], lines)


def by_label(rows, labels):
    if len(labels) == 1:
        return agreement(rows)
    parts = [(label, [row for row in rows if row["label"] == label]) for label in labels]
    return "\n\n".join(f"{label}:\n\n{agreement(mine)}" for label, mine in parts)


def agreement(rows):
    """In how many posteriors of those that were run a sampler is the posterior, as far as one
    sees."""
    runs = order(rows, "batches", "gradients")
    lines = []
    for (sampler,) in order(rows, "sampler"):
        cells = []
        for run in runs:
            mine = [r for r in rows if r["sampler"] == sampler and of(r, run)]
            cells.append(f"{sum(map(agrees, mine))} of {len(mine)}" if mine else "")
        lines.append([f"`{sampler}`", *cells])
    return table(["sampler", *(words(*run) for run in runs)], lines)


def agrees(row):
    is_sampled = not row["diverged"]
    return is_sampled and row["off"] <= NEAR and NARROWEST <= row["width"] <= WIDEST


def by_run(rows, cell):
    """A table for each kind of batches and number of gradients: samplers by posteriors."""
    parts = []
    for run in order(rows, "batches", "gradients"):
        mine = [row for row in rows if of(row, run)]
        parts.append(f"{words(*run).capitalize()}:\n\n{samplers_by_posteriors(mine, cell)}")
    return "\n\n".join(parts)


def samplers_by_posteriors(rows, cell):
    names = [name for (name,) in order(rows, "posterior")]
    lines = []
    for (sampler,) in order(rows, "sampler"):
        found = {row["posterior"]: row for row in rows if row["sampler"] == sampler}
        lines.append([f"`{sampler}`", *(cell(found[n]) if n in found else "" for n in names)])
    return table(["sampler", *names], lines)


def off_and_width(row):
    if row["diverged"]:
        return "diverged"
    shown = f"{row['off']:.2f}, {row['width']:.2f}"
    return f"**{shown}**" if agrees(row) else shown


def lppd(row):
    return "diverged" if row["diverged"] else f"{row['lppd_difference']:+.3f}"


def gradients_table(rows):
    """The fewest of all runs with these batches."""
    parts = []
    for run in order(rows, "batches"):
        mine, fewest = [row for row in rows if of(row, run)], {}
        for row in mine:
            place = row["posterior"], row["sampler"]
            found = row.get("gradients_until_enough") or np.inf
            fewest[place] = min(found, fewest.get(place, np.inf))

        def cell(row, fewest=fewest):
            found = fewest[row["posterior"], row["sampler"]]
            return f"{found:,}" if np.isfinite(found) else "never"

        parts.append(f"{words(*run).capitalize()}:\n\n{samplers_by_posteriors(mine, cell)}")
    return "\n\n".join(parts)


def order(rows, *keys):
    """The different values of these entries, in the order of the rows; numbers by size."""
    found = dict.fromkeys(tuple(row[key] for key in keys) for row in rows)
    return sorted(found, key=lambda v: v[-1]) if keys[-1] == "gradients" else list(found)


def of(row, run):
    return tuple(row[key] for key in ("batches", "gradients")[: len(run)]) == run


def words(batches, gradients=None):
    """Of a run."""
    kind = {"full": "full batches", "minibatch": "minibatches of 32"}[batches]
    return kind if gradients is None else f"{kind}, {gradients:,} gradients"
