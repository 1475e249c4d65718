"""Do NGD and SNGD give what Smith et al. (2018) show? Their Figures 1 to 5, with corrections.

    python -m examples.studies.natural_gradient.figures --figure 1  2 and 3 alike, no data needed
    python -m examples.studies.natural_gradient.figures --figure 4 --data-dir DIR  MNIST; 5 alike
    python -m examples.studies.natural_gradient.figures --quick  a minute, to see that it runs
    python -m examples.studies.natural_gradient.figures --report  page and drawings of what was run

1: logistic regression with two weights, N = 1000: which power of |M| does the law of each sampler
have? The posterior times a power of |M|, M = F + δ I, is integrated on a grid.
2, 3: logistic regression with 64 weights of which one matters, at temperatures from 1/8 to 8, which
injected noise (2) or the size of the minibatches (3) sets.
4, 5: a network of 850 weights on 10 random projections of MNIST images (without --data-dir of
scikit-learn's digits), N = 1024 or 4096, for several sizes of the minibatches.

Each run appends a line to the results file; what is in it is not run again. The page, beside it,
keeps what was written above its tables.

S. Smith, D. Duckworth, S. Rezchikov, Q. Le, J. Sohl-Dickstein, "Stochastic natural gradient descent
draws posterior samples in function space", arXiv:1806.09597v3, 2018.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from scipy.optimize import linprog
from scipy.special import expit, log_expit, log_softmax, logsumexp

import keras_langevin as kl
from examples.studies.common import digit_images, pages
from examples.studies.common.restartable import mlp
from examples.studies.common.results import Results
from examples.studies.natural_gradient import drawing
from keras_langevin.optimizers.natural_gradient import NaturalGradient

N, RATE, DAMPING = 1000, 0.1, 1e-4  # logistic regression
EVERY = 5  # steps from one stored sample to the next
TEMPERATURES = [2.0**k for k in range(-3, 4)]
TEST_SIZE = 10_000
NETWORK_RATE, NETWORK_DAMPING, FISHER_INPUTS = 1 / 8, 0.1, 1024
BATCHES = {4: (64, 16, 256, 32, 128, 512), 5: (256, 64, 1024, 128, 512)}
NUM_DATA = {4: 1024, 5: 4096}


def langevin(**kwargs):
    """Full-batch Langevin dynamics in F + δ I without a correction, as in the paper. The package
    has no public name for it: it samples no law that is known in closed form."""
    return NaturalGradient(RATE, temperature=1.0, injects_noise=True, **kwargs)


def snld(correction, **kwargs):
    return kl.SNGD(RATE, noise="gaussian", correction=correction, **kwargs)


def ngd(**kwargs):
    return kl.NGD(RATE, batch_size=50, **kwargs)


def sngd(correction, method, **kwargs):
    return kl.SNGD(RATE, batch_size=50, correction=correction, correction_method=method, **kwargs)


# Name: how the optimizer is made, batch size, the power of |M| in its law.
SAMPLERS = {
    "Langevin, uncorrected": (langevin, N, 1.0),
    "Langevin, divergence": (lambda **k: snld("divergence", **k), N, 0.0),
    "Langevin, jeffreys": (lambda **k: snld("jeffreys", **k), N, 0.5),
    "NGD": (ngd, 50, 1.0),
    "SNGD, divergence": (lambda **k: sngd("divergence", "midpoint", **k), 50, 0.0),
    "SNGD, jeffreys": (lambda **k: sngd("jeffreys", "finite_difference", **k), 50, 0.5),
    drawing.EPOCHS: (ngd, 50, 1.0),
}


def main():
    options = arguments()
    results = Results(options.results)
    for figure in [] if options.report else options.figures:
        FIGURES[figure](results, options)
    pages.write(page, options.results)
    drawing.draw_all(results.rows, options.results, SAMPLERS)


def page(path):
    return drawing.page(path, SAMPLERS)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--figure", choices=[*map(str, FIGURES), "all"], default="all")
    parser.add_argument("--data-dir", help="folder with mnist.npz and Fashion-MNIST, see README.md")
    parser.add_argument("--seeds", type=int, default=5, help="data sets, each with one chain")
    parser.add_argument("--chains", type=int, default=10, help="of figure 1, on one data set")
    parser.add_argument("--precision", type=float, default=20.0, help="of the prior, figures 4, 5")
    parser.add_argument("--scaled", action="store_true", help="figures 4, 5: features of unit sd")
    parser.add_argument("--steps", type=int, default=500, help="figures 4, 5: burn-in, and after")
    parser.add_argument("--batches", help="comma-separated, of figures 4 and 5")
    parser.add_argument("--results", type=Path, default=Path("demo_output/natural_gradient.jsonl"))
    parser.add_argument("--quick", action="store_true", help="few seeds, a tenth of the steps")
    parser.add_argument("--report", action="store_true", help="run nothing")
    options = parser.parse_args()
    options.figures = list(FIGURES)[:4] if options.figure == "all" else [int(options.figure)]
    if options.batches:
        options.batches = [int(size) for size in options.batches.split(",")]
    options.share = 0.1 if options.quick else 1.0
    if options.quick:
        options.seeds, options.chains = 1, 2
    return options


# ------------------------------------------------------------------------------------- chains


def compiled(network, optimizer, loss, inputs):
    """The model, its metric averaged over `inputs`."""
    compiles = keras.backend.backend() != "torch"
    network.compile(optimizer, loss, jit_compile=compiles, steps_per_execution=EVERY)
    kl.track_statistics(network, optimizer)
    optimizer.build(network.trainable_variables)
    optimizer.preconditioner.set_data(inputs)
    return network


def sampled(model, burn_in, *data, **fit):
    """One array a weight, every `EVERY`th step of `fit` after the first `burn_in`."""
    sampler = kl.PosteriorSampler(burn_in, EVERY, unit="step")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Batches that go through shuffled data")
        model.fit(*data, verbose=0, callbacks=[sampler], **fit)
    samples = list(sampler.samples)
    return [np.stack([sample[name] for sample in samples]) for name in samples[0]]


def logistic(features):
    dense = keras.layers.Dense(1, use_bias=False)
    return keras.Sequential([keras.Input((features,)), dense])


BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


def regression(features, seed, count=N):
    """Inputs and labels of a logistic regression whose true weights are (16, 0, 0, ...)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, features)).astype("float32")
    return x, (rng.random(count) < expit(16.0 * x[:, 0])).astype("float32")


