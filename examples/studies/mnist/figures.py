"""The figures of the study."""

import functools

import matplotlib.pyplot as plt
import numpy as np

from examples.studies.common.style import STYLE
from examples.studies.mnist.methods import METHODS

# Okabe and Ito's palette, with a line style each, so that no line is told by its colour alone.
LOOKS = {
    "sgd": ("#000000", ":"),
    "adam": ("#D55E00", "-"),
    "dropout": ("#009E73", "--"),
    "deep-ensemble": ("#CC79A7", "-."),
    "snapshots": ("#56B4E9", "-"),
    "sgld": ("#E69F00", ":"),
    "rmsprop": ("#009E73", "--"),
    "dop": ("#D55E00", "-."),
    "qdop": ("#0072B2", "-"),
}
PANELS = {
    "baselines": ("sgd", "adam", "dropout", "deep-ensemble", "snapshots"),
    "samplers, cold posterior": ("sgld-cold", "rmsprop-cold", "dop-cold", "qdop-cold"),
    "samplers, T = 1": ("sgld-t1", "rmsprop-t1", "dop-t1", "qdop-t1"),
}
PREDICTORS = {  # colour, marker, offset of the row
    "point": ("#777777", "o", 0.24),
    "weights scaled": ("#777777", "o", 0.24),
    "weight mean": ("#E69F00", "^", 0.0),
    "50 passes": ("#0072B2", "D", -0.24),
    "ensemble": ("#0072B2", "D", -0.24),
}


def draw_all(path, final, curves, why):
    """Writes the figures beside the file of results.

    Args:
        path: Of the results; its stem begins the names of the figures.
        final: Lists of the final runs' `Row`, by method.
        curves: Lists of `CurvePoint`, by (method, predictor).
        why: What `why.py` measured, by method.
    """
    with plt.rc_context(STYLE):
        for name, draw in figures(final, curves, why).items():
            figure = draw()
            figure.savefig(filename(path, name))
            plt.close(figure)
            print(f"Figure {filename(path, name)}")


def captions(path, final, curves, why):
    """Of the figures that there are, by file name."""
    return {filename(path, name).name: CAPTIONS[name] for name in figures(final, curves, why)}


def filename(path, name):
    return path.with_name(f"{path.stem}_{name}.png")


def figures(final, curves, why):
    """Functions that draw, by name: of what there is something to draw."""
    drawn = {}
    if curves:
        drawn["time"] = functools.partial(over_time, curves)
    if any(row.finished for rows in final.values() for row in rows):
        drawn["nll"] = functools.partial(nll_by_method, final)
    if why:
        drawn["why"] = functools.partial(metrics_compared, why)
    return drawn


CAPTIONS = {
    "time": "Test NLL and accuracy against seconds of training, without compilation, seed 0: of "
    "the running ensemble where there is one, and of the last point (thin)",
    "nll": "Test NLL of every method: seeds small, their mean large",
    "why": "The four metrics: largest curvature in their units, condition number, effective "
    "samples per second at T = 1",
}


# ------------------------------------------------------------------------------ over time


def over_time(curves):
    """Scores of the running ensembles (thick) and the last points (thin) against time."""
    figure, axes = plt.subplots(
        *(2, len(PANELS)),
        figsize=(11, 6.4),
        sharex=True,
        sharey="row",
        layout="constrained",
    )
    for column, (title, methods) in zip(axes.T, PANELS.items(), strict=True):
        column[0].set_title(title)
        column[-1].set_xlabel("seconds of training without compilation")
        for method in methods:
            show_curves(column, method, curves)
        if column[1].get_legend_handles_labels()[0]:
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18)}
            column[1].legend(**place, ncols=2, fontsize=8, handlelength=2.6)
    axes[0, 0].set_yscale("log")
    for axis in axes.flat:
        axis.grid(color="#DDDDDD", linewidth=0.6)
    axes[0, 0].set_ylim(limits([p.nll for curve in curves.values() for p in curve], log=True))
    plain_numbers(axes[0, 0].yaxis)
    axes[1, 0].set_ylim(
        limits([100 * p.accuracy for curve in curves.values() for p in curve], top=100)
    )
    axes[0, 0].set_ylabel("test NLL, nats")
    axes[1, 0].set_ylabel("test accuracy, %")
    return figure


