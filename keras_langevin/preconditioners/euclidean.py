"""The Euclidean metric: C = I."""

import keras

from keras_langevin.preconditioners.preconditioner import Preconditioner


@keras.saving.register_keras_serializable(package="keras_langevin")
class Euclidean(Preconditioner):
    """M = I: gradients and noise as they are."""

    def solve(self, metric, vectors):
        return vectors

    def sample(self, metric, normals):
        return normals

    def whiten(self, metric, vectors):
        return vectors
