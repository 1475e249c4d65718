"""Effective samples per second: which sampler says most about the posterior in a given time?

    KERAS_BACKEND=jax python -m examples.benchmarks.effective_samples regression
    KERAS_BACKEND=jax python -m examples.benchmarks.effective_samples mnist --data-dir DIR
    KERAS_BACKEND=jax python -m examples.benchmarks.effective_samples digits

- regression: `Dense(500)` on shared data is 500 independent Bayesian linear regressions of 1,000
  examples, all in a batch, and 20 inputs with means of twice their standard deviations, which run
  from 0.3 to 3. Chains start with draws from the posterior; the samples are the weights along the
  eigenvectors of its covariance, whose exact variance is known. Every method runs at ηλ = 0.18,
  which makes the stiffest variance 1/(1 - ηλ/2) = 1.10 of the posterior's.
- mnist: 196-50-50-10 on 10,000 images of MNIST shrunk to 14x14, batches of 500; digits:
  64-100-100-10 on scikit-learn's 1,078. T = 1. Every method runs at the learning rate that "auto"
  takes for it, measured at the common start: a point that `kl.QDOPLangevin` reaches from Adam's.
  The samples are class probabilities of held-out images (a probe in function space); the NLL of
  the ensemble stands beside.

λ, the largest curvature in units of the metric, is that of `kl.diagnostics.step_size`. Peers take
the learning rate of `kl.SGLD`, whose dynamics is theirs.

Effective samples are those of `kl.diagnostics.effective_sample_size`; time is that of a step inside
`fit`, ten an execution (peers: of their compiled step), all methods in turns. Peers as in
`step_time.py`. Rows go to `effective_samples.jsonl`; what is there is not run again, but
for the time.
"""

import argparse
import functools
import itertools
from pathlib import Path

import keras
import numpy as np

import keras_langevin as kl
from examples.benchmarks import peers
from examples.benchmarks.predict import RESULTS, network, softmax
from examples.benchmarks.timing import interleaved, page_of, versions
from examples.studies.common import digit_images, pages
from examples.studies.common.results import Results

STIFFNESS = 0.18  # ηλ of the regression
OWN = {
    "SGLD": kl.SGLD,
    "RMSPropLangevin": kl.RMSPropLangevin,
    "DOPLangevin": kl.DOPLangevin,
    "QDOPLangevin": kl.QDOPLangevin,
}


class Problem:
    """What is sampled and how long.

    Attributes:
        x, y: Training data of an epoch.
        num_data, batch_size: N and B.
        sizes: Of the network's layers.
        loss: Of Keras; N times it is the negative log likelihood.
        log_likelihood: The same for peers.
        start: Weights of the first point.
        is_shuffled: Whether minibatches are drawn.
        burn_in, thinning, draws: In steps, steps, samples.
    """

    def network(self):
        model = network(self.sizes)
        model.set_weights(self.start)
        return model

    def compiled(self, optimizer):
        model = self.network()
        is_compiled = keras.backend.backend() != "torch"
        model.compile(
            optimizer,
            self.loss,
            jit_compile=is_compiled,
            steps_per_execution=10 if is_compiled else 1,
        )
        return kl.warm_up_metric(model, self.x, self.y, self.batch_size)

    def learning_rate(self, cls):
        model = self.compiled(cls(1e-9, num_data=self.num_data, prior=peers.PRIOR))
        found = kl.diagnostics.step_size(model, self.x, self.y, self.batch_size)
        return float(f"{self.rate_from(found):.4g}")

    def epoch(self, model):
        return lambda: model.fit(
            self.x, self.y, self.batch_size, shuffle=self.is_shuffled, verbose=0
        )

    def batches(self, rng):
        """Of one epoch, for peers."""
        generator = rng if self.is_shuffled else None
        return peers.batches(self.x, self.y, self.batch_size, generator)

    def endless_batches(self, seed):
        rng = np.random.default_rng(seed)
        while True:
            yield from self.batches(rng)


class HalfSquaredError(keras.losses.Loss):
    """−log N(y; ŷ, 1) summed over the last axis, without the constant."""

    def call(self, y_true, y_pred):
        return 0.5 * keras.ops.sum(keras.ops.square(y_true - y_pred), axis=-1)


