"""How biased is each sampler when gradients are noisy? Densities with known moments.

    python -m examples.benchmarks.analytic                       the Gaussian, 100,000 steps
    python -m examples.benchmarks.analytic --targets all --steps 1000000
    python -m examples.benchmarks.analytic --targets all --steps 1000000 --start target
    python -m examples.benchmarks.analytic --report              the page from what was run

The benchmark of Sommer et al. (2026), arXiv:2602.06500: an ill-conditioned Gaussian (ICG), a
Rosenbrock density and a funnel, each with isotropic, diagonal, correlated and spatially varied
noise on its gradient. The score is b²_avg, the squared error of the estimated second moments over
their variance, so a single draw has 1 on average. The step size of each method is chosen on some
seeds and reported on others. Rows go to the results file, which a restarted run completes.

Runs on JAX alone: hundreds of chains of one optimizer advance in one compiled loop, through
`stateless_apply` (what `fit` calls on that backend), `scan` and `vmap`.
"""

import argparse
import dataclasses
import functools
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ["KERAS_BACKEND"] = "jax"
import jax
import jax.numpy as jnp
import keras
import numpy as np

import keras_langevin as kl
from examples.benchmarks.analytic_report import mean_score, page
from examples.benchmarks.analytic_targets import NOISES, SPATIAL, TARGETS, D, coordinates
from examples.studies.common import pages
from examples.studies.common.results import Results
from keras_langevin.noise import standard_normal

# A minibatch of 256 rows adds the sum of 256 draws of N(0, F Fᵀ) to the gradient. Published data
# are 409,600 rows drawn without replacement: a standard deviation smaller by 0.03 %, left out.
NOISE_SCALE = 256**0.5
DECOHERENCE_LENGTH = 1000.0
TUNING_SHARE = 0.2  # of the steps, also the burn-in of the second score
TARGET_ENERGY = 1e-4

TUNING_SEEDS = range(3)
REPORTING_SEEDS = range(3, 10)
STREAM = 10_000_000  # iterations between the noise of one seed and that of the next
GRADIENT_NOISE_SEED = 1_000_000
BLOCK, THINNING = 1000, 10
BLOCKS_A_CALL = 20


@dataclasses.dataclass(frozen=True)
class Method:
    """A sampler and where its step size is looked for.

    Attributes:
        make: Function from a learning rate, the number of steps and settings to the optimizer.
        rates: Learning rates.
        settings: What else is tried with every rate.
        is_tuned: The rates are starts of a tuner: every one is reported, none chosen.
    """

    make: Callable
    rates: tuple
    settings: tuple = ({},)
    is_tuned: bool = False


def half_decades(low, high):
    """10^low to 10^high."""
    return tuple(float(f"{r:.3g}") for r in np.logspace(low, high, round(2 * (high - low)) + 1))


def smile(rate, steps, preconditioned, tuner=None):
    return kl.SMILE(
        rate,
        num_data=1,
        prior=None,
        preconditioned=preconditioned,
        tuner=tuner,
        target_energy=TARGET_ENERGY,
        decoherence_length=DECOHERENCE_LENGTH,
        tuning_steps=round(TUNING_SHARE * steps),
        seed=0,
    )


METHODS = {
    "SMILE-naive": Method(functools.partial(smile, preconditioned=False), half_decades(-5, 0)),
    "SGLD": Method(
        lambda rate, steps: kl.SGLD(rate, num_data=1, prior=None, seed=0), half_decades(-6, -1.5)
    ),
    "SGHMC": Method(
        lambda rate, steps, momentum: kl.SGHMC(
            rate, num_data=1, prior=None, momentum=momentum, seed=0
        ),
        half_decades(-8, -2),
        ({"momentum": 0.9}, {"momentum": 0.99}),
    ),
    "pSMILE-naive": Method(functools.partial(smile, preconditioned=True), half_decades(-5, 0)),
    "pSMILE": Method(
        functools.partial(smile, preconditioned=True, tuner="absolute"),
        (1e-4, 1e-1),
        is_tuned=True,
    ),
}


