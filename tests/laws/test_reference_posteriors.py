"""Samplers with all defaults against NUTS, on a network that is small enough for it."""

import functools

import keras
import pytest

from examples.studies.reference_posteriors import compare, posteriors

pytestmark = [
    pytest.mark.law,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="run on JAX alone"),
]
# As measured: off 0.04 to 0.15, width 1.01 to 1.07; at T = 2 off 0.16 to 0.20, width 1.55 to 1.63.
MOST_OFF, NARROWEST, WIDEST = 0.2, 0.8, 1.25
SAMPLERS = ("QDOPLangevin", "SGHMC", "SMILE")


@functools.cache
def measured(sampler, temperature):
    """`off` and `width` of two chains of 6,000 gradients, all rows in each, as one program."""
    posterior = posteriors.load("breast_cancer")
    row = compare.run(posterior, sampler, "full", 6000, num_chains=2, temperature=temperature)
    return row["off"], row["width"]


def is_posterior(off, width):
    return off <= MOST_OFF and NARROWEST <= width <= WIDEST


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_defaults_sample_the_posterior(sampler):
    off, width = measured(sampler, temperature=1.0)
    assert is_posterior(off, width), (off, width)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_twice_the_temperature_is_refused(sampler):
    """What the limits are worth: samples of another law do not pass them."""
    off, width = measured(sampler, temperature=2.0)
    assert not is_posterior(off, width), (off, width)
