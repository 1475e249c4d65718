"""A Gaussian target, with noise of any kind in its gradients, sampled through compiled `fit`."""

import keras
import numpy as np
from keras import ops
from targets.regression import STEPS_PER_EXECUTION, Recorder

import keras_langevin as kl


class GaussianChain:
    """−log p(θ) = Σ θ_i²/(2 s_i²); the gradient of every step has independent normal noise.

    Args:
        variances: s². Infinite ones make a flat target.
        noise: Standard deviations of the noise in the gradient, a number or one for each weight.
        disturb: `disturb(step, noise)` changes the noise of a step in place.
    """

    def __init__(self, variances, noise=0.0, disturb=None, seed=0):
        self.variances = np.asarray(variances, "float64")
        self.noise, self.disturb, self.seed = noise, disturb, seed

    def run(self, optimizer, steps, burn_in=0, start=None, recorder=None):
        """The recorder, with a reading of the weights every eighth step."""
        dimension = len(self.variances)
        layer = keras.layers.Dense(dimension, use_bias=False)
        model = keras.Sequential([keras.Input((1,)), layer])
        model.compile(
            optimizer,
            Potential(1.0 / self.variances),
            jit_compile=keras.backend.backend() != "torch",
            steps_per_execution=STEPS_PER_EXECUTION,
        )
        start = np.zeros(dimension) if start is None else start
        layer.kernel.assign(start[None])
        kl.track_statistics(model, optimizer)
        recorder = Recorder(burn_in) if recorder is None else recorder
        data = Noise(self, dimension, steps)
        model.fit(data, epochs=1, verbose=0, shuffle=False, callbacks=[recorder])
        self.end = ops.convert_to_numpy(model.layers[-1].kernel)[0]
        return recorder

    def second_moment_error(self, optimizer, steps, burn_in, **kwargs):
        """b² = mean over the weights of (⟨θ²⟩ − s²)²/(2 s⁴), ⟨θ²⟩/s², and the recorder."""
        recorder = self.run(optimizer, steps, burn_in, **kwargs)
        ratios = np.mean(np.square(np.stack(recorder.draws)[:, 0]), axis=0) / self.variances
        return np.mean((ratios - 1) ** 2) / 2, ratios, recorder


class Potential(keras.losses.Loss):
    """Σ (a θ²/2 + ξ θ), whose gradient is aθ + ξ."""

    def __init__(self, precisions):
        super().__init__()
        self.precisions = np.asarray(precisions, "float32")

    def call(self, y_true, y_pred):
        quadratic = 0.5 * ops.convert_to_tensor(self.precisions) * ops.square(y_pred)
        return ops.sum(quadratic + y_true * y_pred, axis=-1)


class Noise(keras.utils.PyDataset):
    def __init__(self, chain, dimension, steps):
        super().__init__()
        self.chain, self.dimension, self.steps = chain, dimension, steps
        self.rng = np.random.default_rng(chain.seed)

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        noise = self.chain.noise * self.rng.normal(size=(1, self.dimension))
        if self.chain.disturb is not None:
            self.chain.disturb(index, noise)
        return np.ones((1, 1), "float32"), noise.astype("float32")


def state(optimizer, name):
    """The value of a scalar of the optimizer's state."""
    return float(ops.convert_to_numpy(getattr(optimizer, name)))