class Regression(Problem):
    """The epoch is the data fifty times."""

    sizes = (20, 500)
    num_data = batch_size = 1000
    loss, log_likelihood = HalfSquaredError(), staticmethod(peers.gaussian)
    is_shuffled = False
    burn_in = 0

    def __init__(self, options):
        self.thinning, self.draws = (10, 20) if options.quick else (50, 100)
        rng, (inputs, chains) = np.random.default_rng(0), self.sizes
        deviations = np.geomspace(0.3, 3.0, inputs)
        x = deviations * (2.0 + rng.standard_normal((self.num_data, inputs)))
        design = np.c_[x, np.ones(len(x))]
        y = design @ rng.standard_normal(inputs + 1) + rng.standard_normal(len(x))
        of_weight, of_bias = peers.prior_precisions(network(self.sizes))
        precision = np.append(np.full(inputs, of_weight), of_bias)
        covariance = np.linalg.inv(design.T @ design + np.diag(precision))
        variances, directions = np.linalg.eigh(covariance)
        self.spread = directions * np.sqrt(variances)
        self.mean = (covariance @ design.T @ y)[:, None]
        start = self.mean + self.spread @ rng.standard_normal((inputs + 1, chains))
        self.start = [start[:-1], start[-1]]
        self.x = np.tile(x.astype("float32"), (50, 1))
        self.y = np.tile(y[:, None].astype("float32"), (50, 1))

    def rate_from(self, step_size):
        return STIFFNESS / step_size.largest_eigenvalue

    def quantities(self, weights):
        """Along the eigenvectors of the covariance, in standard deviations: (21, chains)."""
        kernel, bias = weights
        return np.linalg.solve(self.spread, np.r_[kernel, bias[None]] - self.mean)

    def found(self, draws):
        """Of one chain, in the median and the slowest direction."""
        chains = list(np.moveaxis(draws, -1, 0))
        effective = kl.diagnostics.effective_sample_size(chains) / len(chains)
        variances = np.mean(draws**2, axis=(0, 2))
        return {
            "effective samples": float(np.median(effective)),
            "in the slowest direction": float(effective.min()),
            "largest variance": float(variances.max()),
        }


class Images(Problem):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    log_likelihood = staticmethod(peers.categorical)
    is_shuffled = True
    probe = 200  # images

    def __init__(self, options):
        self.burn_in, self.thinning, self.draws = (10_000, 100, 500)
        if options.quick:
            self.burn_in, self.thinning, self.draws = 100, 10, 20
        is_small = options.problem == "digits"
        data = digit_images.load(options.problem, options.data_dir)
        shrink = (lambda x: x) if is_small else shrunk
        self.batch_size, epochs = (98, (30, 300)) if is_small else (500, (20, 100))
        self.sizes = (64, 100, 100, 10) if is_small else (196, 50, 50, 10)
        self.x, self.y = shrink(data.x_train[:10_000]), data.y_train[:10_000].astype("int32")
        self.x_test, self.y_test = shrink(data.x_test), data.y_test
        self.num_data = len(self.x)
        keras.utils.set_random_seed(0)
        self.model = network(self.sizes)
        optimizers = "adam", kl.QDOPLangevin(num_data=self.num_data, prior=peers.PRIOR)
        for optimizer, count in zip(optimizers, epochs, strict=True):
            self.model.compile(optimizer, self.loss)
            sampler = kl.PosteriorSampler(burn_in=count)  # it chooses the learning rate
            callbacks = [sampler] if optimizer != "adam" else []
            self.model.fit(self.x, self.y, self.batch_size, count, callbacks=callbacks, verbose=0)
        kl.untrack_statistics(self.model)
        self.start = self.model.get_weights()

    def rate_from(self, step_size):
        return step_size.recommended

    def quantities(self, weights):
        """Class probabilities of the test images."""
        self.model.set_weights(weights)
        return softmax(self.model.predict(self.x_test, batch_size=1000, verbose=0))

    def found(self, draws):
        """Of the probabilities of the first images, and the NLL on all."""
        effective = kl.diagnostics.effective_sample_size(draws[:, : self.probe], "bulk")
        nll = kl.calibration.negative_log_likelihood(draws.mean(0), self.y_test)
        return {
            "effective samples": float(np.nanmedian(effective)),
            "in the slowest direction": float(np.nanquantile(effective, 0.05)),
            "NLL of the ensemble": float(nll),
        }


def shrunk(images):
    """28x28 to 14x14."""
    return images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)


PROBLEMS = {"regression": Regression, "mnist": Images, "digits": Images}


# ----------------------------------------------------------------------------------- chains


