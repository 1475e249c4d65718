"""Simulation-based calibration of the whole path: prior → data → `fit` → ensemble.

True weights are drawn from the prior, data from them, posterior samples from the data: the rank of
the truth among the samples is then uniform, if and only if every part does what it says (Talts et
al. 2018). The R units of one `Dense` layer are R replications, each with a truth and data of its
own: their posteriors are independent, and so are the ranks.

    cd tests; KERAS_BACKEND=jax python -m targets.calibration_run      prints the table of all
"""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
from cases import JIT_IF_NEEDED, SAMPLERS

import keras_langevin as kl

REPLICATIONS, EXAMPLES, INPUTS, BATCH, NOISE, PRIOR = 1000, 40, 3, 20, 1.0, 1.0
DRAWS = 31  # ranks 0 to 31 fill 8 bins of 4
BURN_IN = 12
BINS = 8


@dataclasses.dataclass(frozen=True)
class Case:
    """A sampler, and how many steps lie between two of its draws."""

    make: Callable
    steps: int = 60

    def __call__(self, **changes):
        arguments = {"num_data": EXAMPLES, "prior": kl.priors.Normal(PRIOR)}
        return self.make(**{**arguments, **changes})


CASES = {
    name: Case(functools.partial(case.sampler, **one.arguments), one.steps)
    for case in SAMPLERS
    for name, one in case.calibrations.items()
}


def simulate(seed=0):
    """`(x, y, truth)`: inputs `(n, d)`, targets `(n, R)`, kernels and biases `(d + 1, R)`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(EXAMPLES, INPUTS))
    truth = PRIOR * rng.normal(size=(INPUTS + 1, REPLICATIONS))
    y = x @ truth[:-1] + truth[-1] + NOISE * rng.normal(size=(EXAMPLES, REPLICATIONS))
    return x.astype("float32"), y.astype("float32"), truth


def ensemble_of(optimizer, steps, x, y, noise=NOISE):
    """By `fit`, from random weights."""
    model = keras.Sequential([keras.Input((INPUTS,)), keras.layers.Dense(REPLICATIONS)])
    model.compile(optimizer, kl.losses.GaussianNLL(noise), jit_compile=JIT_IF_NEEDED)
    batches = kl.RandomBatches(x, y, BATCH, batches_per_epoch=steps, seed=2)
    sampler = kl.PosteriorSampler(burn_in=BURN_IN)
    model.fit(batches, epochs=BURN_IN + DRAWS, callbacks=[sampler], verbose=0)
    return sampler.ensemble()


def ranks(ensemble, truth):
    """Of true weights among the members', and of true means at a new input: `(d + 2, R)`."""
    kernel, bias = ensemble.weights_by_name().values()
    weights = np.concatenate([kernel, bias[:, None]], axis=1)  # (members, d + 1, R)
    probe = np.full((1, INPUTS), 0.7, "float32")
    predicted = ensemble.predict_members(probe, verbose=0)
    draws = np.concatenate([weights, predicted], axis=1)
    true = np.concatenate([truth, probe @ truth[:-1] + truth[-1]])
    return np.sum(draws < true, axis=0)


def chi_squared(ranks_of_one):
    """Of the counts of ranks in bins; `BINS - 1` on average when they are uniform."""
    counts = np.bincount(ranks_of_one * BINS // (DRAWS + 1), minlength=BINS)
    expected = len(ranks_of_one) / BINS
    return float(np.sum((counts - expected) ** 2) / expected)


def calibration(optimizer, steps, seed=0, noise=NOISE):
    """χ² of every quantity: the weights of each input, the biases, a prediction."""
    x, y, truth = simulate(seed)
    ensemble = ensemble_of(optimizer, steps, x, y, noise)
    return [chi_squared(one) for one in ranks(ensemble, truth)]


if __name__ == "__main__":
    import sys
    import time

    for name in sys.argv[1:] or CASES:
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        start = time.perf_counter()
        found = calibration(CASES[name](), CASES[name].steps)
        seconds = time.perf_counter() - start
        print(f"{name:<18}", " ".join(f"{v:6.1f}" for v in found), f"  {seconds:.0f} s", flush=True)
