"""What samplers and NUTS know about a curve with a gap in its data, side by side.

    python -m examples.studies.reference_posteriors.figure

Writes `gap.png` beside this file: the stored reference, and three chains of each sampler, all
defaults, 20,000 gradients on all rows.
"""

import argparse
from pathlib import Path

import numpy as np

import keras_langevin as kl
from examples.studies.reference_posteriors import compare, posteriors, references

SAMPLERS = ("QDOPLangevin", "SMILE")
GRADIENTS = 20_000
LEGEND = ("90 % of new y", "mean ± 2 stddev of members", "data")
NOISE = 0.2  # of the posterior "gap"
PATH = Path(__file__).with_name("gap.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gradients", type=int, default=GRADIENTS, help="steps of a chain")
    parser.add_argument("--figure", type=Path, default=PATH)
    options = parser.parse_args()
    posterior = posteriors.load("gap")
    reference = references.load(posterior)
    panels = {"NUTS": reference}
    for name in SAMPLERS:
        found = sampled(posterior, name, options.gradients)
        facts = f"off {reference.off(found.mean):.2f}, width {reference.width(found.stddev):.2f}"
        panels[f"{name}, {options.gradients:,} gradients: {facts}"] = found
    draw(posterior, panels, options.figure)
    print("\n".join(panels))


def sampled(posterior, name, gradients):
    """The function of three chains."""
    chains, _ = compare.sampled(posterior, name, "full", gradients, compare.CHAINS)
    return references.of_draws(posterior, compare.outputs_at_test_points(posterior, chains))


def draw(posterior, found, path):
    """A panel for each.

    Args:
        found: From a name to the `Reference` that its draws give.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(found), figsize=(12, 3.5), sharex=True, sharey=True, layout="constrained"
    )
    for ax, (name, reference) in zip(axes, found.items(), strict=True):
        kl.plotting.predictive_band(posterior.test[0], uncertainty(reference), ax, posterior.train)
        ax.get_legend().remove()
        ax.set_title(name, fontsize="small")
    legend = {"frameon": False, "fontsize": "small", "ncols": len(LEGEND)}
    figure.legend(axes[0].collections, LEGEND, loc="outside lower center", **legend)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def uncertainty(reference):
    """What `predictive_band` takes, with the quantiles of a normal distribution."""
    variance = reference.stddev**2
    spread = 1.645 * (variance + NOISE**2) ** 0.5
    quantiles = np.stack([reference.mean - spread, reference.mean, reference.mean + spread])
    return {"mean": reference.mean, "epistemic": variance, "quantiles": quantiles}


if __name__ == "__main__":
    main()
