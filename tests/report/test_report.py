"""The report of an ensemble: its numbers, its words and its page."""

import dataclasses
import functools
import html.parser
import os
import re
import shutil
import subprocess
import warnings

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin import calibration
from keras_langevin.report import Report, Row
from keras_langevin.report.findings import findings
from keras_langevin.report.page import page as report_page

NUM_DATA, BATCH = 400, 40
PRIOR = kl.priors.Normal(0.3)
GOOD_RATE = 0.6  # minibatches bring a tenth of the noise
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def blobs(seed=0, num=NUM_DATA):
    """Three overlapping classes in the plane."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, num)
    x = np.array([[0, 2], [-2, -1], [2, -1]])[y] + rng.normal(size=(num, 2)) * 1.2
    return x.astype("float32"), y


def network():
    return keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)]
    )


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@functools.cache
def mode():
    """Where every chain begins: the weights of a trained network."""
    keras.utils.set_random_seed(0)
    model = network()
    model.compile(keras.optimizers.Adam(0.02), LOSS, jit_compile=JIT_IF_NEEDED)
    model.fit(*blobs(), batch_size=BATCH, epochs=10, verbose=0)
    return model.get_weights()


def compiled(optimizer):
    model = network()
    model.set_weights(mode())
    model.compile(optimizer, LOSS, jit_compile=JIT_IF_NEEDED)
    return model


def sampled(learning_rate, epochs=110, burn_in=50, optimizer=kl.SGLD, sampler=None):
    """The sampler of a chain that goes on from the mode."""
    model = compiled(optimizer(learning_rate, num_data=NUM_DATA, prior=PRIOR))
    sampler = sampler or kl.PosteriorSampler(burn_in=burn_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of noise: the report is to say it
        model.fit(*blobs(), batch_size=BATCH, epochs=epochs, callbacks=[sampler], verbose=0)
    return sampler


@pytest.fixture(scope="module")
def good():
    # One right chain in a hundred has a temperature outside its band: on torch that of seed 0.
    keras.utils.set_random_seed(1 if keras.backend.backend() == "torch" else 0)
    return sampled(GOOD_RATE)


@pytest.fixture(scope="module")
def ensemble(good):
    return good.ensemble()


@pytest.fixture(scope="module")
def good_report(ensemble):
    return ensemble.report(*blobs(1), training_data=blobs(), verbose=0)


@pytest.fixture
def fresh_session():
    """The module's ensembles live on."""
    keras.utils.set_random_seed(0)


def titles(report, level=None):
    return [f.title for f in report.findings if level in (None, f.level)]


def test_numbers_are_those_of_their_definitions(good, ensemble):
    x, y = blobs(1)
    outside = 8 * np.random.default_rng(2).normal(size=(50, 2)).astype("float32")
    report = ensemble.report(x, y, out_of_distribution=outside, verbose=0)
    p, members = ensemble.predict(x, verbose=0), ensemble.predict_members(x, verbose=0)
    p /= p.sum(-1, keepdims=True)
    entropies = [
        calibration.predictive_entropy(q) for q in (p, ensemble.predict(outside, verbose=0))
    ]
    expected = {
        "num_labels": NUM_DATA,
        "negative_log_likelihood": ensemble.evaluate(x, y, verbose=0),
        "negative_log_likelihood_of_members": -np.mean(np.log(members[:, np.arange(len(y)), y])),
        "accuracy": np.mean(p.argmax(-1) == y),
        "accuracy_of_members": np.mean(members.argmax(-1) == y),
        "accuracy_of_guessing": np.bincount(y).max() / len(y),
        "brier_score": calibration.brier_score(p, y),
        "expected_calibration_error": calibration.expected_calibration_error(p, y),
        "overconfidence": p.max(-1).mean() - np.mean(p.argmax(-1) == y),
        "out_of_distribution_auroc": calibration.out_of_distribution_auroc(*entropies),
        "num_members": 60,
        "num_chains": 1,
        "learning_rate": GOOD_RATE,
        "batch_size": BATCH,
    }
    found = {name: report[name] for name in expected}
    assert found == pytest.approx(expected, abs=2e-6)
    uncertainty = ensemble.predict_uncertainty(x, verbose=0)
    share = uncertainty["epistemic"].sum() / uncertainty["total"].sum()
    assert report["epistemic_share"] == pytest.approx(share, abs=1e-4)
    limits = kl.diagnostics.step_size(good.model, x, y, BATCH)
    assert report["stability_limit"] == pytest.approx(limits.stability_limit, rel=1e-3)
    assert report["minibatch_noise"] == pytest.approx(GOOD_RATE / limits.noise_limit, rel=1e-3)


