"""How many members does an ensemble need?"""

from typing import NamedTuple

import numpy as np

from keras_langevin.arguments import (
    LARGEST,
    instance,
    integer,
    non_negative_number,
    real_array,
    seed_number,
    shorten,
)

ALL_SIZES = 30  # ensembles of up to so many members have a point for each number of members


class RunningLogPredictiveDensity(NamedTuple):
    """Log predictive density of the first members, in random orders.

    Attributes:
        num_members: m, ascending, the last being all M members. Shape `(k,)`.
        mean: Of the density of m members over the orders, in nats an example; of one member over
            all members. Shape `(k,)`.
        stderr: How far that of m independent draws lies from their expectation (one standard
            deviation), for these examples: it holds no error of the examples. Shape `(k,)`.
    """

    num_members: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray


class EnoughMembers(NamedTuple):
    """What `enough_members` returns.

    Attributes:
        num_members: The smallest number from which on the curve stays within the tolerance.
        is_rising: Whether more members than there are would gain more than the tolerance. What is
            missing falls as 1/m: as much lies beyond M members as between M/2 and M.
    """

    num_members: int
    is_rising: bool


def running_log_predictive_density(
    log_likelihood, num_orders=20, seed=0
) -> RunningLogPredictiveDensity:
    """The log predictive density an example, mean_i log mean_{s ≤ m} exp ll[s, i], of the first m
    members, averaged over random orders: what m members of this ensemble are worth.

    The standard deviation over orders shrinks by √(1 − m/M) only because the orders share their
    members; it is divided by that. For all M members, where every order is the same, the delta
    method gives it, from how much each member sways the density. Members of a chain are less
    different than independent ones: multiply by √(M/ESS) (`effective_sample_size`).

    Args:
        log_likelihood: log p(y_i | x_i, θ_s), shape `(members, examples)`. −∞ is allowed as long
            as no example has it from all members.
        num_orders: How many random orders.
        seed: Of the orders.

    Returns:
        Every m where there are up to 30 members, else about 25 at equal factors. `stderr` is
        NaN where there is one member, or one order.

    Raises:
        ValueError: If the shape is another, or there is NaN.

    Example:

    >>> curve = kl.diagnostics.running_log_predictive_density(log_likelihood)
    >>> kl.diagnostics.enough_members(curve).num_members

    References:
        A. Gelman et al., "Understanding predictive information criteria for Bayesian models",
        2014, equation 5, for the density.
    """
    log_likelihood = _checked(log_likelihood)
    num_orders = integer("num_orders", num_orders, at_least=1)
    generator = np.random.default_rng(seed_number("seed", seed))
    total = len(log_likelihood)
    sizes = _sizes(total)
    values = np.stack(
        [_running(log_likelihood[generator.permutation(total)], sizes) for _ in range(num_orders)]
    )
    mean = values.mean(axis=0)
    mean[0] = log_likelihood.mean()  # one member: of all of them, whatever the orders
    spread = np.full(len(sizes), np.nan)
    if num_orders > 1:
        shared = np.sqrt(1.0 - sizes[:-1] / total)
        with np.errstate(invalid="ignore"):  # a density of −∞ has no spread
            spread[:-1] = values[:, :-1].std(axis=0, ddof=1) / shared
    if total > 1:
        spread[-1] = _error_of_all(log_likelihood)
    return RunningLogPredictiveDensity(sizes, mean, spread)


def enough_members(curve, tolerance=0.01) -> EnoughMembers:
    """The smallest number of members whose log predictive density is, from there on, within
    `tolerance` of that of all.

    Args:
        curve: From `running_log_predictive_density`.
        tolerance: In nats an example, >= 0. 0.01 is a likelihood that is 1 % higher.

    Example:

    >>> num_members, is_rising = kl.diagnostics.enough_members(curve)
    """
    tolerance = non_negative_number("tolerance", tolerance)
    sizes, mean = _checked_curve(curve)
    outside = np.flatnonzero(np.abs(mean - mean[-1]) > tolerance)
    enough = sizes[outside[-1] + 1] if len(outside) else sizes[0]
    last_doubling = mean[-1] - np.interp(np.log(sizes[-1] / 2), np.log(sizes), mean)
    return EnoughMembers(int(enough), bool(sizes[-1] == 1 or last_doubling > tolerance))


def _checked(log_likelihood):
    log_likelihood = real_array("log_likelihood", log_likelihood)
    if log_likelihood.ndim != 2 or not log_likelihood.size:
        raise ValueError(
            "`log_likelihood` must have the shape (members, examples), with at least one of each. "
            f"Received: shape {log_likelihood.shape}. For one model use `log_likelihood[None]`."
        )
    is_number = (np.abs(log_likelihood) <= LARGEST) | (log_likelihood == -np.inf)
    if not is_number.all():
        member, example = (int(i) for i in np.argwhere(~is_number)[0])
        raise ValueError(
            "`log_likelihood` must not hold NaN or +infinity, in float32 too. Received: "
            f"{log_likelihood[member, example]} for member {member}, example {example}. Leave "
            "members that have diverged out."
        )
    impossible = np.flatnonzero(np.all(log_likelihood == -np.inf, axis=0))
    if len(impossible):
        raise ValueError(
            "Some member must give each example a likelihood above 0. Received: -infinity from all "
            f"members for example {impossible[0]}. Compute log-likelihoods from logits."
        )
    return log_likelihood


def _checked_curve(curve):
    """Its `num_members` and `mean`."""
    words = "what `running_log_predictive_density` returns"
    instance("curve", curve, RunningLogPredictiveDensity, words)
    sizes, mean = real_array("num_members", curve.num_members), real_array("mean", curve.mean)
    is_curve = sizes.ndim == 1 and sizes.size and sizes.shape == mean.shape
    if not is_curve or np.isnan(mean).any() or sizes[0] < 1 or np.any(np.diff(sizes) <= 0):
        raise ValueError(f"`curve` must be {words}. Received: curve={shorten(tuple(curve))}")
    return sizes, mean


def _sizes(total):
    if total <= ALL_SIZES:
        return np.arange(1, total + 1)
    return np.unique(np.geomspace(1, total, ALL_SIZES).round().astype(int))


def _running(log_likelihood, sizes):
    """The density of the first m members for each m of the sizes."""
    densities, sums, start = [], np.full(log_likelihood.shape[1], -np.inf), 0
    for m in sizes:
        sums = np.logaddexp(sums, np.logaddexp.reduce(log_likelihood[start:m], axis=0))
        densities.append(np.mean(sums) - np.log(m))
        start = m
    return np.array(densities)


def _error_of_all(log_likelihood):
    """By the infinitesimal jackknife: a weight 1 + ε on member s adds ε/M times its influence,
    the mean over the examples of its likelihood over that of the ensemble, less 1."""
    total = len(log_likelihood)
    of_all = np.logaddexp.reduce(log_likelihood, axis=0) - np.log(total)
    influence = np.mean(np.exp(log_likelihood - of_all), axis=1) - 1.0
    return np.sqrt(np.sum(influence**2) / (total - 1) / total)