@dataclasses.dataclass(frozen=True)
class Chain:
    noise: str
    learning_rate: float
    seed: int


def main():
    options = arguments()
    results = Results(options.results)
    for target in [] if options.report else options.targets:
        for name in options.methods:
            run(results, TARGETS[target], name, options.steps, options.start)
    pages.write(page, results.path)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--targets", default="ICG", help="comma-separated, or all")
    parser.add_argument("--methods", default="all", help="comma-separated")
    parser.add_argument("--steps", type=int, default=100_000, help="gradients a chain")
    parser.add_argument("--start", choices=("published", "target"), default="published")
    parser.add_argument("--results", type=Path, default=Path("demo_output/analytic.jsonl"))
    parser.add_argument("--report", action="store_true", help="run nothing")
    options = parser.parse_args()
    if options.steps % BLOCK or not 0 < options.steps <= STREAM:
        parser.error(f"--steps must be a multiple of {BLOCK}. Received: --steps {options.steps}")
    for name, known in (("targets", TARGETS), ("methods", METHODS)):
        chosen = getattr(options, name)
        chosen = list(known) if chosen == "all" else chosen.split(",")
        if not set(chosen) <= set(known):
            parser.error(f"--{name} knows {', '.join(known)}. Received: {', '.join(chosen)}")
        setattr(options, name, chosen)
    return options


# --------------------------------------------------------------------------------- procedure


def run(results, target, name, steps, start):
    """The rows of one method on one target under all noises: all rates on the tuning seeds, then
    the best of each noise on the reporting seeds."""
    method = METHODS[name]
    key = dict(target=target.name, method=name, start=start, steps=steps)
    grid = [(n, s, rate) for n in NOISES for s in method.settings for rate in method.rates]
    if method.is_tuned:
        complete(results, key | {"phase": "report"}, grid, REPORTING_SEEDS)
        return
    rows = complete(results, key | {"phase": "choose"}, grid, TUNING_SEEDS)
    best = [min((r for r in rows if r["noise"] == n), key=mean_score) for n in NOISES]
    chosen = [(row["noise"], row["settings"], row["learning_rate"]) for row in best]
    complete(results, key | {"phase": "report"}, chosen, REPORTING_SEEDS)


def complete(results, key, cases, seeds):
    """The rows of the cases (noise, settings, learning rate). Those with the same settings that
    are missing run together."""
    keys = [
        key | {"noise": noise, "settings": settings, "learning_rate": rate, "seeds": list(seeds)}
        for noise, settings, rate in cases
    ]
    missing = [k for k in keys if results.find(**k) is None]
    for settings in {repr(k["settings"]): k["settings"] for k in missing}.values():
        batch = [k for k in missing if k["settings"] == settings]
        chains = [Chain(k["noise"], k["learning_rate"], s) for k in batch for s in seeds]
        began = time.perf_counter()
        make = functools.partial(METHODS[key["method"]].make, steps=key["steps"], **settings)
        found = measured(make, TARGETS[key["target"]], chains, key["steps"], key["start"])
        common = {
            "seconds": time.perf_counter() - began,
            "chains": len(chains),
            "made_by": made_by(),
        }
        for i, k in enumerate(batch):
            own = slice(i * len(seeds), (i + 1) * len(seeds))
            results.add(k | {name: numbers(v[own]) for name, v in found.items()} | common)
    return [results.find(**k) for k in keys]


def made_by():
    versions = f"Keras {keras.__version__}, JAX {jax.__version__}, NumPy {np.__version__}"
    return f"{versions}, Python {platform.python_version()}, {platform.machine()}"


