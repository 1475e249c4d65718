"""Metrics that pair every unit's bias with its weights: what solving and sampling share."""

import math

from keras import ops

from keras_langevin.arithmetic import at_least, multiply_add, scaled, with_product
from keras_langevin.preconditioners.diagonal import move
from keras_langevin.preconditioners.preconditioner import SMALLEST, Preconditioner
from keras_langevin.statistics.block import (
    BIAS_SECOND_MOMENT,
    CROSS_MOMENT,
    SECOND_MOMENT,
    SHIFT,
)


class QuasiDiagonal(Preconditioner):
    """A metric with entries M00 of a unit's bias, μ_i M00 that pair the bias with weight i, and
    S_i + M00 μ_i² of weight i; between two weights stands the maximum-entropy completion
    M00 μ_i μ_j. Its inverse is C = L Lᵀ,

        C v:   w_i = (v_i − μ_i v_0)/S_i,   b = v_0/M00 − Σ_i μ_i w_i
        L ξ:   w_i = ξ_i/√S_i,              b = ξ_0/√M00 − Σ_i μ_i w_i
        Lᵀ v:  w_i = (v_i − μ_i v_0)/√S_i,  b = v_0/√M00

    so that drift and noise share the shear (1, −μ). A layer without bias has S_i alone.

    The metric is a list with `(S, μ, M00)` for each block, of shapes that broadcast against the
    kernel, the kernel and the bias; `(S,)` without bias.
    """

    def solve(self, metric, vectors):
        vectors = list(vectors)
        for block, (schur, *pairing) in zip(self.layout.blocks, metric, strict=True):
            weight = vectors[block.kernel]
            if block.bias is None:
                vectors[block.kernel] = weight / schur
                continue
            mean, bias_moment = pairing
            bias = vectors[block.bias]
            weight = (weight - mean * ops.reshape(bias, block.bias_shape)) / schur
            vectors[block.kernel] = weight
            vectors[block.bias] = _shear(block, bias / bias_moment, mean, weight)
        return vectors

    def sample(self, metric, normals):
        normals = list(normals)
        for block, (schur, *pairing) in zip(self.layout.blocks, metric, strict=True):
            weight = normals[block.kernel] * ops.rsqrt(schur)
            normals[block.kernel] = weight
            if block.bias is not None:
                mean, bias_moment = pairing
                bias = normals[block.bias] * ops.rsqrt(bias_moment)
                normals[block.bias] = _shear(block, bias, mean, weight)
        return normals

    def displacement(self, metric, slopes, rate, normals, noise_scale):
        """Drift and noise of the weights first, so that they are sheared once, together."""
        normals = [None] * len(slopes) if normals is None else normals
        moves = [None] * len(slopes)

        def moved(position, root, whitened):
            return move(root, whitened, rate, normals[position], noise_scale)

        for block, (schur, *pairing) in zip(self.layout.blocks, metric, strict=True):
            slope, root = slopes[block.kernel], ops.rsqrt(schur)
            if block.bias is None:
                moves[block.kernel] = moved(block.kernel, root, slope * root)
                continue
            mean, bias_moment = pairing
            bias_slope, bias_root = slopes[block.bias], ops.rsqrt(bias_moment)
            slope = multiply_add(mean, -ops.reshape(bias_slope, block.bias_shape), slope)
            weight = moves[block.kernel] = moved(block.kernel, root, scaled(slope, root))
            bias = moved(block.bias, bias_root, bias_slope * bias_root)
            moves[block.bias] = _shear(block, bias, mean, weight)
        for i in [i for i, found in enumerate(moves) if found is None]:
            moves[i] = move(None, slopes[i], rate, normals[i], noise_scale)
        return moves

    def squared_length(self, metric, vectors):
        return sum(ops.sum(v * v) for v in self.whiten(metric, vectors))

    def whiten(self, metric, vectors):
        vectors = list(vectors)
        for block, (schur, *pairing) in zip(self.layout.blocks, metric, strict=True):
            weight = vectors[block.kernel]
            if block.bias is not None:
                mean, bias_moment = pairing
                bias = vectors[block.bias]
                weight = weight - mean * ops.reshape(bias, block.bias_shape)
                vectors[block.bias] = bias * ops.rsqrt(bias_moment)
            vectors[block.kernel] = weight * ops.rsqrt(schur)
        return vectors

    def multiply(self, metric, vectors):
        vectors = list(vectors)
        for block, (schur, *pairing) in zip(self.layout.blocks, metric, strict=True):
            weight = vectors[block.kernel]
            if block.bias is None:
                vectors[block.kernel] = schur * weight
                continue
            mean, bias_moment = pairing
            bias = vectors[block.bias]
            total = bias + _sum_to_bias(block, mean * weight, tuple(bias.shape))
            vectors[block.bias] = bias = bias_moment * total
            vectors[block.kernel] = schur * weight + mean * ops.reshape(bias, block.bias_shape)
        return vectors

    def log_volume(self, metric, other):
        total = 0.0
        for block, before, after in zip(self.layout.blocks, metric, other, strict=True):
            total = total + self._log_ratio(block.kernel, before[0], after[0])
            if block.bias is not None:
                total = total + self._log_ratio(block.bias, before[2], after[2])
        return total

    def _log_ratio(self, position, before, after):
        """Summed over a parameter, against which the arrays broadcast."""
        copies = math.prod(self.layout.shapes[position]) / math.prod(before.shape)
        return copies * ops.sum(ops.log(after / before))


def centred(block, batch):
    """(S, μ, M00) of one batch from its moments about the shift; (S,) without bias, which is the
    batch's own array."""
    if block.bias is None:
        return (batch[SECOND_MOMENT],)
    moment = batch[BIAS_SECOND_MOMENT]
    like_kernel = ops.reshape(moment, block.bias_shape)
    positive = ops.where(like_kernel > 0, like_kernel, 1.0)
    negative = batch[CROSS_MOMENT] / -positive
    schur = at_least(multiply_add(negative, batch[CROSS_MOMENT], batch[SECOND_MOMENT]), 0.0)
    mean = scaled(negative, -1)
    if block.shift_shape is not None:
        mean = with_product(mean, 1, ops.reshape(batch[SHIFT][0], block.shift_shape))
    return schur, mean, moment


def with_added(block, moments, added):
    """The metric when `added(position)` is added to the diagonal entries Mii and M00."""
    schur, *pairing = moments
    own = added(block.kernel)
    if block.bias is None:
        return (ops.maximum(schur + own, SMALLEST),)
    mean, bias_moment = pairing
    extra = added(block.bias)
    total = ops.maximum(bias_moment + extra, SMALLEST)
    # Adding to M00 pulls the mean toward zero and leaves Mii: exact, no cancellation.
    kept = ops.reshape(bias_moment / total, block.bias_shape)
    schur = with_product(with_product(scaled(mean * mean, extra * kept), 1, schur), 1, own)
    return at_least(schur, SMALLEST), mean * kept, total


def _shear(block, bias, mean, weight):
    """b − Σ_i μ_i w_i: drift and noise share it."""
    return bias - _sum_to_bias(block, mean * weight, tuple(bias.shape))


def _sum_to_bias(block, values, shape):
    """Sums what is shaped as the kernel over the inputs of each unit."""
    axes = tuple(
        axis
        for axis, (n, kept) in enumerate(zip(values.shape, block.bias_shape, strict=True))
        if kept == 1 and n != 1
    )
    return ops.reshape(ops.sum(values, axis=axes) if axes else values, shape)
