"""Page and drawings of `figures.py`."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from examples.studies.common import pages
from examples.studies.common.results import Results
from examples.studies.common.tables import table

EPOCHS = "NGD, shuffled epochs"
TITLES = {
    2: "Figure 2: 64 weights, full-batch Langevin dynamics with Gaussian noise",
    3: "Figure 3: 64 weights, NGD",
    4: "Figure 4: MLP, N up to 1,024",
    5: "Figure 5: MLP, N up to 4,096",
}


def page(path, samplers):
    """The page beside the rows, with its tables."""
    return pages.with_tables(path, {"all": report(Results(path).rows, samplers)})


def report(rows, samplers):
    parts = []
    chains = two_weights(rows, samplers)
    if chains:
        parts += ["## Figure 1: two weights", *two_weights_report(rows, chains, samplers)]
    for title, study in studies(rows, longest(rows)):
        parts += [f"## {title}", *study_report(study)]
    return "\n\n".join(parts)


def draw_all(rows, path, samplers):
    """Writes the drawings beside the file of rows."""
    chains = two_weights(rows, samplers)
    if chains:
        draw_two_weights(rows, chains, samplers, picture(path, "1"))
    regressions = {f: select(rows, figure=f, burn_in=longest(rows)) for f in (2, 3)}
    if all(regressions.values()):
        draw(regressions, "temperature", picture(path, "2_3"))
    for figure in (4, 5):
        found = {s: r for s, r in settings(rows, figure).items() if len(by_axis(r)) > 2}
        if found:
            draw(found, "batch_size", picture(path, str(figure)))


def longest(rows):
    """Burn-in among the runs of figures 2 and 3."""
    return max((r["burn_in"] for r in rows if r["figure"] in (2, 3)), default=0)


def picture(path, name):
    return path.with_name(f"{path.stem}_{name}.png")


def select(rows, **key):
    return [r for r in rows if key.items() <= r.items() and "ensemble_loss" in r]


def studies(rows, burn_in):
    """Pairs of a title and rows that differ in temperature or batch size and seed."""
    for figure in (2, 3):
        study = select(rows, figure=figure, burn_in=burn_in)
        if study:
            yield TITLES[figure], study
    for figure in (4, 5):
        for setting, study in settings(rows, figure).items():
            yield f"{TITLES[figure]}; {setting}", study


def settings(rows, figure):
    """Rows of one figure by their setting in words, the most rows first."""
    groups = {}
    for row in select(rows, figure=figure):
        scale = ", features of unit sd" if row["scaled"] else ", raw features"
        steps = f"{row['burn_in']} + {row['burn_in']} steps"
        words = f"{row['dataset']}, prior precision {row['precision']:.3g}{scale}, {steps}"
        groups.setdefault(words, []).append(row)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def mean_and_error(values):
    values = np.asarray(values, "float64")
    error = values.std(axis=0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return values.mean(axis=0), error


def printed(values, digits=4):
    mean, error = mean_and_error(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    if abs(mean) > 100:
        return f"{mean:.2g} ± {error:.1g}"
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


# ----------------------------------------------------------------------------------- figure 1


def two_weights(rows, samplers):
    """Lists of moments, one a chain, by sampler and way of reading it."""
    found = [r for r in rows if r["figure"] == 1 and r["sampler"] != "exact"]
    longest = max((r["burn_in"] for r in found), default=0)
    chains = {}
    for name in samplers:
        mine = [r for r in found if r["sampler"] == name and r["burn_in"] == longest]
        if name == EPOCHS:
            chains[f"{name}, read at all steps"] = mine
            chains[f"{name}, read at their ends"] = [r["ends"] for r in mine]
        else:
            chains[name] = mine
    return {name: mine for name, mine in chains.items() if mine}


def exact_row(rows):
    return next(r for r in rows if r["figure"] == 1 and r["sampler"] == "exact")


def power_of(values, exact):
    """The a whose exp(−C) |M|^a has this mean of the first weight, with its standard error."""
    none, full = (exact[f"power {power}"]["mean"][0] for power in (0, 1))
    mean, error = mean_and_error(values)
    return (none - mean) / (none - full), error / (none - full)


def two_weights_report(rows, chains, samplers):
    exact = exact_row(rows)
    lines = []
    laws = {"Laplace": {"mean": exact["mode"], "covariance": exact["covariance"]}}
    laws |= {f"exp(−C) \\|M\\|^{p}": exact[f"power {p}"] for p in ("0", "0.5", "1")}
    for name, law in laws.items():
        (a, b), deviations = law["mean"], np.sqrt(np.diag(law["covariance"]))
        numbers = [f"{a:.3f}", f"{deviations[0]:.3f}", f"{b:.3f}", f"{deviations[1]:.3f}"]
        shift = "" if name == "Laplace" else f"{a - exact['power 1']['mean'][0]:.3f}"
        lines.append([name, "", "", *numbers, "", shift])
    for name, mine in chains.items():
        means = np.array([r["mean"] for r in mine])
        deviations = np.array([np.sqrt(np.diag(r["covariance"])) for r in mine])
        size = sum(r["size"][0] for r in mine)
        power, error = power_of(means[:, 0], exact)
        columns = (means[:, 0], deviations[:, 0], means[:, 1], deviations[:, 1])
        numbers = [printed(column, 3) for column in columns]
        numbers += [f"{power:.2f} ± {error:.2f}", correction(name, mine, chains)]
        lines.append([name, len(mine), f"{size:.0f}", *numbers])
    head = ["law or sampler", "chains", "effective draws", "mean ω₁", "sd ω₁", "mean ω₂", "sd ω₂"]
    head += ["power of \\|M\\|", "mean ω₁ less the uncorrected one"]
    yield table(head, lines)
    one, two = exact["noise"]
    yield (
        "At the mode the gradients of these 1,000 labels, with the completion noise, have "
        f"{one:.3f} (ω₁) and {two:.3f} (ω₂) of the variance δ + F that the temperature of a "
        f"minibatch sampler supposes: standard deviations of {one**0.5:.3f} and {two**0.5:.3f}."
    )


def correction(name, mine, chains):
    """What a correction moves the mean by, chain by chain with the noise of the uncorrected."""
    uncorrected = "Langevin, uncorrected" if name.startswith("Langevin") else "NGD"
    others = chains.get(uncorrected, [])
    if name == uncorrected or EPOCHS in name or len(mine) != len(others):
        return ""
    pairs = zip(mine, others, strict=True)
    return printed([a["mean"][0] - b["mean"][0] for a, b in pairs], 3)


def ellipse(mean, covariance, deviations=3.0):
    angles = np.linspace(0, 2 * np.pi, 200)
    circle = deviations * np.stack([np.cos(angles), np.sin(angles)])
    return np.asarray(mean)[:, None] + np.linalg.cholesky(np.asarray(covariance)) @ circle


def draw_two_weights(rows, chains, samplers, path):
    exact = exact_row(rows)
    canvas, axes = plt.subplots(
        1, 3, figsize=(15, 4.2), width_ratios=(1, 1, 1.2), layout="constrained"
    )
    for axis, name in zip(axes, ("Langevin, uncorrected", "NGD"), strict=False):
        for mine in [chains[name]] if name in chains else []:
            axis.plot(*np.array(mine[0]["points"]).T, ".", ms=2, color="0.6", label="one chain")
            covariance = np.mean([r["covariance"] for r in mine], axis=0)
            mean = np.mean([r["mean"] for r in mine], axis=0)
            axis.plot(*ellipse(mean, covariance), "C2", label="all chains, 3 sd")
        axis.plot(*ellipse(exact["mode"], exact["covariance"]), "C0", label="Laplace, 3 sd")
        axis.plot(*exact["mode"], "C0o", ms=4)
        axis.set(title=name, xlabel="ω₁", ylabel="ω₂", xlim=(8.5, 24), ylim=(-0.65, 1.25))
        axis.legend(fontsize=8, loc="upper right")
    for place, mine in enumerate(chains.values()):
        mean, error = mean_and_error([r["mean"][0] for r in mine])
        axes[2].errorbar(mean, -place, xerr=error, fmt="ko", ms=4, capsize=3)
    axes[2].set_yticks([-i for i in range(len(chains))], list(chains), fontsize=8)
    for color, power in zip(("C0", "C1", "C3"), ("0", "0.5", "1"), strict=True):
        label = f"exp(−C) |M|^{power}"
        axes[2].axvline(exact[f"power {power}"]["mean"][0], color=color, label=label)
    axes[2].set(xlabel="mean of ω₁, ± standard error", title="Which law?")
    axes[2].legend(fontsize=8, loc="lower right")
    canvas.savefig(path, dpi=110)
    plt.close(canvas)


# ------------------------------------------------------------------------------ figures 2 to 5


def by_axis(study):
    """Rows by temperature (figures 2 and 3) or batch size, in order."""
    name = "temperature" if study[0]["figure"] < 4 else "batch_size"
    groups = {}
    for row in sorted(study, key=lambda r: r[name]):
        groups.setdefault(row[name], []).append(row)
    return groups


def study_report(study):
    groups = by_axis(study)
    lines = []
    for rows in groups.values():
        columns = [
            printed([r[f"{who}_{what}"] for r in rows])
            for what in ("loss", "accuracy")
            for who in ("ensemble", "single")
        ]
        start = [f"{rows[0]['temperature']:.3g}", rows[0]["batch_size"], len(rows)]
        lines.append([*start, *columns])
    head = ["T", "B", "seeds", "ensemble cross-entropy", "single", "ensemble accuracy", "single"]
    yield table(head, lines)
    yield minimum(groups)


def minimum(groups):
    """Where the ensemble is best, and how much worse it is at T = 1, over paired seeds."""
    complete = sorted(set.intersection(*({r["seed"] for r in g} for g in groups.values())))
    if not complete:
        return "No seed has all runs."
    losses = {}
    for value, rows in groups.items():
        of_seed = {r["seed"]: r["ensemble_loss"] for r in rows}
        losses[value] = np.array([of_seed[seed] for seed in complete])
    best = min(losses, key=lambda value: losses[value].mean())
    at_one = min(groups, key=lambda value: abs(np.log(groups[value][0]["temperature"])))
    each = ", ".join(f"{min(losses, key=lambda v: losses[v][i]):g}" for i in range(len(complete)))
    text = f"Lowest mean cross-entropy of the ensemble at {best:g}; of single seeds at {each}."
    if best != at_one:
        text += f" At {at_one:g} it is higher by {printed(losses[at_one] - losses[best])}."
    return text


def draw(studies, name, path):
    """Cross-entropy and accuracy of each study, of the ensemble and of single samples."""
    canvas, axes = plt.subplots(len(studies), 2, figsize=(10, 3.6 * len(studies)), squeeze=False)
    for line, (title, study) in zip(axes, studies.items(), strict=True):
        groups = by_axis(study)
        for axis, what in zip(line, ("loss", "accuracy"), strict=True):
            for who in ("ensemble", "single"):
                column = [[r[f"{who}_{what}"] for r in rows] for rows in groups.values()]
                means, errors = zip(*map(mean_and_error, column), strict=True)
                errors = np.nan_to_num(errors)
                axis.errorbar(list(groups), means, errors, marker="o", ms=4, capsize=3, label=who)
            axis.set(xscale="log", xlabel=name.replace("_", " "))
            axis.set_xticks(list(groups), [f"{value:g}" for value in groups])
            axis.minorticks_off()
            axis.set_ylabel({"loss": "test cross-entropy"}.get(what, "test accuracy"))
            axis.axvline(one(study), color="0.6", ls="--", label="T = 1")
            axis.legend(fontsize=8)
        line[0].set_title(TITLES.get(title, title), loc="left", fontsize=10)
        limit(line[0], groups)
    canvas.tight_layout()
    canvas.savefig(path, dpi=110)
    plt.close(canvas)


def one(study):
    """T = 1 on the axis; B = ηN/2, with η = 1/8 and N from the temperature of a row."""
    row = study[0]
    return 1.0 if row["figure"] < 4 else (row["temperature"] + 1 / 16) * row["batch_size"]


def limit(axis, groups):
    """Leaves out of the picture what has diverged; a logarithmic axis for wide ranges."""
    means = [np.mean([r["single_loss"] for r in rows]) for rows in groups.values()]
    if max(means) >= 10:
        lowest = min(r["ensemble_loss"] for rows in groups.values() for r in rows)
        axis.set_ylim(0.95 * lowest, 1.5 * min(means))
    elif max(means) > 3 * min(means):
        axis.set_yscale("log")
        ticks = (0.1, 0.2, 0.4, 0.8)
        axis.set_yticks(ticks, list(map(str, ticks)))
        axis.minorticks_off()