def test_a_good_run_is_called_good(good_report):
    report = good_report
    assert titles(report, "problem") == []
    assert titles(report, "warning") == ["Predictions are more right than sure."]  # of the prior
    text = str(report)
    assert "negative log-likelihood" in text and "→" not in text
    assert len(report) == len(list(report)) == len(dict(report))


@pytest.mark.neutral
@pytest.mark.parametrize("optimizer", [kl.SGLD, kl.QDOPLangevin])
def test_a_learning_rate_30_times_too_large_is_named(optimizer):
    """SGLD survives it here, with useless members; QDOP diverges after some samples."""
    rate = 30 * recommended(optimizer)
    sampler = kl.PosteriorSampler(burn_in=0)
    if optimizer is kl.QDOPLangevin:
        with pytest.raises(FloatingPointError, match=r"learning rate, here .* is too large"):
            sampled(rate, epochs=30, optimizer=optimizer, sampler=sampler)
    else:
        sampled(rate, epochs=30, optimizer=optimizer, sampler=sampler)
    report = sampler.ensemble().report(*blobs(1), verbose=0)
    title = report.findings[0].title
    assert "learning rate is" in title and "too large" in title
    words = str(report.findings[0])
    assert "learning_rate=" in words and 'learning_rate="auto"' in words  # what to do
    for jargon in ("MCMC", "eigenvalue", "metric", "Fisher", "Hessian", "posterior"):
        assert jargon not in words


@pytest.mark.neutral
def test_a_learning_rate_far_too_small_is_named():
    rate = recommended(kl.SGLD) / 3000
    report = sampled(rate, epochs=30, burn_in=0).ensemble().report(*blobs(1), verbose=0)
    assert "moves too slowly: the learning rate is" in report.findings[0].title


def recommended(optimizer):
    model = compiled(optimizer(0.0, num_data=NUM_DATA, prior=PRIOR))
    return kl.diagnostics.step_size(model, *blobs(), BATCH).recommended


def test_real_numbers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 1)).astype("float32")
    y = np.sin(2 * x) + 0.3 * rng.normal(size=x.shape).astype("float32")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("adam", kl.losses.GaussianNLL(0.3))
    samples = [[rng.normal(size=(1, 1)), rng.normal(size=1)] for _ in range(12)]
    ensemble = kl.BayesianEnsembleModel(model, samples)
    report = ensemble.report(x, y, verbose=0)
    mean = ensemble.predict_members(x, verbose=0)
    stddev = np.full_like(mean, 0.3)
    score = calibration.continuous_ranked_probability_score(mean, stddev, y)
    assert report["continuous_ranked_probability_score"] == pytest.approx(score, abs=1e-6)
    error = np.sqrt(np.mean((mean.mean(0) - y) ** 2))
    assert report["root_mean_squared_error"] == pytest.approx(error, abs=1e-6)
    alone = np.sqrt(np.mean((mean - y) ** 2))
    assert report["root_mean_squared_error_of_members"] == pytest.approx(alone, abs=1e-6)
    assert report["root_mean_squared_error_of_guessing"] == pytest.approx(y.std(), abs=1e-6)
    draws = mean[..., None] + 0.3 * rng.normal(size=(*mean.shape, 400))
    low, high = np.quantile(draws, [0.05, 0.95], axis=(0, -1))
    coverage = np.mean((low <= y) & (y <= high))
    assert report["coverage_90"] == pytest.approx(coverage, abs=0.02)
    assert report["optimizer"] is None and "sampler.ensemble()" in str(report)
    assert report["negative_log_likelihood_of_guessing"] == pytest.approx(
        np.log(y.std()) + 0.5 * np.log(2 * np.pi * np.e), abs=1e-6
    )


