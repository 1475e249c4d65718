"""Why the metrics differ: curvature in units of each, and effective samples per second.

    python -m examples.studies.mnist.why --dataset mnist --data-dir DIR --results R.csv

For each of the four samplers, with the settings that `natural_langevin.py tune` chose for it
at T = 1 and wrote to R.csv: largest eigenvalue and condition number of C H at the warm start and
after training, then a chain with ten samples an epoch, whose predictions on 200 held-out images
give effective samples (of log-probabilities of the right class) per second of training. Appends
to R_why.json; what is in it is not run again.
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np

import keras_langevin as kl
from examples.studies.common import digit_images
from examples.studies.common.digit_network import network
from examples.studies.mnist.methods import METHODS
from examples.studies.mnist.natural_langevin import BATCH_SIZES, best_trial, tuning_task
from examples.studies.mnist.results import Results
from examples.studies.mnist.training import METRIC_BATCHES, chain_optimizer, fit, warm_start

SAMPLERS = ("sgld-t1", "rmsprop-t1", "dop-t1", "qdop-t1")
CURVATURE_EXAMPLES, LANCZOS_STEPS = 5000, 80
PROBES, SAMPLES_PER_EPOCH = 200, 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", choices=BATCH_SIZES, default="digits")
    parser.add_argument("--data-dir", help="as in natural_langevin.py")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60, help="a third of them burn-in")
    options = parser.parse_args()
    images = digit_images.load(options.dataset, options.data_dir)
    task = tuning_task(images, BATCH_SIZES[options.dataset])
    results = Results(options.results)
    path = results.why_path
    done = results.why()
    for name in SAMPLERS:
        if name not in done:
            settings = {**best_trial(results, name).settings, **METHODS[name].fixed}
            done[name] = measure(METHODS[name], settings, task, options.epochs)
            path.write_text(json.dumps(done, indent=2) + "\n")
        print(name, json.dumps(done[name]), flush=True)


def measure(method, settings, task, epochs):
    keras.utils.set_random_seed(0)
    weights, _ = warm_start(task, 0)
    model = network(task.x.shape[1], 0.0)
    model.set_weights(weights)
    optimizer = chain_optimizer(method, settings, model, task)
    burn_in = epochs // 3
    thinning = max(task.steps // SAMPLES_PER_EPOCH, 1)
    start = fit_and_time(model, optimizer, task, 1, [])  # compiles
    model.set_weights(weights)
    kl.warm_up_metric(model, task.x, task.y, task.batch_size, num_batches=METRIC_BATCHES)
    before = curvature(model, task)
    sampler = kl.PosteriorSampler(burn_in * task.steps, thinning, unit="step")
    seconds = fit_and_time(model, optimizer, task, epochs, [sampler], compiled=True)
    members = sampler.ensemble().predict_members(task.x_test[:PROBES], PROBES, verbose=0)
    right = np.log(members[:, np.arange(PROBES), task.y_test[:PROBES]] + 1e-12)
    sizes = kl.diagnostics.effective_sample_size(right)
    sampling_seconds = seconds * (epochs - burn_in) / epochs
    return {
        "settings": settings,
        "warm start": before,
        "trained": curvature(model, task),
        "samples": len(members),
        "effective_samples": float(np.nanmedian(sizes)),
        "effective_samples_per_second": float(np.nanmedian(sizes)) / sampling_seconds,
        "r_hat": float(np.nanmedian(kl.diagnostics.r_hat(right))),
        "seconds_per_step": seconds / (epochs * task.steps),
        "compile_seconds": start,
    }


def fit_and_time(model, optimizer, task, epochs, callbacks, compiled=False):
    start = time.perf_counter()
    if compiled:
        model.fit(task.x, task.y, task.batch_size, epochs, verbose=0, callbacks=callbacks)
    else:
        fit(model, optimizer, task, epochs, callbacks)
    return time.perf_counter() - start


def curvature(model, task):
    rows = slice(CURVATURE_EXAMPLES)
    found = kl.diagnostics.curvature(model, task.x[rows], task.y[rows], num_steps=LANCZOS_STEPS)
    return {"largest": found.largest, "smallest": found.smallest}


if __name__ == "__main__":
    main()