def own_draws(problem, cls, learning_rate, seed):
    keras.utils.set_random_seed(seed)
    model = problem.compiled(
        cls(learning_rate, num_data=problem.num_data, prior=peers.PRIOR, seed=seed)
    )
    sampler = kl.PosteriorSampler(problem.burn_in, problem.thinning, unit="step")
    last = problem.burn_in + problem.draws * problem.thinning
    epochs = -(-last // (len(problem.x) // problem.batch_size))
    model.fit(
        problem.x,
        problem.y,
        problem.batch_size,
        epochs,
        shuffle=problem.is_shuffled,
        callbacks=[sampler],
        verbose=0,
    )
    chosen = itertools.islice(sampler.samples, problem.draws)
    return np.stack([problem.quantities(list(sample.values())) for sample in chosen])


def peer_draws(problem, cls, learning_rate, seed):
    peer = cls(problem.network(), problem.log_likelihood, learning_rate, problem.num_data, seed)
    batches = problem.endless_batches(seed)
    peer.run(itertools.islice(batches, problem.burn_in))
    draws = []
    for _ in range(problem.draws):
        peer.run(itertools.islice(batches, problem.thinning))
        draws.append(problem.quantities(peer.get_weights()))
    return np.stack(draws)


def measured(problem, name, learning_rate, seed):
    """Effective samples in 1000 steps."""
    if name in OWN:
        draws = own_draws(problem, OWN[name], learning_rate, seed)
    else:
        draws = peer_draws(problem, peers.installed()[name], learning_rate, seed)
    found = problem.found(draws)
    steps = problem.draws * problem.thinning / 1000
    for key in ("effective samples", "in the slowest direction"):
        found[key] /= steps
    return found


def learning_rate(problem, name, rates):
    found = problem.learning_rate(OWN[name]) if name in OWN else rates["SGLD"]
    return {"learning rate": found}


def milliseconds(problem, rates, turns):
    """Of a step, by method, all in turns."""
    epochs = {}
    for name, rate in rates.items():
        if name in OWN:
            model = problem.compiled(OWN[name](rate, num_data=problem.num_data, prior=peers.PRIOR))
            epochs[name] = problem.epoch(model)
        else:
            make = peers.installed()[name]
            peer = make(problem.network(), problem.log_likelihood, rate, problem.num_data)
            batches = problem.batches(np.random.default_rng(0))
            epochs[name] = lambda peer=peer, batches=batches: peer.run(batches)
    seconds = interleaved(epochs, turns)
    steps = len(problem.x) // problem.batch_size
    return {name: 1e3 * float(np.median(s)) / steps for name, s in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("--data-dir", type=Path, help="of MNIST")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", help="comma-separated; all that are installed")
    parser.add_argument("--turns", type=int, default=7, help="for the time")
    parser.add_argument("--quick", action="store_true", help="a short chain")
    parser.add_argument("--results", type=Path, help="folder; demo_output with --quick")
    options = parser.parse_args()
    folder = options.results or (Path("demo_output") if options.quick else RESULTS)
    results = Results(folder / "effective_samples.jsonl")
    problem = PROBLEMS[options.problem](options)
    key = {"problem": options.problem, "backend": keras.backend.backend()}
    rates = {}
    known = [*OWN, *peers.installed()]
    for name in options.methods.split(",") if options.methods else known:
        own_key = key | {"method": name}
        find = functools.partial(learning_rate, problem, name, rates)
        rates[name] = results.run(find, **own_key, kind="rate")["learning rate"]
        for seed in range(options.seeds):
            run = functools.partial(measured, problem, name, rates[name], seed)
            results.run(run, **own_key, kind="samples", seed=seed)
    times = milliseconds(problem, rates, options.turns)
    for name, value in times.items():
        results.add({**key, "method": name, "kind": "time", "ms a step": value, "by": versions()})
    pages.write(page, results.path)


def page(path):
    return page_of(__doc__, page_rows(Results(path).rows))


def page_rows(rows):
    """Means over seeds, ± their standard errors, and with the last time of every method the
    effective samples a second."""
    groups = {}
    for row in rows:
        name = tuple(row[k] for k in ("problem", "backend", "method"))
        groups.setdefault(name, []).append(row)
    lines = []
    for (problem, backend, method), own in groups.items():
        if {"rate", "samples", "time"} - {row["kind"] for row in own}:
            continue
        rate, time = (last(own, kind) for kind in ("rate", "time"))
        samples = [r for r in own if r["kind"] == "samples"]
        second = [r["effective samples"] / time["ms a step"] for r in samples]
        lines.append(
            {
                "problem": problem,
                "backend": backend,
                "method": method,
                "learning rate": rate["learning rate"],
                "seeds": len(samples),
                "effective samples in 1,000 steps": spread(samples, "effective samples"),
                "in the slowest direction": spread(samples, "in the slowest direction"),
                "ms a step": time["ms a step"],
                "effective samples a second": float(np.mean(second)),
            }
            | {k: spread(samples, k) for k in QUALITY if k in samples[0]}
        )
    return lines


QUALITY = ("largest variance", "NLL of the ensemble")


def last(rows, kind):
    return [row for row in rows if row["kind"] == kind][-1]


def spread(rows, name):
    values = [row[name] for row in rows]
    if len(values) == 1:
        return values[0]
    return f"{np.mean(values):.3g} ± {np.std(values, ddof=1) / len(values) ** 0.5:.2g}"


if __name__ == "__main__":
    main()
