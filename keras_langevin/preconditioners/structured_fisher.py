"""Diagonal and quasi-diagonal Fisher information, for models of any size."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_langevin import autodiff
from keras_langevin.preconditioners.diagonal import Diagonal
from keras_langevin.preconditioners.fisher import Fisher
from keras_langevin.preconditioners.preconditioner import SMALLEST, block_layouts
from keras_langevin.preconditioners.quasi_diagonal import QuasiDiagonal, centred, with_added
from keras_langevin.predictive import scores
from keras_langevin.statistics.block import BIAS_SECOND_MOMENT, SECOND_MOMENT
from keras_langevin.statistics.track import Tracking
from keras_langevin.weights import parameters


class StructuredFisher(Fisher):
    """What the probes of `kl.statistics` measure of one backward pass over the inputs.

    With `fisher="model"` one draw an example, fixed once, stands for its label; see
    `predictive/fisher_scores.py`. Layers without a rule keep M = 1, as in `kl.SGLD`.
    """

    kind = None

    def prepare(self):
        self.tracking = Tracking(self.model, self.kind, "independent", stride=1)
        self.tracking.make_probes()
        for probe in self.tracking.probes:
            probe.shifts_by_own_mean = True
        positions = {id(v): i for i, v in enumerate(parameters(self.model))}
        self.blocks = block_layouts(self.tracking.variables, positions)

    def evaluate(self, values, data):
        self.layout = dataclasses.replace(self.layout, blocks=self.blocks)
        variables = self.tracking.variables
        zeros = [ops.zeros(v.shape, dtype=values[0].dtype) for v in variables]

        def loss(statistics):
            x = data if self.fisher == "model" else data[0]
            with self.tracking.standing():
                outputs = self.outputs(values, x, also=zip(variables, statistics, strict=True))
            if self.fisher == "empirical":
                return self.loss(x, data[1], outputs)
            slopes = scores(self.families, outputs, keras.tree.map_structure(_signs, outputs))
            flat = zip(keras.tree.flatten(slopes), keras.tree.flatten(outputs), strict=True)
            return sum(ops.sum(ops.stop_gradient(s) * o) / o.shape[0] for s, o in flat)

        return self.from_statistics(autodiff.gradient(loss, zeros))

    def from_statistics(self, statistics):
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="keras_langevin")
class DiagonalFisher(Diagonal, StructuredFisher):
    """The diagonal of F. Arguments as of `Fisher`."""

    kind = "diagonal"

    def from_statistics(self, statistics):
        metric = [None] * len(self.layout.shapes)
        for block in self.layout.blocks:
            for position, kind in ((block.kernel, SECOND_MOMENT), (block.bias, BIAS_SECOND_MOMENT)):
                if position is not None:
                    moment = statistics[block.statistics[kind]] + self.damping
                    metric[position] = ops.maximum(moment, SMALLEST)
        return metric


@keras.saving.register_keras_serializable(package="keras_langevin")
class QuasiDiagonalFisher(QuasiDiagonal, StructuredFisher):
    """The entries of F that pair a unit's bias with itself and with its weights, and each weight
    with itself; see `QuasiDiagonal`. Arguments as of `Fisher`."""

    kind = "quasi_diagonal"

    def from_statistics(self, statistics):
        metric = []
        for block in self.layout.blocks:
            batch = {kind: statistics[i] for kind, i in block.statistics.items()}
            metric.append(with_added(block, centred(block, batch), lambda _: self.damping))
        return metric


def _signs(outputs):
    signs = 2 * np.random.default_rng(0).integers(0, 2, tuple(outputs.shape)) - 1
    return ops.cast(ops.convert_to_tensor(signs), outputs.dtype)
