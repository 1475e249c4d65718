"""Effective sample size and R-hat on chains with a known answer."""

import numpy as np
import pytest
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin.diagnostics import convergence

pytestmark = pytest.mark.neutral


def autoregressive(length, rho, columns=8, seed=0):
    generator = np.random.default_rng(seed)
    draws = np.zeros((length, columns))
    draws[0] = generator.standard_normal(columns)
    for t in range(1, length):
        noise = generator.standard_normal(columns)
        draws[t] = rho * draws[t - 1] + (1 - rho**2) ** 0.5 * noise
    return draws


@every_row("rho", [0.0, 0.9])
def test_effective_sample_size_of_an_autoregressive_chain(rho):
    expected = 4000 * (1 - rho) / (1 + rho)
    one = kl.diagnostics.effective_sample_size(autoregressive(4000, rho, columns=32))
    assert one.shape == (32,)
    assert one.mean() == pytest.approx(expected, rel=0.1)
    chains = [autoregressive(4000, rho, columns=32, seed=s) for s in range(4)]
    assert kl.diagnostics.effective_sample_size(chains).mean() == pytest.approx(
        4 * expected, rel=0.1
    )


@pytest.fixture
def arviz():
    return pytest.importorskip("arviz")


def by_arviz(function, chains, method):
    pooled = np.stack(chains)
    return [float(function(pooled[..., i], method=method)) for i in range(pooled.shape[-1])]


QUANTITIES = {
    "normal": lambda x, chain: x,
    "heavy tails": lambda x, chain: x**7,
    "ties": lambda x, chain: np.round(x),
    "different widths": lambda x, chain: (1 + chain) * x,
}
each_quantity = every_row("quantity", QUANTITIES)


def four_chains(length, rho, quantity="normal"):
    change = QUANTITIES[quantity]
    return [change(autoregressive(length, rho, seed=s), s) for s in range(4)]


