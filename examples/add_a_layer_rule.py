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
        return self.activation(each_row(inputs, self.kernel) + self.bias)

    def get_config(self):
        return {"units": self.units, **super().get_config()}


def each_row(features, kernel):
    return ops.einsum("bri,riu->bru", features, kernel)


@kl.statistics.register_rule(RowDense)
class RowDenseRule(kl.statistics.LayerRule):
    def blocks(self, layer):  # the activation is found by its name, `layer.activation`
        rows, inputs, units = layer.kernel.shape
        shapes = {"bias_shape": (rows, 1, units), "shift_shape": (rows, inputs, 1)}
        return [kl.statistics.Block(layer.kernel, each_row, layer.bias, **shapes)]


keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 16.0).astype("float32").reshape(-1, 8, 8)
x, x_test, y, y_test = x[:1200], x[1200:], y[:1200], y[1200:]
layers = [RowDense(8), keras.layers.Flatten(), keras.layers.Dense(10)]
model = keras.Sequential([keras.Input((8, 8)), *layers])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# Is the rule right? A step of length zero measures, and the reference differentiates by itself.
few = {"x": x[:20], "y": y[:20]}
model.compile(kl.DOPLangevin(0.0, num_data=20, statistics_stride=1), loss)
kl.track_statistics(model, model.optimizer, spatial="exact")
model.fit(**few, batch_size=20, verbose=0)
expected = kl.statistics.reference.per_example_statistics(model, **few, spatial="exact")
errors = []
for variable in model.optimizer.statistic_variables:
    kernel, kind = variable.statistic.block.kernel, variable.statistic.kind
    right = expected[kernel.path][kind]
    errors.append(np.abs(ops.convert_to_numpy(variable) - right).max() / right.max())
print(f"Arrays measured: {len(errors)}")
print(f"Largest relative error: {max(errors):.1e}")

model.compile(kl.QDOPLangevin(num_data=len(x), temperature=0.1), loss)
sampler = kl.PosteriorSampler(burn_in=20)
model.fit(x, y, batch_size=100, epochs=40, verbose=0, callbacks=[sampler])
report = sampler.ensemble().report(x_test, y_test, verbose=0)
print(f"Accuracy of the ensemble: {report['accuracy']:.3f}")
for name in ("", "_of_members"):
    nats = report["negative_log_likelihood" + name]
    print(f"Nats an image{name.replace('_', ' ')}: {nats:.3f}")
