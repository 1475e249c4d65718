"""What the figures show: the data of their artists against plain NumPy."""

import io
import itertools
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from targets.rows import every_row

from keras_langevin import calibration, plotting
from keras_langevin.plotting import classification, style
from keras_langevin.plotting.chains import uniform_counts

matplotlib.use("Agg")  # no window

RANDOM = np.random.default_rng(0)
CHAINS = [RANDOM.normal(size=60), RANDOM.normal(0.5, 1.0, size=50), RANDOM.normal(size=50)]
MEMBERS = RANDOM.dirichlet(0.4 * np.ones(4), size=(7, 90))
PROBABILITIES = MEMBERS.mean(axis=0)
LABELS = RANDOM.integers(0, 4, size=90)
CONFIDENCE = PROBABILITIES.max(axis=-1)
IS_RIGHT = PROBABILITIES.argmax(axis=-1) == LABELS
INSIDE, OUTSIDE = RANDOM.uniform(0, 0.7, size=80), RANDOM.uniform(0.3, 1.38, size=50)
PIT = RANDOM.uniform(size=200) ** 1.5
EIGENVALUES = np.array([-1e-9, 0.02, 3.0, 700.0, 45.0, 2500.0])
CURVE = SimpleNamespace(
    num_members=np.array([1, 2, 4, 8]),
    mean=np.array([-0.5, -0.4, -0.33, -0.31]),
    stderr=np.array([0.05, 0.03, 0.01, 0.0]),
)
X = RANDOM.permutation(np.linspace(-2, 2, 30))[:, None]
BAND = {
    "mean": np.sin(X),
    "epistemic": 0.1 * X**2,
    "aleatoric": np.full_like(X, 0.04),
    "quantiles": np.sin(X) + np.array([-1.0, 0.1, 2.0])[:, None, None],
}

FIGURES = {
    "trace": lambda **k: plotting.trace(CHAINS, **k),
    "rank": lambda **k: plotting.rank(CHAINS, num_bins=10, **k),
    "reliability": lambda **k: plotting.reliability(PROBABILITIES, LABELS, **k),
    "risk_coverage": lambda **k: plotting.risk_coverage(CONFIDENCE, IS_RIGHT, **k),
    "entropy_histogram": lambda **k: plotting.entropy_histogram(INSIDE, OUTSIDE, **k),
    "member_agreement": lambda **k: plotting.member_agreement(MEMBERS, **k),
    "log_predictive_density": lambda **k: plotting.log_predictive_density(CURVE, **k),
    "metric_spectrum": lambda **k: plotting.metric_spectrum(EIGENVALUES, learning_rate=0.01, **k),
    "predictive_band": lambda **k: plotting.predictive_band(X, BAND, data=(X, X), **k),
    "coverage": lambda **k: plotting.coverage(PIT, **k),
}
every_figure = every_row("name", FIGURES)


@pytest.fixture(autouse=True)
def fresh_session():
    """In place of the one for Keras, of which nothing is used here."""
    assert not plt.get_fignums()
    yield
    plt.close("all")


def new_axes():
    return Figure(layout="constrained").subplots()


@pytest.fixture
def ax():
    return new_axes()


def test_the_table_above_is_complete():
    assert sorted(FIGURES) == sorted(plotting.__all__)


# ---------------------------------------------------------------- what all have in common


@every_figure
def test_draws_on_the_given_axes_and_changes_nothing_else(name):
    settings, ax = dict(matplotlib.rcParams), new_axes()
    assert FIGURES[name](ax=ax) is ax
    assert not plt.get_fignums()
    assert dict(matplotlib.rcParams) == settings
    assert ax.get_title()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    ax.figure.savefig(io.BytesIO())  # warnings are errors