def numbers(values):
    """A list for a JSON file, None for what is not finite."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values]


# -------------------------------------------------------------------------------- simulation


def measured(make, target, chains, steps, start):
    """One array over chains for each quantity of a row."""
    squares, distance, low, high, state = simulated(make, target, chains, steps, start)
    late = squares[round(TUNING_SHARE * len(squares)) :]
    quantities = {
        "score": target.bias(squares.mean(0)),
        "late_score": target.bias(late.mean(0)),
        "distance": distance.sum(0),
        "span": high.max(0) - low.min(0),
    }
    for name in ("step_size", "rejected_steps"):
        if name in state:
            quantities[name] = state[name]
    return quantities


def simulated(make, target, chains, steps, start):
    """Runs the chains. Arrays (blocks, chains, ...): mean of x² over every tenth step, distance
    travelled, smallest and largest slow coordinate; and the optimizer's variables by name."""
    optimizers = {rate: built(make(rate)) for rate in {c.learning_rate for c in chains}}
    optimizer = optimizers[chains[0].learning_rate]
    call = compiled(optimizer, target)
    carry = stacked([first_state(optimizers[c.learning_rate], target, c, start) for c in chains])
    noises = stacked([noise_law(target, c.noise) for c in chains])
    found = []
    for done in range(0, steps, BLOCK * BLOCKS_A_CALL):
        blocks = min(BLOCKS_A_CALL, (steps - done) // BLOCK)
        carry, block = call(carry, noises, blocks)
        found.append([np.asarray(a, "float64") for a in block])
    squares, *rest = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    names = [v.name for v in optimizer.variables]
    return squares, *rest, dict(zip(names, map(np.asarray, carry.variables), strict=True))


class State(NamedTuple):
    """Of one chain: position, variables of the optimizer, steps since noise number 0."""

    x: jax.Array
    variables: list
    count: jax.Array


def built(optimizer):
    optimizer.build([keras.Variable(np.zeros(D, "float32"), name="x")])
    return optimizer


def first_state(optimizer, target, chain, start):
    """The optimizer's noise is a function of the iteration, at which each seed starts elsewhere."""
    count = chain.seed * STREAM
    variables = [
        np.int32(count) if v is optimizer.iterations else np.asarray(v.value)
        for v in optimizer.variables
    ]
    x = target.start if start == "published" else target.draw(np.random.default_rng(chain.seed))
    return State(x.astype("float32"), variables, np.int32(count))


def noise_law(target, noise):
    """Factor of the covariance, and 1/s of spatially varied noise."""
    decay = 1.0 / target.length if noise == SPATIAL else 0.0
    return (NOISE_SCALE * NOISES[noise]).astype("float32"), np.float32(decay)


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def compiled(optimizer, target):
    """Function (states, noise laws, number of blocks) -> states, measurements of each block."""

    def loss(x, y, decay):
        return y @ x * jnp.exp(-decay * coordinates(x, 2)) - target.log_density(x)

    def block(state, law):
        factor, decay = law
        count = state.count + jnp.arange(BLOCK)
        normals = jax.vmap(lambda i: standard_normal((D,), GRADIENT_NOISE_SEED, i, 0))(count)

        def step(carry, y):
            x, variables = carry
            gradient = jax.grad(loss)(x, y, decay)
            [x], variables = optimizer.stateless_apply(variables, [gradient], [x])
            return (x, variables), x

        first = (state.x, state.variables)
        (x, variables), path = jax.lax.scan(step, first, normals @ factor.T)
        moves = jnp.diff(path, axis=0, prepend=state.x[None])
        slow = path @ jnp.asarray(target.slow, "float32")
        found = (
            jnp.mean(path[THINNING - 1 :: THINNING] ** 2, 0),
            jnp.sum(jnp.linalg.norm(moves, axis=1)),
            jnp.min(slow),
            jnp.max(slow),
        )
        return State(x, variables, state.count + BLOCK), found

    @functools.partial(jax.jit, static_argnums=2)
    def call(states, laws, blocks):
        return jax.lax.scan(lambda s, _: jax.vmap(block)(s, laws), states, length=blocks)

    return call


if __name__ == "__main__":
    main()
