"""Random numbers as a pure function of (seed, iteration, stream).

No state is kept, so nothing can be lost on resume or be left untracked: the same
(seed, iteration, stream) gives the same numbers on every replica, and another iteration
gives other numbers. TensorFlow and JAX hash a counter in plain integer arithmetic, which XLA
fuses into the weight update; torch, which has no unsigned arithmetic, reseeds its own
generator from the same key.
"""

import functools
import operator

import keras
import numpy as np
from keras import ops

_UINT32 = 0xFFFFFFFF

# Coefficients of the inverse error function, highest power first: M. Giles, "Approximating
# the erfinv function", GPU Computing Gems (2011), table 5 (single precision).
_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def standard_normal(shape, seed: int, iteration, stream: int):
    """Independent standard normal numbers, float32, reaching to 6.2 standard deviations.

    Args:
        shape: Static shape of the result.
        seed: Integer key of the chain, in [0, 2^128).
        iteration: Integer scalar (tensor or int), the step, >= 0.
        stream: Integer >= 0 that tells the variables of one step apart.
    """
    shape = tuple(int(n) for n in shape)
    if keras.backend.backend() == "torch":
        return _torch_normal(shape, seed, iteration, stream)
    bits = _bits(int(np.prod(shape)), seed, iteration, stream)
    return ops.reshape(_normal_from_bits(bits), shape)


def random_signs(shape, seed: int, iteration, stream: int):
    """Independent +1 and -1, equally likely, float32. The same key gives signs that are
    independent of the `standard_normal` numbers.

    Args:
        shape: Shape of the result. Sizes may be tensors, such as TensorFlow's batch size.
        seed, iteration, stream: As in `standard_normal`.
    """
    if keras.backend.backend() == "torch":
        return _torch_signs(tuple(shape), seed, iteration, stream)
    count = functools.reduce(operator.mul, shape, 1)
    bits = _bits(count, seed, iteration, stream, _SIGNS)
    signs = ops.where(bits > _word(0x7FFFFFFF), -1.0, 1.0)
    return ops.cast(ops.reshape(signs, shape), "float32")


_SIGNS = 1  # a second family of streams


def _bits(count, seed, iteration, *stream):
    first, second = _keys(seed, iteration, *stream)
    counter = ops.cast(ops.arange(count, dtype="int32"), "uint32")
    bits = _mix(ops.bitwise_xor(counter, first))
    return _mix(bits + second)


def _keys(seed, iteration, *stream):
    """Two 32-bit words. The words of (seed, stream) are themselves hashed: were they added as
    they are, seed 2 would repeat the noise of seed 1 one step later."""
    own = np.random.SeedSequence(seed, spawn_key=stream).generate_state(2)
    iteration = ops.cast(iteration, "uint32")
    first = _mix(iteration + _word(int(own[0])))
    second = _mix(first + _word(int(own[1])))
    return first, second


def _word(value):
    return ops.convert_to_tensor(np.uint32(value & _UINT32))


def _mix(bits):
    """A bijection of 32-bit words in which every input bit flips every output bit with
    probability one half to within 0.2 % (constants: C. Wellons, "lowbias32", 2018)."""
    bits = ops.bitwise_xor(bits, ops.right_shift(bits, _word(16)))
    bits = bits * _word(0x7FEB352D)
    bits = ops.bitwise_xor(bits, ops.right_shift(bits, _word(15)))
    bits = bits * _word(0x846CA68B)
    return ops.bitwise_xor(bits, ops.right_shift(bits, _word(16)))


def _normal_from_bits(bits):
    """One bit for the sign, 31 for the two-sided tail probability p = P(|z'| > |z|)."""
    magnitude = ops.cast(ops.bitwise_and(bits, _word(0x7FFFFFFF)), "float32")
    p = (magnitude + 0.5) * 2.0**-31
    w = -ops.log(p * (2.0 - p))  # = -log(1 - x^2) at x = 1 - p, exact in the tail
    centre = _polynomial(_CENTRE, w - 2.5)
    tail = _polynomial(_TAIL, ops.sqrt(w) - 3.0)
    z = float(np.sqrt(2.0)) * (1.0 - p) * ops.where(w < 5.0, centre, tail)
    return ops.where(bits > _word(0x7FFFFFFF), -z, z)


def _polynomial(coefficients, x):
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _torch_normal(shape, seed, iteration, stream):
    import torch

    generator = _torch_generator(seed, iteration, stream)
    return torch.randn(shape, generator=generator, device=generator.device)


def _torch_signs(shape, seed, iteration, stream):
    import torch

    generator = _torch_generator(seed, iteration, stream, _SIGNS)
    bits = torch.randint(0, 2, shape, generator=generator, device=generator.device)
    return ops.cast(2 * bits - 1, "float32")


def _torch_generator(seed, iteration, *stream):
    import torch

    generator = torch.Generator(ops.zeros(()).device)
    key = np.random.SeedSequence(seed, spawn_key=(int(iteration), *stream))
    generator.manual_seed(int(key.generate_state(1, np.uint64)[0] >> np.uint64(1)))
    return generator
