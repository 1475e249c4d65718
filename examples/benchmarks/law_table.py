"""Prints what `test_stationary_law.py` measures, as the table of the README.

KERAS_BACKEND=jax python -m examples.benchmarks.law_table
"""

import sys
from pathlib import Path

import keras
import numpy as np

TESTS = Path(__file__).parents[2] / "tests"
sys.path += [str(TESTS), str(TESTS / "laws")]

from targets.regression import relative_eigenvalues  # noqa: E402
from test_stationary_law import (  # noqa: E402
    ADAPTING,
    FIXED,
    MUTANTS,
    PRIOR,
    PROBLEM,
    adapting,
    largest_stable,
    name_of,
)


def row(name, problem, optimizer, metric_inverse, temperature=1.0, batch_size=None, **data):
    learning_rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    exact = problem.exact_covariance(metric_inverse, learning_rate, temperature, batch_size)
    moment, mean = problem.second_moment(optimizer, exact, batch_size=batch_size, **data)
    ratios = [np.nan] * 2
    if np.isfinite(moment).all():
        ratios = relative_eigenvalues(moment, exact)[[0, -1]]
    batch = "all" if batch_size is None else batch_size
    print(
        f"| {name} | {temperature} | {batch} | {ratios[0]:.3f} to {ratios[1]:.3f} | {mean:.1f} |",
        flush=True,
    )


def main():
    print(f"{keras.backend.backend()}, Keras {keras.__version__}\n")
    print("| sampler | T | batch | covariance / exact | mean, standard errors |")
    print("|---|---|---|---|---|")
    for case in FIXED:
        metric_inverse = getattr(PROBLEM, case.inverse)()
        for temperature, batch_size in ((1.0, None), (0.3, None), (1.0, 20), (0.3, 20)):
            optimizer = case.make(
                largest_stable(metric_inverse),
                PROBLEM.n,
                prior=PRIOR,
                temperature=temperature,
                seed=1,
                **case.frozen,
            )
            name = f"`{case.name}`"
            row(name, PROBLEM, optimizer, metric_inverse, temperature, batch_size)
    for sampler, inverse in ADAPTING:
        row(f"`{sampler.__name__}`, adapting", *adapting(sampler, inverse))
    for make, metric_inverse, changes in MUTANTS:
        name = f"mutant: {name_of(make, changes)}"
        row(name, PROBLEM, make(**changes), metric_inverse, steps=240)


if __name__ == "__main__":
    main()
