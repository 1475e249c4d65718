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

from keras_langevin.normal_numbers import normal_by_quantile, normal_by_sum, word


def standard_normal(shape, seed: int, iteration, stream: int, exact=False):
    """Independent standard normal numbers, float32.

    Args:
        shape: Static shape of the result.
        seed: Integer key of the chain, in [0, 2^128).
        iteration: Integer scalar (tensor or int), the step, >= 0.
        stream: Integer >= 0 that tells the variables of one step apart.
        exact: Take the normal distribution's own quantiles instead of a polynomial of a sum, which
            costs half (`keras_langevin.normal_numbers`). On torch both are its own generator's.
    """
    shape = tuple(int(n) for n in shape)
    if keras.backend.backend() == "torch":
        return _torch_normal(shape, seed, iteration, stream)
    words = _words(int(np.prod(shape)), seed, iteration, stream)
    numbers = normal_by_quantile(words) if exact else normal_by_sum(words, _mix(words))
    return ops.reshape(numbers, shape)


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
    words = _words(count, seed, iteration, stream, _SIGNS)
    signs = ops.where(words > word(0x7FFFFFFF), -1.0, 1.0)
    return ops.cast(ops.reshape(signs, shape), "float32")


_SIGNS = 1  # a second family of streams


def _words(count, seed, iteration, *stream):
    first, second = _keys(seed, iteration, *stream)
    counter = ops.cast(ops.arange(count, dtype="int32"), "uint32")
    words = _mix(ops.bitwise_xor(counter, first))
    return _mix(words + second)


def _keys(seed, iteration, *stream):
    """Two 32-bit words. The words of (seed, stream) are themselves hashed: were they added as
    they are, seed 2 would repeat the noise of seed 1 one step later."""
    own = np.random.SeedSequence(seed, spawn_key=stream).generate_state(2)
    iteration = ops.cast(iteration, "uint32")
    first = _mix(iteration + word(int(own[0])))
    second = _mix(first + word(int(own[1])))
    return first, second


def _mix(words):
    """A bijection of 32-bit words in which every input bit flips every output bit with
    probability one half to within 0.2 % (constants: C. Wellons, "lowbias32", 2018)."""
    words = ops.bitwise_xor(words, ops.right_shift(words, word(16)))
    words = words * word(0x7FEB352D)
    words = ops.bitwise_xor(words, ops.right_shift(words, word(15)))
    words = words * word(0x846CA68B)
    return ops.bitwise_xor(words, ops.right_shift(words, word(16)))


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
