"""Which numbers of a report are outside of what a run that has settled gives."""

from keras_langevin.diagnostics.chain_health import DISAGREEMENT, DRIFT, WORTH

MARK = "!"
# In 40 chains of n independent draws each, looked at through 100 predictions, 99 % of the worst
# R-hat were below 1 + 17/n (1.45 for n = 30, 1.34 for 50, 1.15 for 100), and of the smallest ESS
# above 0.15 n from n = 50 on (8.6, 16.5 for 100). With fewer draws it is noise.
WORST_R_HAT, SMALLEST_SHARE, FEWEST = 17.0, 0.15, 50


def out_of_range(numbers):
    """The names of those that are.

    Args:
        numbers: Of a report, by name.
    """
    n = dict(numbers)
    draws = (n.get("num_members") or 1) / (n.get("num_chains") or 1)
    bounds = {
        "r_hat": (None, DISAGREEMENT),
        "r_hat_largest": (None, 1.0 + WORST_R_HAT / draws),
        "independent_draws": (WORTH, None),
        "drift": (None, DRIFT),
    }
    if draws >= FEWEST:
        bounds["effective_sample_size_smallest"] = (SMALLEST_SHARE * draws, None)
    return {
        name
        for name, (least, most) in bounds.items()
        if n.get(name) is not None
        and ((least is not None and n[name] < least) or (most is not None and n[name] > most))
    }
