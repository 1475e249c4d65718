"""How to add a sampler: dynamics of your own, with all else that the package gives.

This one is the thermostat of Ding et al. (2014): a momentum r, and a friction that grows while r
is too hot, so that the noise of minibatches, whose size nobody knows, does not widen the
posterior. It is checked where the posterior is known: linear regression on the diabetes data.

    python examples/add_a_sampler.py
"""

import tempfile

import keras
import numpy as np
from keras import ops
from sklearn.datasets import load_diabetes

import keras_langevin as kl


@keras.saving.register_keras_serializable("add_a_sampler")
class Thermostat(kl.Sampler):
    """r ← (1 − hξ) r − hN∇G + √(2AhT) n,  θ ← θ + h r,  ξ ← ξ + h (r·r/d − T),  h = √(ℓ/N)."""

    def __init__(self, learning_rate, *, num_data, friction=10.0, **kwargs):
        super().__init__(learning_rate, num_data=num_data, **kwargs)
        self.friction = friction  # A, what the friction ξ is without minibatch noise

    def build_state(self):
        pairs = zip(self.layout.shapes, self.layout.names, strict=True)
        self.momenta = [self.add_state(shape, f"{name}_momentum") for shape, name in pairs]
        self.excess = self.add_state((), "excess_friction")  # ξ − A

    def advance(self, values, gradients, statistics, metric, learning_rate):
        slopes, normals = self.add_prior(values, gradients), self.normals(self.layout.shapes)
        h, temperature = ops.sqrt(learning_rate / self.num_data), self.step_temperature()
        kept, heat = 1 - h * (self.friction + self.excess), 2 * self.friction * temperature * h
        triples = zip(self.momenta, slopes, normals, strict=True)
        momenta = [kept * r - h * self.num_data * g + heat**0.5 * n for r, g, n in triples]
        hot = sum(ops.sum(r * r) for r in momenta) / self.layout.num_weights - temperature
        changes = [*zip(self.momenta, momenta, strict=True), (self.excess, self.excess + h * hot)]
        return [θ + h * r for θ, r in zip(values, momenta, strict=True)], changes

    def kinetic_energies(self):  # logs and report then have the kinetic temperature
        return [float(ops.mean(ops.square(r))) for r in self.momenta] if self.built else None

    def get_config(self):
        return {**super().get_config(), "friction": self.friction}


x, y = load_diabetes(return_X_y=True)
x, y = ((a - a.mean(axis=0)) / a.std(axis=0) for a in (x[:, [1, 2, 3, 8]], y))

# "mse" is −log N(y; ŷ, 1/2) and the prior N(0, 1): the posterior of kernel and bias is Gaussian.
design = np.c_[x, np.ones(len(x))]
covariance = np.linalg.inv(2 * design.T @ design + np.eye(5))
mean, stddev = covariance @ design.T @ (2 * y), np.sqrt(np.diag(covariance))


def run(epochs, directory):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(1, name="dense")]
    model = keras.Sequential(layers, name="linear")
    model.compile(Thermostat(0.02, num_data=len(x), prior=kl.priors.Normal(1.0), seed=1), "mse")
    sampler = kl.PosteriorSampler(burn_in=50, directory=directory, resume=True)
    batches, rest = kl.RandomBatches(x, y, 34), {"callbacks": [sampler], "verbose": 0}
    model.fit(batches, epochs=epochs, initial_epoch=sampler.epochs_seen, **rest)
    return sampler, [np.concatenate([a.ravel() for a in s.values()]) for s in sampler.samples]


with tempfile.TemporaryDirectory() as once, tempfile.TemporaryDirectory() as twice:
    (sampler, samples), _, (_, resumed) = run(600, once), run(80, twice), run(100, twice)
    ensemble, file = sampler.ensemble(), f"{once}/saved.keras"
    ensemble.save(file)
    predictions = [e.predict(x, verbose=0) for e in (ensemble, keras.saving.load_model(file))]
mean_error, width = np.abs(np.mean(samples, axis=0) - mean), np.std(samples, axis=0)
print(f"Largest error of a mean: {np.max(mean_error / stddev):.2f} standard deviations")
print(f"Standard deviations over the posterior's: {np.mean(width / stddev):.2f}")
print(f"Kinetic temperature: {ensemble.report(x, y, verbose=0)['kinetic_temperature']:.2f}")
print(f"Resumed run gives the same samples: {np.array_equal(samples[49], resumed[-1])}")
print(f"Reloaded ensemble differs by: {np.ptp(predictions, axis=0).max():.1e}")