def test_predicted_noise_and_yes_or_no_together():
    rng = np.random.default_rng(0)
    inputs = keras.Input((2,))
    outputs = {"dose": keras.layers.Dense(2)(inputs), "ill": keras.layers.Dense(3)(inputs)}
    model = keras.Model(inputs, outputs)
    samples = [[rng.normal(size=v.shape) for v in model.trainable_variables] for _ in range(9)]
    kinds = {"dose": "mean_and_log_scale", "ill": "binary_logits"}
    ensemble = kl.BayesianEnsembleModel(model, samples, output=kinds, chains=[0, 1, 2] * 3)
    x = rng.normal(size=(70, 2)).astype("float32")
    y = {"dose": rng.normal(size=(70, 1)), "ill": rng.integers(0, 2, (70, 3))}
    report = ensemble.report(x, y, verbose=0)
    loss = report["dose_negative_log_likelihood"] + report["ill_negative_log_likelihood"]
    assert loss == pytest.approx(ensemble.evaluate(x, y, verbose=0), rel=1e-5)
    assert report["ill_num_labels"] == 210 and report["dose_num_labels"] == 70
    p = ensemble.predict(x, verbose=0)["ill"]
    assert report["ill_accuracy"] == pytest.approx(np.mean((p > 0.5) == y["ill"]))
    assert report["num_chains"] == 3 and report["r_hat"] is None  # chains of 3 are too short


def test_one_hot_labels_and_a_dataset():
    rng = np.random.default_rng(0)
    x, y = blobs(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "categorical_crossentropy")
    samples = [[rng.normal(size=(2, 3)), rng.normal(size=3)] for _ in range(6)]
    ensemble = kl.BayesianEnsembleModel(model, samples)
    report = ensemble.report(x, np.eye(3)[y], verbose=0)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            half = slice(200 * index, 200 * index + 200)
            return x[half], np.eye(3)[y[half]]

    assert dict(ensemble.report(Batches(), verbose=0)) == pytest.approx(dict(report), abs=1e-6)
    assert report["accuracy"] == np.mean(ensemble.predict(x, verbose=0).argmax(-1) == y)


@pytest.mark.neutral
def test_one_member_alone_has_a_report(capsys):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    ensemble = kl.BayesianEnsembleModel(model, [[np.ones((2, 3)), np.zeros(3)]], output="logits")
    report = ensemble.report(*blobs())
    assert report["is_rising"] and report["effective_sample_size"] is None
    assert "blind guessing" in capsys.readouterr().out


def test_a_run_that_diverged_is_named(ensemble):
    model = compiled(kl.SGLD(0.7, num_data=NUM_DATA))
    model.set_weights([np.full(v.shape, np.nan) for v in model.weights])
    report = ensemble.report(*blobs(), model=model, batch_size=BATCH, verbose=0)
    assert report["has_diverged"] is True
    assert report.findings[0].title.startswith("Training has diverged: the learning rate is far")


@pytest.mark.neutral
@every_row("sampler", [kl.SMILE, kl.NGD])
def test_samplers_without_a_noise_limit(ensemble, sampler):
    more = {"batch_size": BATCH} if sampler is kl.NGD else {}
    optimizer = sampler(0.01, num_data=NUM_DATA, **more)
    model = compiled(optimizer)
    report = ensemble.report(*blobs(), model=model, batch_size=BATCH, verbose=0)
    assert report["optimizer"] == sampler.__name__ and "minibatch_noise" not in report


# ------------------------------------------------------------------------------- words

NOTHING_WRONG = {
    "learning_rate": 0.01,
    "recommended_learning_rate": 0.02,
    "learning_rate_for_tenth": 0.02,
    "stability_limit": 0.04,
    "minibatch_noise": 0.05,
    "batch_size": 50,
    "num_data": 1000,
    "temperature": 1.0,
    "configurational_temperature": 1.01,
    "configurational_temperature_low": 0.95,
    "configurational_temperature_high": 1.07,
    "num_chains": 2,
    "num_members": 50,
    "r_hat": 1.01,
    "independent_draws": 30.0,
    "drift": 0.02,
    "spread": 0.1,
    "enough_members": 20,
    "is_rising": False,
    "negative_log_likelihood_of_members": 0.3,
    "negative_log_likelihood_of_guessing": 1.1,
    "num_labels": 1000,
    "accuracy": 0.9,
    "overconfidence": 0.001,
}


