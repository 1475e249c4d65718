"""Effective sample size and R-hat on chains with a known answer."""

import numpy as np
import pytest

import keras_langevin as kl


def autoregressive(length, rho, columns=8, seed=0):
    generator = np.random.default_rng(seed)
    draws = np.zeros((length, columns))
    draws[0] = generator.standard_normal(columns)
    for t in range(1, length):
        noise = generator.standard_normal(columns)
        draws[t] = rho * draws[t - 1] + (1 - rho**2) ** 0.5 * noise
    return draws


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_effective_sample_size_of_an_autoregressive_chain(rho):
    expected = 4000 * (1 - rho) / (1 + rho)
    one = kl.diagnostics.effective_sample_size(autoregressive(4000, rho, columns=32))
    assert one.shape == (32,)
    assert one.mean() == pytest.approx(expected, rel=0.1)
    chains = [autoregressive(4000, rho, columns=32, seed=s) for s in range(4)]
    assert kl.diagnostics.effective_sample_size(chains).mean() == pytest.approx(
        4 * expected, rel=0.1
    )


def test_r_hat_tells_chains_apart():
    chains = [autoregressive(1000, 0.5, seed=s) for s in range(3)]
    assert kl.diagnostics.r_hat(chains).max() < 1.02
    chains[0] = chains[0] + 1.0
    assert kl.diagnostics.r_hat(chains).min() > 1.05
    drifting = autoregressive(1000, 0.5) + np.linspace(0, 3, 1000)[:, None]
    assert kl.diagnostics.r_hat(drifting).min() > 1.2


def test_too_few_draws_are_refused():
    with pytest.raises(ValueError, match="Received: 3 draws"):
        kl.diagnostics.r_hat(np.zeros((3, 2)))
