"""How the figures look. Sizes are relative to the reader's own settings of matplotlib."""

import contextlib

from keras_langevin.arguments import shorten, text

# Okabe and Ito's palette, told apart by colour-blind readers and in print.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, YELLOW, BLACK, GREY = "#56B4E9", "#E69F00", "#000000", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, BLACK)
DASHED = {"color": GREY, "linewidth": 1, "linestyle": (0, (4, 3))}
NOTE = {"color": GREY, "fontsize": "small"}
SIZE = (5.0, 3.5)
HEADROOM = 0.14


@contextlib.contextmanager
def axes(ax):
    """The given Axes, or those of a new figure, which an error inside takes away again."""
    matplotlib, pyplot = load()
    if ax is not None:
        yield checked(ax, matplotlib.axes.Axes)
        return
    figure, ax = pyplot.subplots(figsize=SIZE, layout="constrained")
    try:
        yield ax
    except BaseException:
        pyplot.close(figure)
        raise


def load():
    try:
        import matplotlib
        import matplotlib.axes
        import matplotlib.colors
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            "`keras_langevin.plotting` needs matplotlib, which could not be imported. Install it "
            'with `pip install "keras_langevin[plots]"`.'
        ) from error
    return matplotlib, matplotlib.pyplot


def checked(ax, kind):
    if not isinstance(ax, kind):
        raise ValueError(
            "`ax` must be a matplotlib Axes, or None for a new figure. Received: "
            f"ax={shorten(ax)}. Pass one element of what `plt.subplots` returns."
        )
    return ax


def checked_look(label, color):
    """A curve's name in the legend and its colour, either of them None for the default."""
    if label is not None:
        text("label", label)
    is_kind = color is None or isinstance(color, (str, tuple, list))
    if not is_kind or not (color is None or load()[0].colors.is_color_like(color)):
        raise ValueError(
            "`color` must be one of matplotlib's, or None. Received: "
            f'color={shorten(color)}. Use a name, such as `"tab:blue"`.'
        )
    return label, color


def finish(ax, title, x, y):
    ax.set_title(title, fontsize="medium")
    ax.set(xlabel=x, ylabel=y)
    ax.spines[["top", "right"]].set_visible(False)


def legend(ax, *entries, **options):
    ax.legend(*entries, frameon=False, fontsize="small", **options)


def legend_row(ax, *entries, num_columns):
    """In one line above the data; the caller leaves `HEADROOM` of the height for it."""
    legend(
        ax,
        *entries,
        loc="upper left",
        ncols=num_columns,
        handlelength=1.0,
        handletextpad=0.4,
        columnspacing=1.0,
        borderaxespad=0.2,
    )


def note(ax, text, xy, ha="left", va="bottom", gap=3, **options):
    """Small grey words, `gap` points above or below a place."""
    offset = {"xytext": (0, gap if va == "bottom" else -gap), "textcoords": "offset points"}
    ax.annotate(text.replace("-", "−"), xy, ha=ha, va=va, **offset, **NOTE, **options)


def next_colour(ax):
    """Another one for each entry that the legend of `ax` has."""
    return COLOURS[len(ax.get_legend_handles_labels()[0]) % len(COLOURS)]


def diagonal(ax, text=""):
    """The line from (0, 0) to (1, 1), once however often it is asked for."""
    if any(line.get_gid() == "diagonal" for line in ax.lines):
        return
    ax.plot([0, 1], [0, 1], gid="diagonal", **DASHED)
    along = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}
    ax.text(0.03, 0.05, text, **along, **NOTE)


def short(number):
    """Three digits, without an exponent where that is readable."""
    return f"{number:,.0f}" if 1e3 <= number < 1e6 else f"{number:.3g}"