@pytest.mark.neutral
@every_row(
    "change, level, words",
    [
        ({}, "good", "Nothing is wrong"),
        ({"learning_rate": 0.6, "minibatch_noise": 3.0}, "problem", "too large, about 30 times"),
        ({"learning_rate": 9.0, "minibatch_noise": 9.0}, "problem", "more than 30 times"),
        ({"minibatch_noise": 3.0}, "problem", "shakes the weights 3 times"),
        ({"learning_rate": 0.05}, "warning", "at the limit of what is stable"),
        ({"learning_rate": 0.07}, "problem", "overshoot"),
        ({"minibatch_noise": 0.5}, "note", "50% of the noise"),
        ({"temperature": 0.25}, "note", "2.0 times narrower"),
        ({"temperature": 0.0}, "warning", "No noise was added"),
        ({"configurational_temperature": 1.1}, "warning", "runs hotter"),
        ({"configurational_temperature": 0.8}, "warning", "runs colder"),
        ({"r_hat": 1.3}, "warning", "the chains differ"),
        ({"r_hat": 1.3, "learning_rate": 0.001}, "warning", "20 times smaller than it may be"),
        ({"r_hat": 1.3, "num_chains": 1}, "warning", "second half of the chain"),
        ({"is_rising": True}, "warning", "More members would still help"),
        ({"independent_draws": 2.0}, "warning", "has not moved"),
        ({"independent_draws": 2.0, "learning_rate": 0.001}, "warning", "moves too slowly"),
        ({"drift": 0.7}, "warning", "still on its way"),
        ({"spread": 1e-4}, "warning", "posterior is a point"),
        ({"overconfidence": 0.05}, "warning", "more sure than right"),
        ({"overconfidence": -0.05}, "warning", "more right than sure"),
        ({"coverage_90": 0.7}, "warning", "too narrow"),
        ({"negative_log_likelihood_of_members": 2.0}, "problem", "worse than blind guessing"),
        ({"has_diverged": True}, "problem", "has diverged"),
        ({"num_training_examples": 900}, "problem", "num_data is 1,000, and there are 900"),
        ({"num_data": 20, "num_training_examples": 1000}, "problem", "7.1 times wider"),
        ({"drift_clipped": 0.12}, "warning", "shortened in 12.0% of the steps"),
        ({"drift_clipped": 0.03}, "note", "shortened in 3.0% of the steps"),
    ],
)
def test_what_each_number_is_taken_for(change, level, words):
    matching = [f for f in findings({**NOTHING_WRONG, **change}) if words in str(f)]
    assert [f.level for f in matching] == [level]
    if change:
        assert not [f for f in findings(NOTHING_WRONG) if words in str(f)]


@every_row(
    "change",
    [
        {"num_training_examples": 960},
        {"num_data": 5000, "num_training_examples": 1000, "num_targets": 5},
        {"drift_clipped": 0.004},
    ],
)
def test_what_is_no_finding(change):
    assert not [f for f in findings({**NOTHING_WRONG, **change}) if f.level == "problem"]
    assert not [f for f in findings({**NOTHING_WRONG, **change}) if "shortened" in f.title]


WRONG = (
    {"learning_rate": 9.0, "minibatch_noise": 9.0},
    {"learning_rate": 0.05},
    {"has_diverged": True},
    {"negative_log_likelihood_of_members": 2.0},
    {"independent_draws": 2.0, "learning_rate": 0.001},
    {"independent_draws": 2.0},
    {"configurational_temperature": 1.1},
)


@every_row("change", WRONG)
def test_nobody_is_advised_what_he_does_already(change):
    numbers = {**NOTHING_WRONG, **change}
    rate = re.compile(r"or learning_rate=|with learning_rate=|raise the learning rate|Lower the")
    said = " ".join(f.advice for f in findings({**numbers, "has_automatic_learning_rate": True}))
    assert not rate.search(said) and 'or learning_rate="auto"' not in said
    assert said  # something is advised
    assert "learning" in " ".join(f.advice for f in findings(numbers))


def test_the_cause_is_named_before_what_follows_from_it():
    change = {"num_training_examples": 40, "negative_log_likelihood_of_members": 2.0}
    first, second = findings({**NOTHING_WRONG, **change})[:2]
    assert first.title.startswith("num_data is") and first.title in second.advice


def report_of(**numbers):
    rows = [Row(name, value, name, "", "g") for name, value in numbers.items()]
    return Report("title", "about", {"Chains": rows}, findings(numbers))


