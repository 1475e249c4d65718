"""Is it the posterior? Every sampler with all defaults against the references of NUTS.

    python -m examples.studies.reference_posteriors.compare                  no download
    python -m examples.studies.reference_posteriors.compare --data-dir DIR --gradients 2000 20000
    python -m examples.studies.reference_posteriors.compare --report         the page of the rows

A run is three chains from warm starts by Adam, through `fit` and `kl.PosteriorSampler(unit="step")`
with half of the steps as burn-in. What the samplers are told is `num_data` and the prior of the
posterior, nothing else. A gradient is a step of one chain, on all rows or on a minibatch. The run's
steps are 20 epochs of `fit`, so that `learning_rate="auto"` measures as often as it does.

Each run appends a line to the results file; what is in it is not run again. After a change of the
package give another `--label`, and all is run again; the page shows the last row of each run.
"""

import argparse
import functools
import itertools
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_langevin as kl
from examples.benchmarks.timing import versions
from examples.studies.common import pages
from examples.studies.common.batches import shuffled_batches
from examples.studies.common.results import Results
from examples.studies.reference_posteriors import posteriors, references, report
from examples.studies.reference_posteriors.warm_start import adam_weights

SAMPLERS = {
    sampler.__name__: sampler
    for sampler in (
        kl.SGLD,
        kl.RMSPropLangevin,
        kl.DOPLangevin,
        kl.QDOPLangevin,
        kl.BNPLangevin,
        kl.SGHMC,
        kl.SMILE,
    )
}
BATCH_SIZE = 32
BUDGETS = (2000, 20_000, 60_000, 200_000)
CHAINS = 3
EPOCHS = 20
SAMPLES = 400  # of a chain, about
FIRST_SEED = 100  # of the warm starts: others than those of NUTS
ENOUGH = 0.1  # of `off`


def main():
    options = arguments()
    results = Results(options.results)
    for gradients in [] if options.report else options.gradients:
        for name in options.posteriors or posteriors.names(options.data_dir):
            posterior = posteriors.load(name, options.data_dir)
            for batches in options.batches:
                for sampler in options.samplers:
                    key = {"posterior": name, "sampler": sampler, "batches": batches}
                    key |= {"gradients": gradients, "label": options.label}
                    given = (posterior, sampler, batches, gradients, options.chains)
                    results.run(run, *given, **key)
    pages.write(report.page, options.results)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="folder with uci_regression/ and others")
    parser.add_argument("--posteriors", nargs="*", help="names; by default all there are")
    parser.add_argument("--samplers", nargs="*", choices=SAMPLERS, default=list(SAMPLERS))
    kinds = ("full", "minibatch")
    parser.add_argument("--batches", nargs="*", choices=kinds, default=kinds)
    parser.add_argument("--gradients", nargs="*", type=int, default=BUDGETS, help="of a chain")
    parser.add_argument("--chains", type=int, default=CHAINS)
    parser.add_argument("--label", default="", help="words for this version of the package")
    path = Path("demo_output/reference_posteriors.jsonl")
    parser.add_argument("--results", type=Path, default=path)
    parser.add_argument("--report", action="store_true", help="sample nothing")
    return parser.parse_args()


def run(posterior, sampler, batches, gradients, num_chains=CHAINS, **arguments):
    """What a row says of one sampler on one posterior: `measures`, and how it was run.

    Args:
        batches: `"full"` or `"minibatch"`.
        gradients: Steps of a chain, burn-in among them, at least `2 * EPOCHS`.
        **arguments: More of the sampler's.
    """
    reference = references.load(posterior)
    start = time.process_time()
    try:
        chains, logs = sampled(posterior, sampler, batches, gradients, num_chains, **arguments)
    except kl.ChainError as error:
        if all(isinstance(e, FloatingPointError) for e in error.errors.values()):
            return {"diverged": True, "software": versions()}
        raise
    seconds = time.process_time() - start
    outputs = outputs_at_test_points(posterior, chains)
    row = {"diverged": False} | measures(posterior, reference, outputs)
    share = row.pop("enough_after")
    row["gradients_until_enough"] = share and round(gradients * (0.5 + 0.5 * share))
    row |= {name: [log.get(name) for log in logs] for name in logs[0]}
    return row | {"seconds": seconds, "software": versions()}