# ----------------------------------------------------------------------------------- figure 1


def figure_1(results, options):
    x, y = regression(2, seed=0)
    burn_in = round(5000 * options.share)
    results.run(exact, x, y, figure=1, sampler="exact")
    for name, (make, batch_size, _) in SAMPLERS.items():
        chains = Chains(make, batch_size, x, y, epochs=name == drawing.EPOCHS)
        for chain in range(options.chains):
            key = {"figure": 1, "sampler": name, "burn_in": burn_in, "chain": chain}
            results.run(chains.run, burn_in, chain, **key)


class Chains:
    """Chains of one sampler on one data set, which share a compiled model.

    Args:
        epochs: True for Keras' epochs through shuffled data, False for independent batches.
    """

    def __init__(self, make, batch_size, x, y, epochs):
        self.make, self.batch_size, self.data, self.epochs = make, batch_size, (x, y), epochs
        self.model = None

    def run(self, burn_in, chain):
        """From zero, as many steps after `burn_in` as before."""
        start = time.perf_counter()
        keras.utils.set_random_seed(chain)
        x, y = self.data
        if self.model is None:
            optimizer = self.make(num_data=N, damping=DAMPING, num_examples=N, prior=None, seed=0)
            self.model = compiled(logistic(2), optimizer, BINARY, x)
        self.model.set_weights([np.zeros((2, 1))])
        self.model.optimizer.iterations.assign(100_000 * chain)  # the noise is a function of it
        if self.epochs:
            fit = {"batch_size": self.batch_size, "epochs": 2 * burn_in * self.batch_size // N}
            samples = sampled(self.model, burn_in, x, y, **fit)[0][..., 0]
        else:
            batches = kl.RandomBatches(x, y, self.batch_size, None, 2 * burn_in, seed=chain)
            samples = sampled(self.model, burn_in, batches)[0][..., 0]
        row = facts(samples) | {"seconds": time.perf_counter() - start}
        if self.epochs:
            last = N // self.batch_size // EVERY  # samples an epoch, the last at its end
            row["ends"] = facts(samples[last - 1 :: last])
        if chain == 0:
            row["points"] = samples.round(2).tolist()
        return row


def facts(samples):
    return {
        "mean": samples.mean(axis=0).tolist(),
        "covariance": np.cov(samples.T).tolist(),
        "size": kl.diagnostics.effective_sample_size(samples).tolist(),
    }


def exact(x, y):
    """The Laplace approximation, and moments of exp(−C) |M|^a on a grid for a = 0, 1/2, 1."""
    x, signs = x.astype("float64"), 2.0 * y - 1.0
    mode, covariance = laplace(x, signs)
    reach = 7 * np.sqrt(np.diag(covariance))
    axes = [np.linspace(m - r, m + 1.6 * r, 261) for m, r in zip(mode, reach, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    logs, determinants = np.concatenate(
        [densities(x, signs, part) for part in np.array_split(points, 99)], axis=1
    )
    row = {"mode": mode.tolist(), "covariance": covariance.tolist()}
    # The variances of a minibatch's noise, with the completion noise, over those it should have.
    p = expit(x @ mode)
    ratio = [np.mean(x.T**2 * v, axis=1) + DAMPING for v in ((y - p) ** 2, p * (1 - p))]
    row["noise"] = (ratio[0] / ratio[1]).tolist()
    for power in (0.0, 0.5, 1.0):
        weights = np.exp(logs - logs.max() + power * (determinants - determinants.max()))
        weights /= weights.sum()
        mean = weights @ points
        row[f"power {power:g}"] = {
            "mean": mean.tolist(),
            "covariance": ((points - mean).T @ ((points - mean) * weights[:, None])).tolist(),
        }
    return row


def densities(x, signs, points):
    """−C and log |M| at some points."""
    logits = points @ x.T
    variance = expit(logits) * expit(-logits) / len(x)
    a, b, c = (variance @ (x[:, i] * x[:, j]) for i, j in ((0, 0), (0, 1), (1, 1)))
    determinant = (a + DAMPING) * (c + DAMPING) - b**2
    return np.stack([log_expit(signs * logits).sum(axis=1), np.log(determinant)])


def laplace(x, signs):
    """The maximum of the likelihood, by Newton's method, and the inverse of N F there."""
    weights = np.zeros(x.shape[1])
    for _ in range(100):
        p = expit(-signs * (x @ weights))
        hessian = (x * (p * (1 - p))[:, None]).T @ x
        weights = weights + np.linalg.solve(hessian, x.T @ (signs * p))
    return weights, np.linalg.inv(hessian)


# ----------------------------------------------------------------------------- figures 2 and 3


def figure_2(results, options):
    temperatures(results, options, 2)


def figure_3(results, options):
    temperatures(results, options, 3)


def temperatures(results, options, figure):
    burn_in = round(1000 * options.share)
    chosen = TEMPERATURES[::3] if options.quick else TEMPERATURES
    for seed in range(options.seeds):
        results.run(reference, seed, figure=2, burn_in=0, data=seed)
        for temperature in chosen:
            key = {"figure": figure, "burn_in": burn_in, "temperature": temperature, "seed": seed}
            results.run(at_temperature, figure, burn_in, temperature, seed, **key)


def at_temperature(figure, burn_in, temperature, seed):
    keras.utils.set_random_seed(seed)
    x, y = regression(64, seed)
    arguments = {"num_data": N, "damping": DAMPING, "num_examples": N, "prior": None, "seed": seed}
    if figure == 2:
        arguments |= {"temperature": temperature, "injects_noise": True}
        optimizer, batch_size = NaturalGradient(RATE, **arguments), N
    else:
        optimizer = kl.NGD(RATE, temperature=temperature, **arguments)
        batch_size = optimizer.batch_size
    model = compiled(logistic(64), optimizer, BINARY, x)
    batches = kl.RandomBatches(x, y, batch_size, None, 2 * burn_in, seed=seed)
    weights = sampled(model, burn_in, batches)[0][..., 0]
    x, y = regression(64, 1000 + seed, TEST_SIZE)
    logits = weights @ x.T
    log_probs = np.stack([log_expit(-logits), log_expit(logits)], axis=-1)
    row = {"batch_size": batch_size, "relevant_weight": float(weights[:, 0].mean())}
    return row | scores(log_probs, y.astype(int))


def reference(seed):
    """Can the training data be separated, so that the likelihood has no maximum? And the test
    cross-entropy of the true weights."""
    x, y = regression(64, seed)
    signed = x * (2.0 * y - 1.0)[:, None]
    found = linprog(np.zeros(64), A_ub=-signed, b_ub=-np.ones(N), bounds=(None, None))
    x, y = regression(64, 1000 + seed, TEST_SIZE)
    truth = -np.mean(log_expit((2.0 * y - 1.0) * 16.0 * x[:, 0]))
    return {"separable": bool(found.success), "truth": float(truth)}


def scores(log_probs, labels):
    """Of the mean prediction of the members and, averaged, of single ones; `log_probs` has the
    shape (members, examples, classes)."""
    ensemble = logsumexp(log_probs, axis=0) - np.log(len(log_probs))
    row = {}
    for name, logs in {"ensemble": ensemble[None], "single": log_probs}.items():
        right = np.take_along_axis(logs, labels[None, :, None], axis=-1)
        row[f"{name}_loss"] = -float(right.mean())
        row[f"{name}_accuracy"] = float((logs.argmax(axis=-1) == labels).mean())
    return row


# ----------------------------------------------------------------------------- figures 4 and 5


def figure_4(results, options):
    batch_sizes(results, options, 4)


def figure_5(results, options):
    batch_sizes(results, options, 5)


def batch_sizes(results, options, figure):
    """A whole seed before the next, so that what there is can be compared at any time."""
    dataset = "mnist" if options.data_dir else "digits"
    images = digit_images.load(dataset, options.data_dir)
    setting = {
        "figure": figure,
        "dataset": dataset,
        "burn_in": round(options.steps * options.share),
        "precision": options.precision,
        "scaled": options.scaled,
    }
    for seed in range(options.seeds):
        for batch_size in options.batches or BATCHES[figure][: 2 if options.quick else None]:
            key = setting | {"batch_size": batch_size, "seed": seed}
            results.run(network_run, images, setting, batch_size, seed, **key)


def network_run(images, setting, batch_size, seed):
    """Another projection, training set and chain for every seed; the same for all batch sizes."""
    start = time.perf_counter()
    keras.utils.set_random_seed(seed)
    train, inputs, test = projected(images, setting, seed)
    optimizer = kl.NGD(
        NETWORK_RATE,
        num_data=len(train[0]),
        batch_size=batch_size,
        damping=NETWORK_DAMPING,
        num_examples=len(inputs),
        num_draws=1,
        prior=kl.priors.Normal(setting["precision"] ** -0.5),
        seed=seed,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = compiled(mlp(10, 40, 10), optimizer, loss, inputs)
    burn_in = setting["burn_in"]
    batches = kl.RandomBatches(*train, batch_size, None, 2 * burn_in, seed=seed)
    weights = sampled(model, burn_in, batches)
    row = scores(predictions(*weights, test[0]), test[1])
    return row | {"temperature": optimizer.temperature, "seconds": time.perf_counter() - start}


def projected(images, setting, seed):
    """Training data, the inputs of the Fisher matrix, test data; 10 features of each image."""
    rng = np.random.default_rng(seed)
    count = min(NUM_DATA[setting["figure"]], len(images.x_train) // 2)
    matrix = rng.normal(size=(images.x_train.shape[1], 10))
    rows = rng.permutation(len(images.x_train))[: count + min(FISHER_INPUTS, count)]
    x, x_test = images.x_train[rows] @ matrix, images.x_test @ matrix
    if setting["scaled"]:
        x_test = (x_test - x[:count].mean(axis=0)) / x[:count].std(axis=0)
        x = (x - x[:count].mean(axis=0)) / x[:count].std(axis=0)
    x, x_test = x.astype("float32"), x_test.astype("float32")
    train = x[:count], images.y_train[rows][:count]
    return train, x[count:], (x_test, images.y_test)


def predictions(kernels, biases, last_kernels, last_biases, x):
    """Log probabilities, (members, examples, classes), in NumPy."""
    hidden = np.maximum(x @ kernels + biases[:, None], 0.0)
    return log_softmax(hidden @ last_kernels + last_biases[:, None], axis=-1)


FIGURES = {1: figure_1, 2: figure_2, 3: figure_3, 4: figure_4, 5: figure_5}


if __name__ == "__main__":
    main()