@every_figure
def test_makes_one_figure_when_there_are_no_axes(name):
    """At its size, title, labels, ticks and legend stay inside."""
    plt.close("all")
    figure = FIGURES[name]().figure
    assert plt.get_fignums() == [figure.number]
    assert tuple(figure.get_size_inches()) == style.SIZE
    figure.savefig(io.BytesIO())
    inner, outer = figure.get_tightbbox(), figure.bbox_inches
    assert inner.x0 >= -0.01
    assert inner.y0 >= -0.01
    assert inner.x1 <= outer.x1 + 0.01
    assert inner.y1 <= outer.y1 + 0.01


@every_figure
def test_an_error_leaves_no_figure(name, monkeypatch):
    def fail(*_):
        assert plt.get_fignums()
        raise KeyboardInterrupt

    monkeypatch.setattr(style, "finish", fail)
    with pytest.raises(KeyboardInterrupt):
        FIGURES[name]()
    assert not plt.get_fignums()


@every_figure
def test_axes_must_be_axes(name):
    with pytest.raises(ValueError, match=r"matplotlib Axes.*Received: ax=array.*one element"):
        FIGURES[name](ax=np.zeros(2))


@every_figure
def test_says_what_to_install_without_matplotlib(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "keras_langevin\[plots\]"'):
        FIGURES[name]()


def test_importing_the_package_does_not_load_matplotlib():
    """Keras does where it is installed, which is forgotten first."""
    code = """if True:
        import sys, keras
        for name in [*sys.modules]:
            if name.partition(".")[0] == "matplotlib":
                del sys.modules[name]
        import keras_langevin.plotting
        sys.exit("matplotlib" in sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------------- chains


def test_trace_has_a_line_for_each_chain(ax):
    plotting.trace(CHAINS, ax)
    for line, chain in zip(ax.lines, CHAINS, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), 1 + np.arange(len(chain)))
        np.testing.assert_array_equal(line.get_ydata(), chain)
    assert len({line.get_color() for line in ax.lines}) == 3
    assert [text.get_text() for text in ax.get_legend().texts] == ["chain 1", "chain 2", "chain 3"]


def test_trace_of_one_chain_needs_no_legend(ax):
    plotting.trace(CHAINS[0], ax)
    assert len(ax.lines) == 1
    assert ax.get_legend() is None


def test_rank_counts_pooled_ranks(ax):
    plotting.rank(CHAINS, ax, num_bins=10)
    cut = np.stack([chain[:50] for chain in CHAINS])
    ranks = np.array([[np.sum(cut < draw) for draw in chain] for chain in cut])
    for steps, of_chain in zip(ax.patches[1:], ranks, strict=True):  # the first is the band
        counts, edges, _ = steps.get_data()
        np.testing.assert_array_equal(counts, np.bincount(of_chain // 15, minlength=10))
        np.testing.assert_allclose(edges, 15 * np.arange(11))
    assert ax.lines[0].get_ydata() == pytest.approx([5, 5])
    variance = 5 * (2 / 3) * (9 / 10) * 150 / 149
    band = ax.patches[0]
    assert band.get_y() == pytest.approx(5 - 1.96 * variance**0.5)
    assert band.get_height() == pytest.approx(2 * 1.96 * variance**0.5)


def test_rank_of_equal_draws_is_their_average(ax):
    """Constant chains: all ranks in the middle, whatever the order of the chains."""
    plotting.rank([np.ones(30), np.ones(30)], ax, num_bins=3)
    for steps in ax.patches[1:]:
        np.testing.assert_array_equal(steps.get_data().values, [0, 30, 0])


def binomial_counts(num_chains, num_draws, num_bins):
    level = num_draws / num_bins
    return level, np.sqrt(level * (1 - 1 / num_bins))


@every_row("law, is_right", [(uniform_counts, True), (binomial_counts, False)])
def test_rank_band_holds_95_percent_of_the_steps(law, is_right):
    """Two chains push each other's ranks, so that binomial counts would spread too much."""
    num_chains, num_draws, num_bins = 2, 400, 8
    random = np.random.default_rng(1)
    counts = []
    for _ in range(500):
        owner = random.permutation(num_chains * num_draws) % num_chains
        counts.append(np.bincount(np.arange(owner.size) * num_bins // owner.size, owner == 0))
    level, spread = law(num_chains, num_draws, num_bins)
    inside = float(np.mean(np.abs(np.array(counts) - level) <= 1.96 * spread))
    # 4,000 counts: a standard error of 0.4 %, and whole numbers fill 0.8 % more.
    assert (abs(inside - 0.95) < 0.015) is is_right


# ------------------------------------------------------------------------- classification


def test_reliability_shows_the_filled_bins_and_their_intervals(ax):
    plotting.reliability(PROBABILITIES, LABELS, 8, ax=ax)
    bins = np.minimum((8 * CONFIDENCE).astype(int), 7)
    filled = np.unique(bins)
    assert 2 < len(filled) < 8
    share = np.array([IS_RIGHT[bins == b].mean() for b in filled])
    mean = np.array([CONFIDENCE[bins == b].mean() for b in filled])
    count = np.array([np.sum(bins == b) for b in filled])
    (points,) = ax.containers
    np.testing.assert_allclose(points[0].get_xdata(), mean)
    np.testing.assert_allclose(points[0].get_ydata(), share)
    for segment, p, n in zip(points[2][0].get_segments(), share, count, strict=True):
        np.testing.assert_allclose(wilson_equation(segment[:, 1], p, n), 0, atol=1e-9)
    error = np.sum(count * np.abs(share - mean)) / 90
    assert f"error {100 * error:.1f} %, 8 bins" in ax.get_title()


def wilson_equation(limits, share, count):
    """0 where the share is 1.96 standard deviations from that limit (Wilson 1927)."""
    return (share - limits) ** 2 - 1.96**2 * limits * (1 - limits) / count


def wald_interval(share, count):
    half = 1.96 * np.sqrt(share * (1 - share) / count)
    return share - half, share + half


@every_row("interval, is_right", [(classification.wilson_interval, True), (wald_interval, False)])
def test_wilson_interval_solves_its_equation(interval, is_right):
    share, count = np.array([0.0, 0.3, 0.9]), np.array([4, 10, 50])
    residual = wilson_equation(np.array(interval(share, count)), share, count)
    assert np.allclose(residual, 0, atol=1e-12) is is_right


def test_labelled_curves_share_axes(ax):
    for name in ("one", "two"):
        plotting.reliability(PROBABILITIES, LABELS, ax=ax, label=name)
    error = 100 * calibration.expected_calibration_error(PROBABILITIES, LABELS, 10)
    texts = [text.get_text() for text in ax.get_legend().texts]
    assert texts == [f"one, ECE {error:.1f} %", f"two, ECE {error:.1f} %"]
    first, second = (container[0].get_color() for container in ax.containers)
    assert first != second
    assert sum(line.get_gid() == "diagonal" for line in ax.lines) == 1


def test_risk_coverage_and_the_orders_to_compare_with(ax):
    plotting.risk_coverage(CONFIDENCE, IS_RIGHT, ax)
    curve, perfect, random = ax.lines
    kept = np.arange(1, 91)
    wrong = ~IS_RIGHT[np.argsort(-CONFIDENCE)]
    np.testing.assert_allclose(curve.get_xdata(), kept / 90)
    np.testing.assert_allclose(curve.get_ydata(), np.cumsum(wrong) / kept)
    np.testing.assert_allclose(perfect.get_ydata(), np.cumsum(np.sort(wrong)) / kept, atol=1e-12)
    assert random.get_ydata() == pytest.approx(2 * [wrong.mean()])
    assert f"{100 * np.mean(np.cumsum(wrong) / kept):.2f} %" in ax.get_title()


def test_labelled_risks_stay_in_view_and_have_no_other_lines(ax):
    plotting.risk_coverage(CONFIDENCE, IS_RIGHT, ax, label="one")
    plotting.risk_coverage(-CONFIDENCE, IS_RIGHT, ax, label="upside down")
    assert len(ax.lines) == 2
    highest = max(line.get_ydata()[4:].max() for line in ax.lines)
    assert highest < ax.get_ylim()[1] < 1.3 * highest


def test_the_risk_of_the_first_few_does_not_set_the_scale(ax):
    is_right = np.arange(100) % 99 > 0  # the surest and the least sure are wrong
    plotting.risk_coverage(-np.arange(100.0), is_right, ax)
    assert ax.lines[0].get_ydata()[0] == 1
    assert ax.get_ylim() == (0, pytest.approx(1.12 / 6))


def test_risk_of_a_model_without_errors(ax):
    plotting.risk_coverage(CONFIDENCE, np.ones(90, bool), ax)
    assert ax.get_ylim() == (0, 1)


# ---------------------------------------------------------------------------- uncertainty


def test_entropy_histogram_shows_shares(ax):
    plotting.entropy_histogram(INSIDE, OUTSIDE, ax, num_classes=4, num_bins=6)
    edges = np.log(4) * np.arange(7) / 6
    for steps, values in zip(ax.patches[1::2], (INSIDE, OUTSIDE), strict=True):
        shares = [np.mean((values >= a) & (values < b)) for a, b in itertools.pairwise(edges)]
        np.testing.assert_allclose(steps.get_data().values, shares)
        np.testing.assert_allclose(steps.get_data().edges, edges)
    assert ax.lines[0].get_xdata() == pytest.approx(2 * [np.log(4)])
    auroc = np.mean(OUTSIDE[:, None] > INSIDE)
    assert f"{100 * auroc:.1f} %" in ax.get_title()
    assert [t.get_text() for t in ax.get_legend().texts] == [
        "in distribution",
        "out of distribution",
    ]


def test_entropies_of_one_kind_of_data(ax):
    plotting.entropy_histogram(INSIDE, ax=ax)
    assert ax.get_legend() is None
    assert ax.patches[0].get_data().values.sum() == pytest.approx(1)
    assert f"{INSIDE.mean():.3f}" in ax.get_title()


def test_rounded_entropies_count_at_the_ends(ax):
    plotting.entropy_histogram([-1e-7, np.log(4) + 1e-6], ax=ax, num_classes=4, num_bins=2)
    np.testing.assert_allclose(ax.patches[0].get_data().values, [0.5, 0.5])


def test_entropies_that_are_all_zero(ax):
    plotting.entropy_histogram(np.zeros(5), ax=ax)
    assert ax.patches[0].get_data().values[0] == 1


@pytest.mark.parametrize(("num_members", "width"), [(7, 1), (20, 1), (21, 2), (50, 3)])
def test_member_agreement_counts_votes(ax, num_members, width):
    members = np.random.default_rng(2).dirichlet(np.ones(3), size=(num_members, 60))
    members[:, 0] = [1, 0, 0]  # all agree
    plotting.member_agreement(members, ax)
    classes = members.mean(axis=0).argmax(axis=-1)
    votes = np.array([np.sum(members[:, i].argmax(-1) == classes[i]) for i in range(60)])
    first_of_bar = num_members + 1 - width * np.arange(len(ax.patches), 0, -1)
    assert -width < first_of_bar[0] <= 0  # from no vote, or less, to all
    for bar, first in zip(ax.patches, first_of_bar, strict=True):
        count = np.sum((votes >= first) & (votes < first + width))
        assert bar.get_y() + bar.get_height() == pytest.approx(max(count, 0.5))
        assert bar.get_x() * num_members == pytest.approx(first - 0.5)
        assert bar.get_width() * num_members == pytest.approx(width)
    unanimous = 100 * np.mean(votes == num_members)
    assert f"All {num_members} members agree on {unanimous:.1f} %" in ax.get_title()


# --------------------------------------------------------------- ensemble size, curvature


def test_log_predictive_density_shows_curve_band_and_levels(ax):
    plotting.log_predictive_density(CURVE, ax)
    curve, last, first = ax.lines
    np.testing.assert_array_equal(curve.get_xdata(), CURVE.num_members)
    np.testing.assert_array_equal(curve.get_ydata(), CURVE.mean)
    assert tuple(last.get_ydata()) == (-0.31, -0.31)
    assert tuple(first.get_ydata()) == (-0.5, -0.5)
    assert [text.get_text() for text in ax.texts] == ["8 members: −0.3100", "1 member: −0.5000"]
    assert limits_at(ax.collections[0], 2) == pytest.approx((-0.4 - 0.0588, -0.4 + 0.0588))
    assert ax.get_xscale() == "log"


def test_an_unknown_standard_error_has_no_band(ax):
    unknown = SimpleNamespace(num_members=[1, 2], mean=[-0.5, -0.4], stderr=[0.1, np.nan])
    plotting.log_predictive_density(unknown, ax)
    assert limits_at(ax.collections[0], 2) == (-0.4, -0.4)


def limits_at(band, x):
    """Lowest and highest y of a filled band at one of its x."""
    vertices = band.get_paths()[0].vertices
    there = vertices[np.isclose(vertices[:, 0], x), 1]
    return there.min(), there.max()


def test_metric_spectrum_tells_what_is_stable(ax):
    plotting.metric_spectrum(EIGENVALUES, ax, learning_rate=0.01)  # stable up to 200
    below, above, limit = ax.lines
    np.testing.assert_array_equal(below.get_xdata(), [3, 4, 5])
    np.testing.assert_array_equal(below.get_ydata(), [45.0, 3.0, 0.02])
    np.testing.assert_array_equal(above.get_xdata(), [1, 2])
    np.testing.assert_array_equal(above.get_ydata(), [2500.0, 700.0])
    assert below.get_color() != above.get_color()
    assert limit.get_ydata() == pytest.approx([200, 200])
    assert ax.get_yscale() == "log"
    assert "1 not positive" in ax.get_title()
    assert "1,250 % of what is stable" in ax.get_title()


def test_metric_spectrum_without_a_learning_rate(ax):
    plotting.metric_spectrum(EIGENVALUES[1:], ax)
    below, above = ax.lines
    assert (len(below.get_xdata()), len(above.get_xdata())) == (5, 0)
    assert ax.get_title() == "Largest 2,500, 125,000 times the smallest"


# ----------------------------------------------------------------------------- regression


def test_predictive_band_sorts_x(ax):
    data = (np.array([0.0, 1.0]), np.array([[0.5], [0.2]]))
    plotting.predictive_band(X, BAND, ax, data=data)
    x = np.sort(X[:, 0])
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), x)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.sin(x))
    outer, inner, points = ax.collections
    for place in x[[0, 7, -1]]:
        expected = (np.sin(place) - 1, np.sin(place) + 2)
        assert limits_at(outer, place) == pytest.approx(expected)
        half = 2 * np.sqrt(0.1) * abs(place)
        assert limits_at(inner, place) == pytest.approx(
            (np.sin(place) - half, np.sin(place) + half)
        )
    np.testing.assert_array_equal(points.get_offsets(), [[0, 0.5], [1, 0.2]])
    assert "90 %" in ax.get_title()


