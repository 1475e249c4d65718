"""R-hat of rows that were written when `kl.diagnostics.r_hat` was another quantity."""

OLD = "tfp_scale_reduction"
NOTE = (
    "R-hat is Gelman's and Rubin's, of the halves of the chains and not of ranks: it is computed "
    "from the potential scale reduction of TensorFlow Probability, which these rows hold."
)


def r_hat_of(row, chains, draws):
    """R-hat of a row, or None where it has none: its `"r_hat"`, or what its `"tfp_scale_reduction"`
    says.

    That was TensorFlow Probability's (m+1)/m R² − (n−1)/(mn), of m half chains of n draws, not
    normalised by ranks, where R is Gelman's and Rubin's.

    Args:
        row: Dictionary.
        chains, draws: Number of chains, and of the draws of each.
    """
    if row.get(OLD) is None:
        return row.get("r_hat")
    m, n = 2 * chains, draws // 2
    return ((row[OLD] + (n - 1) / (m * n)) * m / (m + 1)) ** 0.5
