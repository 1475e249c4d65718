"""How to add a likelihood: counts, as Poisson numbers whose logarithmic rate the network predicts.

A likelihood is a loss, the negative logarithm of the density p(y | outputs), and a family, which
says what an ensemble, a report and `fisher="model"` need to know of it. Here a network learns how
many disasters the coal mines of Britain had a year (Jarrett, Biometrika 66, 1979).

    python examples/add_a_likelihood.py
"""

import pathlib
import tempfile

import keras
import numpy as np
from keras import ops

import keras_langevin as kl

# From 1851 on, a digit a year: how many times ten miners or more died.
DISASTERS = """454014340633402633545314415534252234213221111300101100310322011101010002
               100011023311211112420014000100000100101"""


def log_poisson(y, log_rate):
    return y * log_rate - ops.exp(log_rate) - kl.predictive.log_gamma(y + 1)


@keras.saving.register_keras_serializable("add_a_likelihood")
class PoissonNLL(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return -ops.sum(log_poisson(y_true, y_pred), axis=-1)


@kl.predictive.register_family(PoissonNLL)
class Poisson(kl.predictive.Family):
    output, meaning = "log_rates", "logarithms of the rates of counts"  # `"poisson"` has rates
    support = "counts"

    def parameters(self, outputs):  # what `predict_members` gives
        return ops.exp(outputs)

    def mean(self, rate):
        return rate

    def variance(self, rate):
        return rate

    def log_likelihood(self, outputs, y):
        return log_poisson(y, outputs)

    def fisher_scores(self, outputs, draws):  # the Fisher information of log λ is λ
        return ops.exp(0.5 * outputs) * draws

    def sample(self, rate, generator):
        return generator.poisson(rate)

    def guess(self, y):  # what the mean of all labels would reach
        return -ops.mean(log_poisson(y, ops.log(ops.mean(y))))


keras.utils.set_random_seed(0)
y = np.array([[int(digit)] for digit in "".join(DISASTERS.split())], "float32")
x = np.linspace(-2, 2, len(y), dtype="float32")[:, None]
test = np.arange(len(y)) % 4 == 1  # every fourth year is held out
hidden = keras.layers.Dense(8, activation="tanh")
model = keras.Sequential([keras.Input((1,)), hidden, keras.layers.Dense(1)])
model.compile(kl.DOPLangevin(0.03, num_data=83, fisher="model"), loss=PoissonNLL())
sampler = kl.PosteriorSampler(burn_in=200, thinning=8)
model.fit(x[~test], y[~test], batch_size=83, epochs=1000, verbose=0, callbacks=[sampler])
report = sampler.ensemble().report(x[test], y[test], verbose=0)

with tempfile.TemporaryDirectory() as folder:
    sampler.ensemble().save(pathlib.Path(folder, "disasters.keras"))
    ensemble = keras.saving.load_model(pathlib.Path(folder, "disasters.keras"))
rate = ensemble.predict(x, verbose=0)
print(f"Disasters a year: {rate[:30].mean():.2f} at first, {rate[-30:].mean():.2f} at last")
print(f"Inside the 90 % interval: {report['coverage_90']:.0%} of the years held out")
for name in ("", "_of_members", "_of_guessing"):
    print(f"Nats a year{name.replace('_', ' ')}: {report['negative_log_likelihood' + name]:.3f}")
print(f"Nats a year when read again: {ensemble.evaluate(x[test], y[test], verbose=0):.3f}")
