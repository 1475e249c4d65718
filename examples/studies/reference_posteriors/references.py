"""What NUTS said of a posterior, in `references/NAME.npz`."""

import dataclasses
import json
from pathlib import Path

import numpy as np

import keras_langevin as kl

FOLDER = Path(__file__).parent / "references"


@dataclasses.dataclass(frozen=True)
class Reference:
    """The posterior's function at the test points, `Likelihood.function` of every draw.

    Attributes:
        mean, stddev: Over the draws, `(rows, units)`.
        log_density: Of each test row in the mixture of all draws, nats, `(rows,)`.
        facts: `"r_hat"` (the largest of the function's), `"ess"` (the smallest), `"chain_off"`
            (`off` of one chain of NUTS against the others, the mean: what the reference itself
            leaves open) and how it was drawn.
    """

    mean: np.ndarray
    stddev: np.ndarray
    log_density: np.ndarray
    facts: dict

    @property
    def lppd(self):
        """Mean log predictive density of the test rows, nats."""
        return float(self.log_density.mean())

    def off(self, mean):
        """Mean over the test points of the distance to this mean, in posterior standard
        deviations."""
        return float(np.mean(np.abs(mean - self.mean) / self.stddev))

    def width(self, stddev):
        """The median over the test points of this standard deviation over the posterior's."""
        return float(np.median(stddev / self.stddev))


def of_draws(posterior, outputs, **facts):
    """The reference that these draws give.

    Args:
        outputs: Of the network at the test points, `(draws, chains, rows, units)`.
    """
    functions = posterior.likelihood.function(outputs)
    log_densities = posterior.likelihood.log_density(posterior.test[1], outputs)
    chains = list(functions.swapaxes(0, 1))
    return Reference(
        functions.mean(axis=(0, 1)),
        functions.std(axis=(0, 1)),
        log_mean_exp(log_densities),
        {
            "r_hat": float(kl.diagnostics.r_hat(chains).max()),
            "ess": float(kl.diagnostics.effective_sample_size(chains, kind="bulk").min()),
            "chain_off": chain_off(chains),
        }
        | facts,
    )


def chain_off(chains):
    """Mean distance of a chain's mean to that of the others, in standard deviations of all."""
    means, stddev = np.mean(chains, axis=1), np.std(chains, axis=(0, 1))
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    return float(np.mean(np.abs(means - others) / stddev))


def log_mean_exp(log_densities):
    """Of each row over draws and chains, the axes before the last."""
    flat = log_densities.reshape(-1, log_densities.shape[-1])
    return np.logaddexp.reduce(flat, axis=0) - np.log(len(flat))


def path_of(name):
    return FOLDER / f"{name}.npz"


def save(posterior, reference):
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(
        path_of(posterior.name),
        mean=reference.mean.astype("float32"),
        stddev=reference.stddev.astype("float32"),
        log_density=reference.log_density.astype("float32"),
        facts=json.dumps(reference.facts),
        signature=posterior.signature(),
    )


def load(posterior):
    """The stored reference, or an error where it is of another posterior than this one."""
    path = path_of(posterior.name)
    if not path.exists():
        raise SystemExit(
            f"A reference must be in {path.name}. Received: no such file. Draw it with `python -m "
            f"examples.studies.reference_posteriors.nuts --posteriors {posterior.name}`."
        )
    with np.load(path) as stored:
        signature = str(stored["signature"])
        if signature != posterior.signature():
            raise SystemExit(
                f"{path.name} must be of the posterior as it is now: {posterior.signature()}. "
                f"Received: signature={signature}. Delete the file and run `nuts.py` again."
            )
        arrays = (stored[name].astype("float64") for name in ("mean", "stddev", "log_density"))
        return Reference(*arrays, json.loads(str(stored["facts"])))