def show_curves(column, method, curves):
    colour, style = LOOKS.get(method) or LOOKS[method.split("-")[0]]
    label = METHODS[method].label.split(",")[0] if "-" in method else METHODS[method].label
    point, ensemble = (curves.get((method, kind)) for kind in ("point", "ensemble"))
    if ensemble and point:
        draw_curve(column, point, color=colour, linewidth=0.7, alpha=0.5)
    if ensemble or point:
        marker = "o" if method == "deep-ensemble" else None  # one point a network
        draw_curve(
            column,
            ensemble or point,
            color=colour,
            linestyle=style,
            linewidth=1.8,
            marker=marker,
            markersize=4,
            label=label,
        )


def draw_curve(column, points, **look):
    seconds = [p.seconds - p.compile_seconds for p in points]
    column[0].plot(seconds, [p.nll for p in points], **look)
    column[1].plot(seconds, [100 * p.accuracy for p in points], **look)


def limits(values, top=None, log=False):
    """An axis that shows the better 90 % of the values: the first epochs are far off."""
    if log:
        return 0.9 * min(values), 1.1 * np.quantile(values, 0.9)
    low, high = np.quantile(values, 0.1), max(values)
    margin = 0.05 * (high - low)
    return low - margin, min(top, high + margin)


# -------------------------------------------------------------------------- NLL by method


def nll_by_method(final):
    """One line a method: small marks are seeds, large ones their mean."""
    methods = [name for name, rows in final.items() if any(row.finished for row in rows)]
    figure, axis = plt.subplots(figsize=(8, 0.42 * len(methods) + 1.3), layout="constrained")
    for place, name in enumerate(reversed(methods)):
        axis.axhspan(place - 0.5, place + 0.5, color="#F4F4F4" if place % 2 else "white", zorder=0)
        show_seeds(axis, place, [row for row in final[name] if row.finished])
    axis.set_yticks(range(len(methods)), [METHODS[name].label for name in reversed(methods)])
    axis.set_ylim(-0.5, len(methods) - 0.5)
    axis.tick_params(axis="y", length=0)
    axis.set_xscale("log")
    plain_numbers(axis.xaxis)
    axis.grid(axis="x", which="both", color="#DDDDDD", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_xlabel("test NLL, nats (logarithmic); small: seeds, large: their mean")
    show_predictor_legend(figure)
    return figure


def show_seeds(axis, place, rows):
    for predictor in rows[0].predictions:
        colour, marker, offset = PREDICTORS[predictor]
        values = [row.predictions[predictor]["nll"] for row in rows]
        heights = [place + offset] * len(values)
        axis.scatter(values, heights, s=12, color=colour, marker=marker, alpha=0.45, linewidth=0)
        axis.scatter(np.mean(values), heights[0], s=42, color=colour, marker=marker, zorder=3)


def show_predictor_legend(figure):
    names = {
        "point": "last point (dropout: weights scaled)",
        "weight mean": "weight mean",
        "ensemble": "ensemble (dropout: 50 passes)",
    }
    handles = []
    for predictor, label in names.items():
        colour, marker, _ = PREDICTORS[predictor]
        handles.append(
            plt.Line2D([], [], color=colour, marker=marker, linestyle="none", label=label)
        )
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=9)


def plain_numbers(axis):
    """Ticks such as 0.05 instead of powers of ten, on a logarithmic axis."""
    low, high = axis.get_view_interval()
    digits = (1, 1.5, 2, 3, 4, 5, 6, 8) if high < 12 * low else (1, 2, 5)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = np.outer(powers, digits).ravel()
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ticks([], minor=True)


# ------------------------------------------------------------------------------------ why


def metrics_compared(why):
    """Three panels, one bar a metric."""
    names = [METHODS[name].label.split(",")[0].removesuffix(" Langevin") for name in why]
    panels = {
        "largest eigenvalue of C H": [entry["trained"]["largest"] for entry in why.values()],
        "condition number of C H": [
            entry["trained"]["largest"] / entry["trained"]["smallest"] for entry in why.values()
        ],
        "effective samples per second": [
            entry["effective_samples_per_second"] for entry in why.values()
        ],
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 3.2), layout="constrained")
    colours = [LOOKS[name.removesuffix("-t1")][0] for name in why]
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        bars = axis.bar(names, values, color=colours, width=0.6)
        axis.bar_label(bars, [f"{float(f'{v:.3g}'):,.6g}" for v in values], fontsize=9, padding=2)
        axis.set_title(title)
        axis.tick_params(axis="x", labelsize=8)
        if max(values) > 20 * min(values):
            axis.set_yscale("log")
        axis.margins(y=0.15)
    return figure