@every_row(
    "numbers, marked",
    [
        ({"num_members": 50, "num_chains": 1, "r_hat_largest": 1.46}, {"r_hat_largest"}),
        ({"num_members": 50, "num_chains": 1, "r_hat_largest": 1.2}, set()),
        ({"num_members": 30, "num_chains": 1, "r_hat_largest": 1.46}, set()),  # chance
        ({"r_hat": 1.3, "drift": 0.1}, {"r_hat"}),
        ({"independent_draws": 2.0, "drift": 0.8}, {"independent_draws", "drift"}),
        (
            {"num_members": 50, "num_chains": 1, "effective_sample_size_smallest": 5.3},
            {"effective_sample_size_smallest"},
        ),
        ({"num_members": 30, "num_chains": 1, "effective_sample_size_smallest": 4.0}, set()),
    ],
)
def test_numbers_out_of_their_range_are_marked(numbers, marked):
    report = report_of(**numbers)
    assert report.marked == marked
    lines = {line.split()[0]: line for line in str(report).splitlines()[3:] if line}
    page = report_page(report)
    for name in numbers:
        assert lines[name].endswith("!") == (name in marked)
    assert page.count('<tr class="marked">') == len(marked)


def test_one_member_alone_is_one_number(good_report, ensemble):
    x, y = blobs(1)
    curve = kl.diagnostics.running_log_predictive_density(ensemble.log_likelihood(x, y))
    alone = good_report["negative_log_likelihood_of_members"]
    assert -curve.mean[0] == pytest.approx(alone, abs=1e-5)


@pytest.mark.neutral
def test_what_is_worst_comes_first():
    found = findings({**NOTHING_WRONG, "minibatch_noise": 9.0, "r_hat": 2.0})
    order = ["problem", "warning", "good", "note"]
    levels = [order.index(f.level) for f in found]
    assert levels == sorted(levels) and levels[0] == 0
    assert all("Nothing is wrong" not in f.title for f in found)


# -------------------------------------------------------------------------------- page


class Page(html.parser.HTMLParser):
    """Open tags, and what stands in the page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes)
        elif tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [attributes[k] for k in ("href", "src") if k in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def page(ensemble, tmp_path_factory):
    pytest.importorskip("matplotlib")
    path = tmp_path_factory.mktemp("page") / "report.html"
    report = ensemble.report(*blobs(1), html=path, verbose=0)
    return path, report


@pytest.mark.neutral
def test_the_page_is_whole_and_needs_nothing_else(page):
    path, report = page
    parsed = Page(path.read_text())
    assert parsed.open == [] and len(parsed.images) == 7
    assert all(link.startswith("data:image/png;base64,") for link in parsed.links)
    words = " ".join(parsed.words)
    for finding in report.findings:
        assert finding.title in words
    assert f"{report['accuracy']:.1%}" in words


@pytest.mark.neutral
def test_text_is_escaped(good_report, tmp_path):
    pytest.importorskip("matplotlib")
    report = dataclasses.replace(good_report, title="<script>alert(1)</script>", _figures=[])
    report.save(tmp_path / "page.html")
    assert "<script" not in (tmp_path / "page.html").read_text()


@pytest.mark.neutral
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_opens_in_chromium(page, tmp_path):
    path, _ = page
    probe = (
        "<script>window.onload = () => { document.title = Array.from(document.images)"
        ".map(i => i.naturalWidth).join(' ') + '|' + document.body.scrollHeight }</script>"
    )
    probed = tmp_path / "probed.html"
    probed.write_text(path.read_text().replace("</body>", f"{probe}</body>"))
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --virtual-time-budget=5000 --dump-dom"
    )
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", probed.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    widths, height = re.search("<title>(.*)</title>", dom).group(1).split("|")
    assert [int(width) > 500 for width in widths.split()] == [True] * 7  # every figure was drawn
    assert int(height) > 1000


@pytest.mark.neutral
def test_a_notebook_shows_the_page(good_report):
    pytest.importorskip("matplotlib")
    shown = good_report._repr_html_()
    assert shown.startswith("<h1>") and "data:image/png" in shown


@pytest.mark.neutral
def test_a_page_that_cannot_be_drawn_leaves_the_old_one(good_report, tmp_path):
    def broken(ax):
        raise RuntimeError("no ink")

    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="no ink"):
        dataclasses.replace(good_report, _figures=[("a", broken)]).save(path)
    assert os.listdir(tmp_path) == ["report.html"] and path.read_text() == "old"
