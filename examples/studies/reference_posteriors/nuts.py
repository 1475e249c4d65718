"""Draws the reference of each posterior by the No-U-Turn sampler, and stores what it says.

    python -m examples.studies.reference_posteriors.nuts                  what needs no download
    python -m examples.studies.reference_posteriors.nuts --data-dir DIR   the others too

The log density is made of the Keras model, `stateless_call`, its loss and its prior, in float64.
Four chains from different Adam points, step size and metric by window adaptation; blocks of draws
until the R-hat of the network's function at every test point is 1.01 or less. Weights of networks
have symmetries, so that only predictions are looked at. A reference that is stored is not drawn
again; one that does not converge is not stored.
"""

import argparse
import os
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.flatten_util import ravel_pytree

from examples.studies.reference_posteriors import posteriors, references
from examples.studies.reference_posteriors.warm_start import adam_weights

CHAINS = 4
MOST_R_HAT = 1.01


def main():
    options = arguments()
    try:
        import blackjax
    except ImportError:
        raise SystemExit("NUTS is blackjax's: `pip install keras_langevin[peers]`.") from None
    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    for name in options.posteriors or posteriors.names(options.data_dir):
        posterior = posteriors.load(name, options.data_dir)
        if references.path_of(name).exists():
            references.load(posterior)  # or says that it is of another posterior
            continue
        reference = drawn(blackjax, posterior, options)
        shown = "  ".join(f"{key} {value:.4g}" for key, value in reference.facts.items())
        print(f"{name}  lppd {reference.lppd:.4f}  {shown}", flush=True)
        if reference.facts["r_hat"] <= MOST_R_HAT:
            references.save(posterior, reference)
        else:
            print(f"{name} is not stored: R-hat is above {MOST_R_HAT}.", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="folder with uci_regression/ and others")
    parser.add_argument("--posteriors", nargs="*", help="names; by default all there are")
    parser.add_argument("--warm-up", type=int, default=600, help="draws that adapt")
    parser.add_argument("--block", type=int, default=1000, help="draws between two looks at R-hat")
    parser.add_argument("--blocks", type=int, default=6, help="at most so many")
    parser.add_argument("--tree-depth", type=int, default=9)
    return parser.parse_args()


def drawn(blackjax, posterior, options):
    """The `Reference` of as many blocks as convergence takes."""
    start = time.process_time()
    model = posterior.network()
    starts = [adam_weights(posterior, seed) for seed in range(CHAINS)]
    _, unravel = ravel_pytree([jnp.asarray(w) for w in starts[0]])
    positions = jnp.stack([ravel_pytree([jnp.asarray(w) for w in s])[0] for s in starts])
    density = log_density(posterior, model, unravel)
    depth = {"max_num_doublings": options.tree_depth}
    adaptation = blackjax.window_adaptation(blackjax.nuts, density, **depth)
    kernel = blackjax.nuts.build_kernel()

    @jax.jit
    @jax.vmap
    def adapted(key, position):
        (state, parameters), _ = adaptation.run(key, position, options.warm_up)
        return state, {name: parameters[name] for name in ("step_size", "inverse_mass_matrix")}

    @jax.jit
    @jax.vmap
    def block(key, state, parameters):
        def step(state, key):
            state, info = kernel(key, state, density, **parameters, **depth)
            facts = info.num_integration_steps, info.is_divergent, info.acceptance_rate
            return state, (state.position, facts)

        return jax.lax.scan(step, state, jax.random.split(key, options.block))

    keys = jax.random.split(jax.random.key(0), (options.blocks + 1, CHAINS))
    states, parameters = adapted(keys[0], positions)
    outputs, infos = [], []
    for number in range(options.blocks):
        states, (draws, info) = block(keys[number + 1], states, parameters)
        outputs.append(outputs_at_test_points(posterior, model, unravel, draws))
        infos.append(info)
        steps, divergent, acceptance = (np.concatenate(a, axis=1) for a in zip(*infos, strict=True))
        reference = references.of_draws(
            posterior,
            np.concatenate(outputs),
            num_data=posterior.num_data,
            num_weights=positions.shape[1],
            draws=options.block * (number + 1),
            chains=CHAINS,
            warm_up=options.warm_up,
            tree_depth=options.tree_depth,
            gradients=int(steps.sum()),
            gradients_a_draw=float(steps.mean()),
            divergent=int(divergent.sum()),
            acceptance=float(acceptance.mean()),
            seconds=time.process_time() - start,
        )
        facts = reference.facts
        words = ", ".join(f"{key} {facts[key]:.4g}" for key in ("r_hat", "ess", "chain_off"))
        print(f"{posterior.name}: {facts['draws']} draws, {words}", flush=True)
        if facts["r_hat"] <= MOST_R_HAT:
            break
    return reference


def log_density(posterior, model, unravel):
    """Of all weights in one vector: N times minus the mean loss, and the prior."""
    x, y = (jax.tree.map(jnp.asarray, part) for part in posterior.train)
    loss, prior = posterior.likelihood.loss(), posterior.prior()
    untrained = [v.value for v in model.non_trainable_variables]

    def density(position):
        weights = unravel(position)
        outputs, _ = model.stateless_call(weights, untrained, x)
        log_likelihood = -posterior.num_data * loss(y, outputs)
        return log_likelihood + sum(prior.log_density(w) for w in weights)

    return density


def outputs_at_test_points(posterior, model, unravel, draws):
    """`(draws, chains, rows, units)` of positions `(chains, draws, weights)`."""
    x = jax.tree.map(jnp.asarray, posterior.test[0])
    untrained = [v.value for v in model.non_trainable_variables]

    @jax.jit
    def outputs(position):
        return model.stateless_call(unravel(position), untrained, x)[0]

    return np.asarray(jax.lax.map(jax.vmap(outputs), draws.swapaxes(0, 1)))


if __name__ == "__main__":
    main()
