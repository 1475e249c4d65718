"""Random numbers as a pure function of (seed, iteration, stream).

No state is kept, so nothing can be lost on resume or be left untracked: the same
(seed, iteration, stream) gives the same numbers on every replica, and another iteration
gives other numbers. TensorFlow and JAX hash a counter in plain integer arithmetic, which XLA
fuses into the weight update; torch, which has no unsigned arithmetic, reseeds its own
generator from the same key.
"""

import contextlib
import contextvars
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


def random_signs(shape, seed: int, iteration, stream: int, replica=0, num_replicas=1):
    """Independent +1 and -1, equally likely, float32. The same key gives signs that are
    independent of the `standard_normal` numbers.

    Args:
        shape: Shape of the result. Sizes may be tensors, such as TensorFlow's batch size.
        seed, iteration, stream: As in `standard_normal`.
        replica, num_replicas: Of a batch that is shared by so many, those of one's rows.
    """
    if keras.backend.backend() == "torch":
        return _torch_signs(tuple(shape), seed, iteration, stream, replica, num_replicas)
    count = functools.reduce(operator.mul, shape, 1)
    words = _words(count, seed, iteration, stream, _SIGNS, first=count * replica)
    signs = ops.where(words > word(0x7FFFFFFF), -1.0, 1.0)
    return ops.cast(ops.reshape(signs, shape), "float32")


_SIGNS = 1  # a second family of streams
_SEEDS_OF_CHAINS = contextvars.ContextVar("seeds of chains", default=None)


@contextlib.contextmanager
def seeds_of_chains(seeds, chain):
    """Inside, a step that is traced for one chain draws the numbers of any of several.

    Args:
        seeds: From a seed that the step knows to those of all chains: `{3: [3, 8, 5]}`.
        chain: Integer scalar (tensor), the place of the chain among them.
    """
    token = _SEEDS_OF_CHAINS.set((seeds, chain))
    try:
        yield
    finally:
        _SEEDS_OF_CHAINS.reset(token)


def _words(count, seed, iteration, *stream, first=0):
    """Of a sequence of words those from the `first` on."""
    one, other = _keys(seed, iteration, *stream)
    counter = ops.cast(ops.arange(count, dtype="int32") + first, "uint32")
    words = _mix(ops.bitwise_xor(counter, one))
    return _mix(words + other)


def _keys(seed, iteration, *stream):
    """Two 32-bit words. The words of (seed, stream) are themselves hashed: were they added as
    they are, seed 2 would repeat the noise of seed 1 one step later."""
    own = _words_of_seed(seed, stream)
    iteration = ops.cast(iteration, "uint32")
    first = _mix(iteration + own[0])
    second = _mix(first + own[1])
    return first, second


def _words_of_seed(seed, stream):
    seeds, chain = _SEEDS_OF_CHAINS.get() or ({}, None)
    found = [
        np.random.SeedSequence(one, spawn_key=stream).generate_state(2)
        for one in seeds.get(seed, [seed])
    ]
    if seed not in seeds:
        return [word(int(own)) for own in found[0]]
    return ops.take(ops.convert_to_tensor(np.stack(found)), chain, axis=0)


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


def _torch_signs(shape, seed, iteration, stream, replica, num_replicas):
    import torch

    generator = _torch_generator(seed, iteration, stream, _SIGNS)
    all_shape = (num_replicas, *shape)
    bits = torch.randint(0, 2, all_shape, generator=generator, device=generator.device)
    return ops.cast(2 * bits[replica] - 1, "float32")


def _torch_generator(seed, iteration, *stream):
    import torch

    generator = torch.Generator(ops.zeros(()).device)
    key = np.random.SeedSequence(seed, spawn_key=(int(iteration), *stream))
    generator.manual_seed(int(key.generate_state(1, np.uint64)[0] >> np.uint64(1)))
    return generator
