"""What do many chains cost as one program?

    python -m examples.benchmarks.many_chains

`kl.SGLD` and `kl.PosteriorSampler` in `kl.sample_chains`, 1 to 64 chains, on JAX: as one program
(`vectorized=True`), one after another, and for the regression blackjax' SGLD under `vmap` and
`scan` with the same network and batches. A regression 16-16-1 of 6,400 examples, batches of 64;
LeNet (5x5 convolutions of 6 and 16, dense 120, 84, 10) on 640 random images of 28x28 pixels,
batches of 64. An epoch ends with a sample of each chain. `first` is seconds of 2 epochs with
compilation, `step` milliseconds of a step of all chains, from the difference of a long and a short
run. blackjax stores nothing. XLA's convolutions on processors are slow where each chain has kernels
of its own: there one after another is faster. Rows go to `many_chains.jsonl`.
"""

import argparse
import os
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import keras_langevin as kl
from examples.benchmarks.timing import last_rows, page_of, versions
from examples.studies.common import pages
from examples.studies.common.results import Results

RESULTS = Path(__file__).parent
BATCH, SHORT = 64, 2
STEPS_PER_EXECUTION = 10


def regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6400, 16)).astype("float32")
    y = (np.sin(x[:, :1]) + 0.3 * rng.normal(size=(len(x), 1))).astype("float32")
    return x, y, kl.losses.GaussianNLL(0.3), dense


def dense():
    return keras.Sequential([keras.Input((16,)), layers.Dense(16, "tanh"), layers.Dense(1)])


def images():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(640, 28, 28, 1)).astype("float32"), rng.integers(0, 10, 640)
    return x, y, keras.losses.SparseCategoricalCrossentropy(from_logits=True), lenet


def lenet():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(6, 5, activation="tanh", padding="same"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            *(layers.Dense(units, "tanh") for units in (120, 84)),
            layers.Dense(10),
        ]
    )


PROBLEMS = {"regression": (regression, 40), "LeNet": (images, 6)}  # and epochs of a long run


def seconds_of_chains(problem, num_chains, epochs, vectorized):
    x, y, loss, network = problem

    def train_fn(chain):
        keras.utils.set_random_seed(chain)
        model = network()
        optimizer = kl.SGLD(1e-4, num_data=len(x))
        model.compile(optimizer, loss, steps_per_execution=STEPS_PER_EXECUTION)
        sampler = kl.PosteriorSampler(burn_in=0)
        model.fit(x, y, batch_size=BATCH, epochs=epochs, callbacks=[sampler], verbose=0)
        return sampler

    start = time.perf_counter()
    kl.sample_chains(train_fn, num_chains, vectorized=vectorized, verbose=0)
    return time.perf_counter() - start


def seconds_of_blackjax(problem, num_chains, epochs):
    import blackjax
    import jax
    import jax.numpy as jnp

    x, y, loss, network = problem
    start = time.perf_counter()
    models = [network() for _ in range(num_chains)]
    model, precisions = models[0], [float(v.shape[0]) / 4 for v in models[0].trainable_variables]
    weights = zip(*([v.value for v in m.trainable_variables] for m in models), strict=True)
    fixed = [v.value for v in model.non_trainable_variables]

    def log_density(values, batch):
        outputs, _ = model.stateless_call(values, fixed, batch[0], training=True)
        pairs = zip(values, precisions, strict=True)
        return -len(x) * loss(batch[1], outputs) - sum(0.5 * p * jnp.sum(v**2) for v, p in pairs)

    sgld = blackjax.sgld(jax.grad(log_density))

    def step(state, batch):
        keys, values = state
        keys, own = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        return (keys, jax.vmap(sgld.step, (0, 0, None, None))(own, values, batch, 1e-8)), None

    epoch = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches)[0])
    state = jax.random.split(jax.random.PRNGKey(0), num_chains), [jnp.stack(w) for w in weights]
    batches = tuple(np.reshape(a, (-1, BATCH, *a.shape[1:])) for a in (x, y))
    for _ in range(epochs):
        state = epoch(state, batches)
    jax.block_until_ready(state)
    return time.perf_counter() - start


WAYS = {
    "one program": lambda *run: seconds_of_chains(*run, vectorized=True),
    "one after another": lambda *run: seconds_of_chains(*run, vectorized=False),
    "blackjax": seconds_of_blackjax,
}


def measured(way, name, num_chains, turns):
    """Medians of turns, after a run that loads what a process loads once."""
    make, long = PROBLEMS[name]
    problem, found = make(), []
    WAYS[way](problem, 1, 1)
    for _ in range(turns):
        first, whole = (WAYS[way](problem, num_chains, epochs) for epochs in (SHORT, long))
        steps = (long - SHORT) * (len(problem[0]) // BATCH)
        found.append((first, 1e3 * (whole - first) / steps))
    first, step = (float(number) for number in np.median(found, axis=0))
    return {"first": first, "step": step, "machine": versions()}


def page(path):
    rows = last_rows(Results(path).rows, ("network", "way", "chains"))
    return page_of(__doc__, sorted(rows, key=lambda r: (r["network"] != "regression", r["chains"])))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=Path, help="folder; demo_output with --quick")
    options = parser.parse_args()
    folder = options.results or (Path("demo_output") if options.quick else RESULTS)
    results, turns = Results(folder / "many_chains.jsonl"), 1 if options.quick else 3
    for name in list(PROBLEMS)[:1] if options.quick else PROBLEMS:
        for num_chains in (16,) if options.quick else (1, 4, 16, 64):
            for way in list(WAYS)[:2] if options.quick or name == "LeNet" else WAYS:
                if way == "one after another" and num_chains > 16:
                    continue
                key = {"network": name, "chains": num_chains, "way": way}
                results.run(measured, way, name, num_chains, turns, **key)
    pages.write(page, results.path)


if __name__ == "__main__":
    main()
