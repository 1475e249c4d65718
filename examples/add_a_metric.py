"""How to add a metric: one number for each array of weights, learned while the network trains.

A metric M says how large a step is in each direction: the drift is divided by M, the noise by its
root, and the posterior stays what it was. This one keeps, for every array of weights, the mean of
the squared gradients of single examples: layers move at one pace, at the price of a number a layer
in the place of one a weight. A metric that averages over minibatches writes three methods; one
with a number for each weight, or for each array, inherits its linear algebra from `Diagonal`.

    python examples/add_a_metric.py
"""

import keras
from keras import ops
from sklearn.datasets import load_digits

import keras_langevin as kl


@keras.saving.register_keras_serializable("add_a_metric")
class ArrayFisher(kl.preconditioners.Diagonal, kl.preconditioners.AveragingPreconditioner):
    """M = E[g²] + prior precision / N, averaged over the entries of each array of weights."""

    statistics = "diagonal"  # has the layers measure E[g²], g the gradient of one example's loss

    def build_state(self, add_variable):
        self.sources = [None] * len(self.layout.shapes)  # of arrays that no layer rule measures
        for block in self.layout.blocks:
            self.sources[block.kernel] = block.statistics["second_moment"]
            if block.bias is not None:
                self.sources[block.bias] = block.statistics["bias_second_moment"]
        return [add_variable((), f"{name}_second_moment") for name in self.layout.names]

    def averages(self, gradients, statistics, rate):
        new = [1.0 if i is None else ops.mean(statistics[i]) for i in self.sources]
        return [(1 - rate) * old + rate * m for old, m in zip(self.states, new, strict=True)]

    def metric(self, states):
        pairs = zip(states, self.layout.prior_precisions, strict=True)
        return [ops.maximum(m + precision, 1e-8) for m, precision in pairs]


def network(optimizer):
    layers = [keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


x, y = load_digits(return_X_y=True)
x = (x / 16.0).astype("float32")
x, x_test, y, y_test = x[:1200], x[1200:], y[:1200], y[1200:]
target = {"num_data": len(x), "temperature": 0.1, "prior": kl.priors.FanInNormal(20.0)}

# The same metric in dynamics without and with a momentum; "auto" fills it, then finds the rate.
keras.utils.set_random_seed(0)
for dynamics in (kl.LangevinOptimizer, kl.SGHMC):
    model = network(dynamics("auto", preconditioner=ArrayFisher(), **target))
    sampler = kl.PosteriorSampler(burn_in=20)
    model.fit(x, y, batch_size=100, epochs=40, verbose=0, callbacks=[sampler])
    ensemble = sampler.ensemble()
    report = ensemble.report(x_test, y_test, verbose=0)
    print(f"Accuracy by {dynamics.__name__}: {report['accuracy']:.3f}")
    print(f"Nats an image by {dynamics.__name__}: {report['negative_log_likelihood']:.3f}")

# A network that Adam has trained starts with a metric that knows the data.
model = network("adam")
model.fit(x, y, batch_size=100, epochs=20, verbose=0)
optimizer = kl.LangevinOptimizer(1e-3, preconditioner=ArrayFisher(), **target)
model.compile(optimizer, model.loss)
kl.warm_up_metric(model, x, y, batch_size=100)
state = [float(ops.convert_to_numpy(v)) for v in optimizer.preconditioner.states]
print(f"Numbers in the metric: {len(state)} for {model.count_params()} weights")
