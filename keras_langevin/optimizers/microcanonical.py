"""Microcanonical dynamics: a position that moves at unit speed along a direction u, |u| = 1, that
the slope of the log density turns.

    dθ = u dt,    du = (1 − u uᵀ) ∇log p(θ)/(d − 1) dt

Every function takes lists with one array for each variable; norms and products are those of the
d-dimensional vector that all of them make together. The kinetic energy is (d − 1) log of a speed;
its change in a kick is written so that it keeps its digits in float32 for d up to 1e7, where
(d − 1) (cosh δ + c sinh δ − 1) would lose them all.
"""

from keras import ops

_TINY = 1e-30


def dot(first, second):
    return sum(ops.sum(a * b) for a, b in zip(first, second, strict=True))


def product(scale, vectors):
    """Entry by entry; `None` stands for ones."""
    if scale is None:
        return vectors
    return [p * v for p, v in zip(scale, vectors, strict=True)]


def normalised(vectors):
    """Of length 1 together."""
    return _scaled(vectors, ops.rsqrt(ops.maximum(dot(vectors, vectors), _TINY)))


def kick(direction, slope, time, dimension):
    """The exact flow of u for a constant slope g = ∇log p over a time h.

        u ← e(1−ζ)(1+ζ+c(1−ζ)) + 2ζu, normalised
        e = g/|g|,  c = e·u,  δ = h|g|/(d−1),  ζ = e^(−δ)

    Returns:
        The new direction, and the change of kinetic energy (d−1) log(cosh δ + c sinh δ).
    """
    size = ops.sqrt(dot(slope, slope))
    along = _scaled(slope, 1.0 / ops.maximum(size, _TINY))
    delta = time * size / (dimension - 1)
    cosine = dot(along, direction)
    decay, gap = ops.exp(-delta), -ops.expm1(-delta)
    turn = gap * (1.0 + decay + cosine * gap)
    turned = [turn * e + 2.0 * decay * u for e, u in zip(along, direction, strict=True)]
    return normalised(turned), (dimension - 1) * _log_speed(direction, along, cosine, delta)


def _log_speed(direction, along, cosine, delta):
    """log(cosh δ + c sinh δ)."""
    short = ops.minimum(delta, 1.0)
    near = ops.log1p(2.0 * ops.sinh(short / 2.0) ** 2 + cosine * ops.sinh(short))
    # 1 + c from the sum of the vectors, which is exact where they are opposite.
    both = [u + e for u, e in zip(direction, along, strict=True)]
    far = delta + ops.log(0.5 * (0.5 * dot(both, both) + (1.0 - cosine) * ops.exp(-2.0 * delta)))
    return ops.where(delta < 1.0, near, far)


def refresh(direction, normals, decoherence, dimension):
    """u ← [u + νξ] normalised, ν² = (e^(2x) − 1)/d, ξ standard normal: the autocorrelation of u
    falls by e^(−x), x = time over decoherence length."""
    spread = ops.sqrt(ops.expm1(2.0 * decoherence) / dimension)
    return normalised([u + spread * n for u, n in zip(direction, normals, strict=True)])


def _scaled(vectors, factor):
    return [factor * v for v in vectors]