def ranks_in_order(values):
    """A mutant: draws that are equal have ranks in the order they stand in."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") + 1.0


@each_quantity
@every_row("length", [50, 51])
def test_r_hat_is_that_of_arviz(arviz, length, quantity):
    chains = four_chains(length, 0.5, quantity)
    for method, rank_normalized in (("rank", True), ("split", False)):
        expected = by_arviz(arviz.rhat, chains, method)
        found = kl.diagnostics.r_hat(chains, rank_normalized=rank_normalized)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_ranks_of_equal_draws_must_be_averaged(arviz, monkeypatch):
    chains = four_chains(50, 0.5, "ties")
    expected = by_arviz(arviz.rhat, chains, "rank")
    monkeypatch.setattr(convergence, "_ranks", ranks_in_order)
    assert np.abs(kl.diagnostics.r_hat(chains) - expected).max() > 1e-3


# How far from ArviZ', whose sum is cut otherwise: measured over quantities, with some room.
@every_row("quantity", ["normal", "heavy tails", "ties"])
@every_row("kind", ["mean", "bulk", "tail"])
@every_row("rho, low, high", [(0.0, 0.85, 1.05), (0.9, 0.75, 1.2)])
def test_effective_sample_sizes_are_near_those_of_arviz(arviz, rho, low, high, kind, quantity):
    chains = four_chains(2000, rho, quantity)
    found = kl.diagnostics.effective_sample_size(chains, kind)
    ratio = found / by_arviz(arviz.ess, chains, kind)
    assert low < ratio.min() and ratio.max() < high
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)


def test_the_kinds_of_effective_sample_size_differ():
    """Bulk: a draw of 10^7 decides the mean, not the ranks. Tail: rare excursions that last."""
    chains = [x + 1e7 * (np.arange(1000) == 5)[:, None] for x in four_chains(1000, 0.9)]
    mean, bulk, tail = (
        kl.diagnostics.effective_sample_size(chains, k) for k in ("mean", "bulk", "tail")
    )
    assert mean.min() > 3000 and bulk.max() < 500 and tail.max() < 1000
    lasting = np.where(np.arange(1000) % 500 < 40, 3.0, 0.0)[:, None]
    chains = [x + lasting for x in four_chains(1000, 0.0)]
    bulk, tail = (kl.diagnostics.effective_sample_size(chains, k) for k in ("bulk", "tail"))
    assert tail.max() < 0.6 * bulk.min()


def test_bulk_without_ranks_is_decided_by_one_draw(monkeypatch):
    monkeypatch.setattr(convergence, "_normal_scores", lambda chains: chains)
    chains = [x + 1e7 * (np.arange(1000) == 5)[:, None] for x in four_chains(1000, 0.9)]
    assert kl.diagnostics.effective_sample_size(chains, "bulk").min() > 500


def test_only_the_folded_draws_tell_chains_of_different_widths_apart():
    chains = four_chains(1000, 0.0, "different widths")
    assert kl.diagnostics.r_hat(chains, rank_normalized=False).max() < 1.01
    assert kl.diagnostics.r_hat(chains).min() > 1.1


def test_only_ranks_see_that_chains_of_infinite_variance_are_apart():
    normal = [autoregressive(1000, 0.0, seed=s) for s in range(8)]
    chains = [normal[i] / normal[4 + i] for i in range(4)]
    chains[0] = chains[0] + 3.0
    assert kl.diagnostics.r_hat(chains, rank_normalized=False).max() < 1.01
    assert kl.diagnostics.r_hat(chains).min() > 1.05


@every_row("kind", ["mean", "bulk", "tail"])
def test_what_never_changes_has_no_size(kind):
    """0.1 is not exact in binary: neither is the mean of many of them."""
    chains = [np.c_[x, np.full(101, 0.1)] for x in four_chains(101, 0.0)]
    size = kl.diagnostics.effective_sample_size(chains, kind)
    assert np.isnan(size).tolist() == 8 * [False] + [True]


@every_row("rank_normalized", [True, False])
def test_what_never_changes_has_no_r_hat(rank_normalized):
    chains = [np.c_[x, np.full(101, 0.1)] for x in four_chains(101, 0.0)]
    found = kl.diagnostics.r_hat(chains, rank_normalized=rank_normalized)
    assert np.isnan(found).tolist() == 8 * [False] + [True]
    stuck = [np.full(10, float(chain)) for chain in range(2)]
    assert kl.diagnostics.r_hat(stuck, rank_normalized=rank_normalized) > 100


def test_longer_chains_are_cut_at_their_ends():
    short, long = four_chains(100, 0.5)[0], four_chains(150, 0.5)[1]
    for measure in (kl.diagnostics.effective_sample_size, kl.diagnostics.r_hat):
        np.testing.assert_array_equal(measure([short, long]), measure([short, long[:100]]))


def test_r_hat_tells_chains_apart():
    chains = [autoregressive(1000, 0.5, seed=s) for s in range(3)]
    assert kl.diagnostics.r_hat(chains).max() < 1.02
    chains[0] = chains[0] + 1.0
    assert kl.diagnostics.r_hat(chains).min() > 1.05
    drifting = autoregressive(1000, 0.5) + np.linspace(0, 3, 1000)[:, None]
    assert kl.diagnostics.r_hat(drifting).min() > 1.2


def test_bad_draws_are_refused():
    with pytest.raises(ValueError, match="Received: 3 draws"):
        kl.diagnostics.r_hat(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="Received: 0 draws"):
        kl.diagnostics.r_hat([])
    for wrong in (np.nan, np.inf):
        chains = four_chains(20, 0.0)
        chains[2][7, 3] = chains[2][9, 1] = wrong
        for measure in (kl.diagnostics.effective_sample_size, kl.diagnostics.r_hat):
            with pytest.raises(ValueError, match=rf"{wrong} in draw 7 of chain 2 at \[3\], and 1"):
                measure(chains)
    with pytest.raises(ValueError, match=r"`kind` must be one of.*kind='median'"):
        kl.diagnostics.effective_sample_size(np.zeros((9, 2)), "median")
