"""What a metric that depends on the weights owes: the correction k of stochastic natural gradient
descent (Smith et al. 2018; signs as in their appendix, equation 23).

    k = div M⁻¹ + ½ M⁻¹ ∇ log det M,    (div M⁻¹)_i = Σ_j ∂_j (M⁻¹)_ij

A step of drift −η M⁻¹∇G + (ηT/N) k and noise of covariance (2ηT/N) M⁻¹ samples
exp(−U/T) |M|^½, which is the same law in all coordinates; with the divergence alone exp(−U/T).
Version 3 of the paper prints the first sum with the wrong sign in its equations 2, 6 and 7.
"""

from keras import ops

from keras_langevin import autodiff
from keras_langevin.statistics.track import untracked

# h √d: how far the neighbours are, in units in which the metric is the identity. Third derivatives
# enter with its square; what rounding adds to k is far below the noise of a step.
REACH = 0.03


def by_autodiff(fisher, values, metric, jeffreys):
    """Exact, for a dense metric: memory and time grow with the cube of the number of weights."""
    data = fisher.tensors()

    def matrix(vector):
        return fisher.matrix(fisher.arrays(vector), data)

    with untracked(fisher.model):
        slopes = autodiff.jacobian(matrix, fisher.vector(values))  # ∂_c M_ab
    identity = ops.eye(slopes.shape[0], dtype=slopes.dtype)
    half = ops.solve_triangular(metric[1], identity, lower=True)
    inverse = ops.matmul(ops.transpose(half), half)
    forces = -ops.einsum("abc,bc->a", slopes, inverse)
    if jeffreys:
        forces = forces + 0.5 * ops.einsum("abc,ab->c", slopes, inverse)
    return fisher.arrays(ops.matmul(inverse, forces))


def by_finite_difference(fisher, values, metric, normals, jeffreys, divergence=True):
    """An unbiased estimate, up to h², from the metric at θ ± h z with z ~ N(0, M⁻¹):

        k ≈ (r₊ M₊⁻¹ − r₋ M₋⁻¹) M z / 2h,    r = (|M±| / |M|)^½ with the volume term, else 1

    since E[z zᵀ] M = I. Both evaluations use the same inputs and draws. Its own noise, of variance
    about d in natural units, enters a step times ηT/N: a share ηTd/2N of what is injected.
    """
    direction = fisher.sample(metric, normals)
    force = fisher.multiply(metric, direction)
    h = REACH / fisher.layout.num_weights**0.5
    total = None
    for sign in (1.0, -1.0):
        shifted = [θ + sign * h * z for θ, z in zip(values, direction, strict=True)]
        there = fisher.at(shifted)
        weight = 1.0
        if jeffreys:
            weight = ops.exp(0.5 * fisher.log_volume(metric, there))
        weight = sign * (weight if divergence else weight - 1.0) / (2 * h)
        part = [weight * v for v in fisher.solve(there, force)]
        total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
    return total