def sampled(posterior, sampler, batches, gradients, num_chains, **arguments):
    """The samples of each chain, and the last logs of its `fit`. On JAX all are one program."""
    steps, thinning = schedule(gradients)
    on_jax = keras.backend.backend() == "jax"
    batch_size = posterior.num_data if batches == "full" else BATCH_SIZE
    data = endless_batches(*posterior.train, batch_size)
    found = {}

    def train_fn(number):
        weights = warm_start(posterior, FIRST_SEED + number)
        keras.utils.set_random_seed(number)  # of the optimizer's noise too
        model = posterior.network()
        model.set_weights(weights)
        optimizer = SAMPLERS[sampler](
            num_data=posterior.num_data, prior=posterior.prior(), **arguments
        )
        model.compile(
            optimizer,
            posterior.likelihood.loss(),
            steps_per_execution=thinning if on_jax else 1,
            jit_compile=keras.backend.backend() != "torch",
        )
        stored = kl.PosteriorSampler(thinning=thinning, unit="step", chain=number)
        history = model.fit(
            data,
            steps_per_epoch=steps,
            epochs=EPOCHS,
            shuffle=False,
            callbacks=[stored],
            verbose=0,
        ).history
        shown = ("learning_rate", "step_size", "minibatch_noise", "drift_clipped")
        logs = {name: history[name][-1] for name in shown if name in history}
        found[number] = stored.samples, logs
        return stored

    kl.sample_chains(train_fn, num_chains, vectorized=on_jax, verbose=0, output="values")
    return zip(*(found[number] for number in sorted(found)), strict=True)


def schedule(gradients):
    """Steps of an epoch, and from one sample to the next; both are whole numbers."""
    steps = gradients // EPOCHS
    thinning = max(1, gradients // 2 // SAMPLES)
    while steps % thinning:
        thinning -= 1
    return steps, thinning


warm_start = functools.cache(adam_weights)


def endless_batches(x, y, batch_size):
    """All rows each time, where a batch holds them, else shuffled minibatches."""
    if batch_size == len(y):
        return ((x, y) for _ in itertools.count())
    return shuffled_batches(x, y, batch_size, seed=0)


def outputs_at_test_points(posterior, chains):
    """Of the network, `(draws, chains, rows, units)`, float64."""
    samples = [list(sample.values()) for stored in chains for sample in stored]
    ensemble = kl.BayesianEnsembleModel(posterior.network(), samples, output="values")
    x = posterior.test[0]
    outputs = ensemble.predict_members(x, batch_size=posteriors.MOST_TEST_POINTS, verbose=0)
    shape = (len(chains), -1, *outputs.shape[1:])
    return outputs.astype("float64").reshape(shape).swapaxes(0, 1)


def measures(posterior, reference, outputs):
    """How far these draws are from the reference: `off` and `width` as there, of all chains and of
    each, the LPPD above the reference's, R-hat, and the share of the draws after which the running
    mean comes within `ENOUGH`, None where it never does.

    Args:
        outputs: `(draws, chains, rows, units)`.
    """
    found = references.of_draws(posterior, outputs)
    functions = posterior.likelihood.function(outputs)
    each = functions.swapaxes(0, 1)
    running = np.cumsum(functions.mean(axis=1), axis=0)
    running /= np.arange(1, len(running) + 1)[:, None, None]
    near = [reference.off(mean) <= ENOUGH for mean in running]
    return {
        "off": reference.off(found.mean),
        "width": reference.width(found.stddev),
        "chain_off": [reference.off(c.mean(axis=0)) for c in each],
        "chain_width": [reference.width(c.std(axis=0)) for c in each],
        "lppd_difference": found.lppd - reference.lppd,
        "r_hat": found.facts["r_hat"],
        "ess": found.facts["ess"],
        "samples": len(outputs) * len(each),
        "enough_after": (near.index(True) + 1) / len(near) if any(near) else None,
    }


if __name__ == "__main__":
    main()
