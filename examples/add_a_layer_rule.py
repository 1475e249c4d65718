"""How to add a layer rule: a layer of your own is measured and sampled in a natural metric.

`kl.QDOPLangevin` and its like measure the gradient of every example from the input of a layer
and the gradient of its output. For a layer class of your own a rule says how the two meet in the
kernel. Here every row of a digit has weights of its own, so the kernel has three axes; a second
look, computed example by example without the rule, confirms what was measured.

    python examples/add_a_layer_rule.py
"""

import keras
import numpy as np
from keras import ops
from sklearn.datasets import load_digits

import keras_langevin as kl


@keras.saving.register_keras_serializable("add_a_layer_rule")
class RowDense(keras.layers.Layer):
    """tanh(x K + b) with another K and b for each row of the input, (rows, inputs)."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.activation = units, keras.activations.tanh

    def build(self, input_shape):
        rows, inputs = input_shape[1:]
        self.kernel = self.add_weight(shape=(rows, inputs, self.units), name="kernel")
        self.bias = self.add_weight(shape=(rows, self.units), initializer="zeros", name="bias")

    def call(self, inputs):
        return self.activation(_each_row(inputs, self.kernel) + self.bias)

    def get_config(self):
        return {"units": self.units, **super().get_config()}


def _each_row(features, kernel):
    return ops.einsum("bri,riu->bru", features, kernel)


@kl.statistics.register_rule(RowDense)
class RowDenseRule(kl.statistics.LayerRule):
    def blocks(self, layer):  # the activation is found by its name, `layer.activation`
        rows, inputs, units = layer.kernel.shape
        shapes = {"bias_shape": (rows, 1, units), "shift_shape": (rows, inputs, 1)}
        return [kl.statistics.Block(layer.kernel, _each_row, layer.bias, **shapes)]


def network():
    first = RowDense(8)
    return keras.Sequential([keras.Input((8, 8)), first, keras.layers.Flatten(), *[
        keras.layers.Dense(10)]])


keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 16.0).astype("float32").reshape(-1, 8, 8)
train, test = slice(0, 1200), slice(1200, None)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# Is the rule right? A step that moves nothing measures; the reference differentiates.
model = network()
model.compile(kl.DOPLangevin(0.0, num_data=20, temperature=0.0, statistics_stride=1), loss)
kl.track_statistics(model, model.optimizer, spatial="exact")
model.fit(x[:20], y[:20], batch_size=20, verbose=0)
expected = kl.statistics.reference.per_example_statistics(model, x[:20], y[:20], spatial="exact")
largest = 0.0
for variable in model.optimizer.statistic_variables:
    path, kind = variable.statistic.block.kernel.path, variable.statistic.kind
    error = np.abs(variable.numpy() - expected[path][kind]).max() / expected[path][kind].max()
    largest = max(largest, float(error))
print(f"Largest error of a statistic, relative: {largest:.0e}")

model = network()
model.compile(kl.QDOPLangevin(num_data=1200, temperature=0.1), loss, metrics=["accuracy"])
sampler = kl.PosteriorSampler(burn_in=20, thinning=2)
model.fit(x[train], y[train], batch_size=100, epochs=50, verbose=0, callbacks=[sampler])
report = sampler.ensemble().report(x[test], y[test], verbose=0)
print(f"Accuracy of the ensemble: {report['accuracy']:.3f}")