def test_predictive_band_takes_the_outer_quantiles_in_any_order(ax):
    shuffled = BAND | {"quantiles": BAND["quantiles"][[2, 0, 1]]}
    plotting.predictive_band(X, shuffled, ax, quantiles=(0.9, 0.1, 0.5))
    x = X.min()
    assert limits_at(ax.collections[0], x) == pytest.approx((np.sin(x) - 1, np.sin(x) + 2))
    assert "80 %" in ax.get_title()


def test_coverage_shows_observed_against_nominal(ax):
    plotting.coverage(PIT, ax)
    _, curve = ax.lines  # the first is the diagonal
    levels = np.arange(1, 100) / 100
    np.testing.assert_allclose(curve.get_xdata(), levels)
    low, high = (1 - levels) / 2, (1 + levels) / 2
    inside = (PIT[:, None] >= low) & (PIT[:, None] <= high)
    np.testing.assert_allclose(curve.get_ydata(), inside.mean(axis=0))
    assert limits_at(ax.collections[0], 0.5) == pytest.approx(
        (0.5 - 0.98 / 200**0.5, 0.5 + 0.98 / 200**0.5)
    )


# ------------------------------------------------------------------------------ bad input

SHIFTED = PROBABILITIES + 0.1
BAD = {
    "no chains": (lambda: plotting.trace([]), "draws=\\[\\]"),
    "two quantities": (lambda: plotting.trace(np.zeros((5, 2))), "shape=\\(5, 2\\).*`draws\\[:, 0"),
    "numbers for chains": (lambda: plotting.trace([0.1, 0.2]), "shape=\\(\\)"),
    "empty chain": (lambda: plotting.trace(np.zeros(0)), "shape=\\(0,\\)"),
    "diverged": (lambda: plotting.trace([1.0, np.nan] * np.ones((1, 2))[0]), "in 1 of 2"),
    "one chain": (lambda: plotting.rank(CHAINS[0]), "two chains.*Received: 1.*halves"),
    "bins": (lambda: plotting.rank(CHAINS, num_bins=51), "num_bins=51, 50 draws"),
    "no bins": (lambda: plotting.rank(CHAINS, num_bins=0), "num_bins=0"),
    "not probabilities": (lambda: plotting.reliability(SHIFTED, LABELS), "softmax"),
    "other labels": (lambda: plotting.reliability(PROBABILITIES, LABELS[1:]), "shape=\\(89,\\)"),
    "other confidences": (lambda: plotting.risk_coverage(CONFIDENCE[1:], IS_RIGHT), "same shape"),
    "negative entropy": (lambda: plotting.entropy_histogram([-0.1, 0.2]), "from -0.1 to 0.2"),
    "classes": (lambda: plotting.entropy_histogram([0.9], num_classes=2), "0.693147.*num_classes"),
    "labels": (lambda: plotting.entropy_histogram([1], [2], labels=("a",)), "2 names.*\\('a',\\)"),
    "real numbers": (lambda: plotting.member_agreement(np.ones((5, 9, 1))), "predictive_band"),
    "one number": (lambda: plotting.member_agreement(np.ones((5, 9))), "shape=\\(5, 9\\)"),
    "logits": (lambda: plotting.member_agreement(5 * MEMBERS), "sum to 1"),
    "no curve": (lambda: plotting.log_predictive_density(np.ones(3)), "ndarray without.*stderr"),
    "flat": (lambda: plotting.metric_spectrum([-1.0, 0.0]), "up to 0"),
    "rate": (lambda: plotting.metric_spectrum(EIGENVALUES, learning_rate=0), "learning_rate=0"),
    "no quantiles": (lambda: plotting.predictive_band(X, {"mean": X}), "without.*quantiles"),
    "levels": (lambda: plotting.predictive_band(X, BAND, quantiles=(0.1, 0.9)), "of 3 levels"),
    "other x": (lambda: plotting.predictive_band(X[1:], BAND), "29 entries.*shape=\\(30,\\)"),
    "data": (lambda: plotting.predictive_band(X, BAND, data=(X, X[1:])), "30 entries"),
    "pit": (lambda: plotting.coverage([0.5, 1.5]), "to 1.5"),
}


@every_row("what, call, words", [(what, *row) for what, row in BAD.items()])
def test_bad_input(what, call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "Received: " in str(error.value)
    assert not plt.get_fignums()
