"""A network that is compiled once and trained many times."""

import keras
from keras import ops

import keras_langevin as kl


class Restartable:
    """A network with its optimizer, compiled once and started again for each run.

    Args:
        network: Function that makes a network with new initial weights.
    """

    def __init__(self, network, optimizer, loss):
        self.network, self.model = network, network()
        self.model.compile(optimizer, loss, jit_compile=keras.backend.backend() != "torch")
        kl.track_statistics(self.model, optimizer)
        optimizer.build(self.model.trainable_variables)
        self.fresh = [ops.convert_to_numpy(v) for v in self._variables()]

    def _variables(self):
        """Statistics among them, which `set_weights` leaves alone: NaN there would stay."""
        return [*self.model.optimizer.variables, *self.model.trainable_variables]

    def restart(self, learning_rate, seed):
        """Other initial weights; other noise too, which is a function of the iteration."""
        keras.utils.set_random_seed(seed)
        for variable, value in zip(self._variables(), self.fresh, strict=True):
            variable.assign(value)
        self.model.set_weights(self.network().get_weights())
        optimizer = self.model.optimizer
        optimizer.learning_rate = learning_rate
        if hasattr(optimizer, "num_data"):
            optimizer.iterations.assign(100_000 * seed)


def mlp(features, width, outputs):
    return keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(outputs),
        ]
    )
