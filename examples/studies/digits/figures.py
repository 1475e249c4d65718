"""The three figures of the digits example."""

import matplotlib

matplotlib.use("Agg")  # files, no window

import matplotlib.pyplot as plt
import numpy as np

from examples.studies.common.style import STYLE
from keras_langevin import calibration, plotting
from keras_langevin.plotting.style import BLUE, GREY, ORANGE


def draw_all(folder, images, adam, ensemble, name):
    """Writes the figures to `folder` and returns their paths.

    Args:
        images: `digit_images.Images`.
        adam, ensemble: What each predicts, `digits.Prediction`.
        name: The ensemble's name.
    """
    with plt.rc_context(STYLE):
        figures = {
            "uncertain_digits.png": uncertain_digits(images, ensemble, name),
            "reliability.png": reliability(images.y_test, {"Adam": adam, name: ensemble}),
            "entropy.png": entropy(images, {"Adam": adam, name: ensemble}),
        }
        for filename, figure in figures.items():
            figure.savefig(folder / filename)
            plt.close(figure)
    return [folder / filename for filename in figures]


def uncertain_digits(images, prediction, name, rows=2, columns=6, shown=3):
    """The test digits of highest predictive entropy, each with its most probable classes."""
    entropies = calibration.predictive_entropy(prediction.test)
    worst = np.argsort(-entropies)[: rows * columns]
    figure, axes = plt.subplots(
        2 * rows,
        columns,
        figsize=(1.7 * columns, 2.75 * rows),
        height_ratios=[3, 1.3] * rows,
        layout="constrained",
    )
    for position, example in enumerate(worst):
        row, column = divmod(position, columns)
        digit, bars = axes[2 * row, column], axes[2 * row + 1, column]
        show_digit(digit, images.x_test[example], images.side)
        digit.set_title(f"labelled {images.y_test[example]}\nentropy {entropies[example]:.2f}")
        show_classes(bars, prediction.test[example], images.y_test[example], shown)
    figure.suptitle(
        f"The most uncertain of {len(entropies):,} test digits, and what the {name} predicts:\n"
        f"probability of the {shown} likeliest classes, the label's in blue; "
        f"entropy in nats, at most {np.log(10):.2f}"
    )
    return figure


def show_digit(axis, pixels, side):
    axis.imshow(pixels.reshape(side, side), cmap="gray_r", vmin=0, vmax=1)
    axis.set_axis_off()


def show_classes(axis, probabilities, label, shown):
    classes = np.argsort(-probabilities)[:shown]
    places = np.arange(shown)
    colours = [BLUE if k == label else GREY for k in classes]
    axis.barh(places, probabilities[classes], color=colours, height=0.75)
    for place, k in zip(places, classes, strict=True):
        axis.text(probabilities[k] + 0.03, place, f"{probabilities[k]:.2f}", va="center", size=8)
    axis.set_yticks(places, [str(k) for k in classes])
    axis.set_xlim(0, 1.2)
    axis.invert_yaxis()
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def reliability(labels, predictions, num_bins=10):
    """How often each is right against how sure it was, above how many predictions that were."""
    figure, axes = plt.subplots(
        2,
        len(predictions),
        figsize=(4.2 * len(predictions), 5.6),
        height_ratios=[4, 1],
        sharex=True,
        sharey="row",
        layout="constrained",
    )
    for (name, prediction), colour, (curve, counts) in zip(
        predictions.items(), [ORANGE, BLUE], axes.T, strict=True
    ):
        plotting.reliability(prediction.test, labels, num_bins, ax=curve, color=colour)
        show_counts(counts, prediction.test, labels, colour, num_bins)
        error = calibration.expected_calibration_error(prediction.test, labels)
        curve.set_title(f"{name}\nexpected calibration error {100 * error:.1f} % (15 bins)")
        counts.set_xlabel(curve.get_xlabel())
        curve.set(xlabel="", ylabel="")
    axes[0, 0].set_ylabel("share of right predictions, 95 % interval")
    axes[1, 0].set_ylabel("predictions")
    return figure


def show_counts(axis, probabilities, labels, colour, num_bins):
    count = calibration.reliability_curve(probabilities, labels, num_bins).count
    edges = np.linspace(0, 1, num_bins + 1)
    axis.stairs(np.maximum(count, 0.5), edges, fill=True, color=colour, baseline=0.5)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.set_ylim(bottom=0.5)


def entropy(images, predictions):
    """Predictive entropy of digits and of images that are none."""
    figure, axes = plt.subplots(
        1,
        len(predictions),
        figsize=(4.2 * len(predictions), 3.4),
        sharey=True,
        layout="constrained",
    )
    for (name, prediction), axis in zip(predictions.items(), axes, strict=True):
        inside = calibration.predictive_entropy(prediction.test)
        outside = calibration.predictive_entropy(prediction.out)
        kinds = ("test digits", images.others)
        plotting.entropy_histogram(inside, outside, ax=axis, num_classes=10, labels=kinds)
        auroc = calibration.out_of_distribution_auroc(inside, outside)
        axis.set_title(f"{name}\narea under the ROC curve {100 * auroc:.1f} %")
        axis.set_ylabel("")
    axes[0].set_ylabel("share of the images")
    return figure
