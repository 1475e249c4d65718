"""What the numbers of a report say, in words for people who know Keras and not MCMC.

Each check is a function of the numbers, by name, to a `Finding` or None; a number that was not
measured is None. A new check is one function and one entry in `CHECKS`.
"""

import dataclasses
import math

from keras_langevin.diagnostics.chain_health import DISAGREEMENT, DRIFT, POINT, WORTH
from keras_langevin.optimizers.drift_clip import HARMLESS, MOST_CLIPPED
from keras_langevin.report.ranges import MARK, out_of_range

PROBLEM, WARNING, NOTE, GOOD = "problem", "warning", "note", "good"
SMALL_NOISE, LARGE_NOISE = 0.1, 1.0  # of minibatches, over the noise asked for
MARGIN = 1.5  # over the stability limit of one moment that a chain survives
SLOW = 5.0  # times smaller than recommended
MOST_FACTOR = 30  # beyond it the weights are too far out for the factor to be known
CALIBRATED = 3.0  # standard errors
COUNT = 0.05  # of `num_data`, that may be held out
AUTOMATIC = (
    'learning_rate="auto" found this rate in burn-in, and the loss is curved otherwise now. Scale '
    "the inputs to a range of about 1, use larger batches, or burn in for longer, so that it is "
    "measured again later."
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing a reader should know.

    Attributes:
        level: `"problem"` (do not trust the uncertainties), `"warning"`, `"note"` or `"good"`.
        title: What is the matter, one sentence.
        text: Why, with numbers.
        advice: What to do; empty when there is nothing to do.
    """

    level: str
    title: str
    text: str
    advice: str = ""

    def __str__(self):
        return " ".join(filter(None, (self.title, self.text, self.advice)))


def findings(numbers):
    """All findings, the worst first."""
    found = [finding for check in CHECKS if (finding := check(_Numbers(numbers))) is not None]
    if all(finding.level in (NOTE, GOOD) for finding in found):
        found.append(_nothing_wrong(numbers))
    order = (PROBLEM, WARNING, GOOD, NOTE)
    return sorted(found, key=lambda finding: order.index(finding.level))


class _Numbers(dict):
    def __missing__(self, name):
        return None

    def has(self, *names):
        return all(self[name] is not None for name in names)


def run_has_diverged(n):
    if not n["has_diverged"]:
        return None
    return Finding(
        PROBLEM,
        "Training has diverged: the learning rate is far too large.",
        f"At {n['learning_rate']:.2g} every step overshot more than the last, until a step was not "
        "a number any more. The members are from before, on the way there.",
        f"Do not use them. Train again with {_less(n)}; else look for NaN or infinity in the "
        "training data.",
    )


def num_data_is_wrong(n):
    if not n.has("num_data", "num_training_examples"):
        return None
    said, given = n["num_data"], n["num_training_examples"]
    targets = n["num_targets"] or 1
    if (1 - COUNT) * given <= said <= (1 + COUNT) * given * targets:
        return None
    sense = "narrower" if said > given else "wider"
    return Finding(
        PROBLEM,
        f"num_data is {said:,g}, and there are {given:,} training examples.",
        f"It says how much the data count: the members are spread about "
        f"{_times(said / given)} {sense} than the data justify, and learning rates that are right "
        "for one are wrong for the other.",
        f"Train again with num_data={given}. (`num_data` counts examples, not batches, and not "
        "those that `validation_split` takes away; `training_data` must be all of them.)",
    )


def drifts_are_shortened(n):
    if not n.has("drift_clipped") or n["drift_clipped"] <= HARMLESS:
        return None
    return Finding(
        WARNING if n["drift_clipped"] > MOST_CLIPPED else NOTE,
        f"The drift was shortened in {n['drift_clipped']:.1%} of the steps after burn-in.",
        f"Up to {HARMLESS:.0%} is harmless. Gradients of some batches are many times longer than "
        "usual; where they are cut, the members are not drawn from the posterior.",
        "Scale the inputs to a range of about 1, or use larger batches.",
    )


def worse_than_guessing(n):
    names = ("negative_log_likelihood_of_guessing", "negative_log_likelihood_of_members")
    if not n.has(*names) or n[names[1]] <= n[names[0]]:
        return None
    guess, members = (n[name] for name in names)
    advice = "Check first that these data are prepared as the training data were."
    causes = [f for f in (num_data_is_wrong(n), drifts_are_shortened(n)) if f and f.level != NOTE]
    if causes:
        advice = f"See to this first: {causes[0].title}"
    elif n.has("learning_rate") and n["has_automatic_learning_rate"]:
        advice = (
            "Train longer, in larger batches, on inputs scaled to a range of about 1, and look at "
            "the prior, which may be far wider than trained weights are. If the training loss was "
            "low, check that these data are prepared as the training data were."
        )
    elif n.has("learning_rate"):
        advice = (
            f"The usual reason is a learning rate that is far too large (it was "
            f"{n['learning_rate']:.2g}): steps throw the weights about instead of improving them. "
            f'Train again with a tenth of it, or learning_rate="auto". If the training loss was '
            f"low, check that these data are prepared as the training data were."
        )
    return Finding(
        PROBLEM,
        "The members predict worse than blind guessing.",
        f"A member's negative log-likelihood is {members:.3g}; always predicting how often each "
        f"label occurs would reach {guess:.3g}.",
        advice,
    )


def learning_rate_is_too_large(n):
    if not n.has("learning_rate", "minibatch_noise", "stability_limit"):
        return None
    rate, noise, limit = n["learning_rate"], n["minibatch_noise"], n["stability_limit"]
    if rate <= limit and noise <= LARGE_NOISE:
        return None
    if rate <= MARGIN * limit and noise <= LARGE_NOISE:
        return Finding(
            WARNING,
            "The learning rate is at the limit of what is stable.",
            f"It is {rate:.2g}; above {limit:.2g}, which varies along the chain, steps overshoot.",
            AUTOMATIC
            if n["has_automatic_learning_rate"]
            else f"learning_rate={n['recommended_learning_rate']:.2g} is safe.",
        )
    reasons = []
    if noise > LARGE_NOISE:
        reasons.append(
            f"Each training step sees {n['batch_size']} of {n['num_data']:g} examples, and which "
            f"ones is chance. That chance shakes the weights {noise:.2g} times as much as the "
            f"noise the sampler adds on purpose{_for_temperature(n)}, so the members are spread "
            "wider than the data justify: expect predictions that are less sure, and often less "
            "accurate, than they could be."
        )
    if rate > limit:
        reasons.append(
            f"Steps overshoot: above {limit:.2g} a step along the steepest direction lands farther "
            "from the bottom of the valley than it began, so the loss can jump or become NaN."
        )
    advised = n["recommended_learning_rate"]
    return Finding(
        PROBLEM,
        f"The learning rate is too large, {_factor_too_large(rate / advised)} times.",
        " ".join(reasons),
        AUTOMATIC
        if n["has_automatic_learning_rate"]
        else f"Train again with learning_rate={advised:.2g} (it was {rate:.2g}), or "
        'learning_rate="auto". Larger batches help as well.',
    )


def minibatches_add_noise(n):
    if not n.has("minibatch_noise") or not SMALL_NOISE < n["minibatch_noise"] <= LARGE_NOISE:
        return None
    noise = n["minibatch_noise"]
    return Finding(
        NOTE,
        f"Minibatches add {noise:.0%} of the noise that the sampler adds on purpose.",
        f"The spread of the members is about {math.sqrt(1 + noise) - 1:.0%} too wide.",
        f"learning_rate={n['learning_rate_for_tenth']:.2g} would make that a tenth of the noise; "
        "it needs a longer run.",
    )


def temperature_is_cold(n):
    if not n.has("temperature") or n["temperature"] == 1:
        return None
    temperature = n["temperature"]
    if temperature == 0:
        return Finding(
            WARNING,
            "No noise was added: temperature is 0.",
            "The members are points on a path of plain optimization, not samples of a posterior.",
            "Use temperature=1 for the Bayesian posterior.",
        )
    sense = "narrower" if temperature < 1 else "wider"
    return Finding(
        NOTE,
        f"The temperature is {temperature:g}, not 1.",
        f"On purpose, the members are about {_times(temperature)} {sense} than the Bayesian "
        "posterior is. Cold posteriors often predict better; choose the temperature on held-out "
        "data.",
    )


def temperatures_disagree(n):
    for kind in ("configurational", "kinetic"):
        names = [f"{kind}_temperature{end}" for end in ("", "_low", "_high")]
        if not n.has("temperature", *names):
            continue
        value, low, high = (n[name] for name in names)
        asked = n["temperature"]
        if low <= value <= high:
            continue
        word = "hotter" if value > asked else "colder"
        advice = (
            "Use larger batches, or scale the inputs to a range of about 1."
            if value > asked and n["has_automatic_learning_rate"]
            else "Lower the learning rate, or use larger batches."
            if value > asked
            else "Train longer before sampling (a larger burn_in), and check that the loss has "
            "stopped falling."
        )
        return Finding(
            WARNING,
            f"The chain runs {word} than it should.",
            f"Its {kind} temperature, a measure of how far the weights really swing, is "
            f"{value:.3g} where {asked:g} was asked for and a right chain gives {low:.3g} to "
            f"{high:.3g}.",
            advice,
        )
    return None


def chain_has_not_moved(n):
    if not n.has("independent_draws", "drift", "r_hat"):
        return None
    unmoved, drifts = n["independent_draws"] < WORTH, n["drift"] > DRIFT
    rates = ("learning_rate", "recommended_learning_rate")
    unsettled = unmoved or drifts or n["r_hat"] > DISAGREEMENT
    if unsettled and n.has(*rates) and SLOW * n[rates[0]] < n[rates[1]]:
        return _moves_slowly(n)
    if not unmoved and not drifts:
        return None
    automatic = n["has_automatic_learning_rate"]
    title = "The chain has not moved." if unmoved else "The chain is still on its way."
    return Finding(
        WARNING,
        title,
        f"Its members are worth {n['independent_draws']:.1f} independent ones, and a straight line "
        f"explains {n['drift']:.0%} of how their predictions vary: their spread is the path of "
        "training and says little about how sure the model is.",
        "Sample longer, after a longer burn_in"
        + (", or raise the learning rate." if unmoved and not automatic else "."),
    )


def _moves_slowly(n):
    rate, advised = n["learning_rate"], n["recommended_learning_rate"]
    return Finding(
        WARNING,
        f"The chain moves too slowly: the learning rate is {_factor(advised / rate)} times "
        "smaller than it may be.",
        f"The {n['num_members']} members are worth {n['independent_draws']:.1f} independent ones "
        "a chain, and their spread says little about how sure the model is.",
        "Train longer: a longer burn-in lets the rate be measured again, later."
        if n["has_automatic_learning_rate"]
        else f"Train again with learning_rate={advised:.2g} (it was {rate:.2g}), or "
        'learning_rate="auto"; or many times longer.',
    )


def chains_disagree(n):
    if not n.has("r_hat") or n["r_hat"] <= DISAGREEMENT or chain_has_not_moved(n) is not None:
        return None
    many = (n["num_chains"] or 1) > 1
    where = "the chains" if many else "the first and the second half of the chain"
    advice = "Sample longer, after a longer burn_in."
    if many:
        advice += (
            " Chains may also sit in different modes, which is no mistake of theirs: together they "
            "are still a better ensemble."
        )
    return Finding(
        WARNING,
        f"Predictions of {where} differ more than chance allows.",
        f"R-hat is {n['r_hat']:.2f} for a typical prediction, where 1.00 is perfect: sampling has "
        "not settled.",
        advice,
    )


def posterior_is_a_point(n):
    if not n.has("spread") or n["spread"] >= POINT:
        return None
    return Finding(
        WARNING,
        "Your posterior is a point: all members say the same.",
        f"They differ by {n['spread']:.1g} of the range of their predictions, so the ensemble is "
        "no better informed about its own doubt than a single model.",
        "Either the data leave no doubt, or nothing was sampled: check temperature (0 adds no "
        "noise), num_data (too large a number makes the posterior narrow) and the learning rate.",
    )


def too_few_members(n):
    if not n.has("enough_members", "is_rising"):
        return None
    if n["is_rising"]:
        return Finding(
            WARNING,
            "More members would still help.",
            f"The last doubling, to {n['num_members']} members, gained more than 0.01 nats per "
            "label.",
            "Sample longer, or store more often (a smaller thinning).",
        )
    if chain_has_not_moved(n) is not None:
        return None
    few = n["enough_members"]
    text = "One of them predicts" if few == 1 else f"{few} of them predict"
    return Finding(
        GOOD,
        f"{n['num_members']} members are enough.",
        f"{text} as well, to 0.01 nats per label.",
    )


def confidence_is_off(n):
    if not n.has("overconfidence", "num_labels", "accuracy"):
        return None
    error = math.sqrt(max(n["accuracy"] * (1 - n["accuracy"]), 1e-4) / n["num_labels"])
    gap = n["overconfidence"]
    if abs(gap) <= max(CALIBRATED * error, 0.01):
        return None
    sense, advice = ("more sure than right", "Check that the data are like those trained on.")
    if gap < 0:
        sense, advice = ("more right than sure", "")
    return Finding(
        WARNING,
        f"Predictions are {sense}.",
        f"Mean confidence is {n['accuracy'] + gap:.1%}, accuracy {n['accuracy']:.1%}.",
        f"{advice} `kl.calibration.temperature_scaling` on held-out data corrects it.".strip(),
    )


def coverage_is_off(n):
    if not n.has("coverage_90", "num_labels"):
        return None
    error = math.sqrt(0.9 * 0.1 / n["num_labels"])
    share = n["coverage_90"]
    if abs(share - 0.9) <= max(CALIBRATED * error, 0.02):
        return None
    sense = "too narrow" if share < 0.9 else "too wide"
    advice = (
        "Check the noise_stddev that the likelihood assumes, or let the network predict it "
        "(`kl.losses.GaussianNLL()`)."
    )
    if not n.has("continuous_ranked_probability_score"):  # no Gaussian
        advice = "Check the likelihood: one that has a spread to fit may suit the labels better."
    return Finding(
        WARNING,
        f"Predictive intervals are {sense}.",
        f"{share:.0%} of the labels are inside the 90 % intervals.",
        advice,
    )


CHECKS = (
    run_has_diverged,
    num_data_is_wrong,
    drifts_are_shortened,
    learning_rate_is_too_large,
    worse_than_guessing,
    minibatches_add_noise,
    temperature_is_cold,
    temperatures_disagree,
    chain_has_not_moved,
    chains_disagree,
    posterior_is_a_point,
    too_few_members,
    confidence_is_off,
    coverage_is_off,
)


def _nothing_wrong(numbers):
    n = _Numbers(numbers)
    looked = ["the predictions"]
    looked += ["the step size and the noise"] if n.has("minibatch_noise") else []
    looked += ["the mixing of the chain"] if n.has("r_hat") else []
    text = f"Looked at: {', '.join(looked)}."
    if out_of_range(numbers):
        text += f" Of single predictions the numbers marked {MARK} are out of their range."
    return Finding(GOOD, "Nothing is wrong in what was checked.", text)


def _less(n):
    """A smaller learning rate, in words."""
    if n["has_automatic_learning_rate"]:
        return "larger batches and scaled inputs, or a learning rate that is a tenth of it"
    return 'a tenth of the learning rate, or learning_rate="auto"'


def _for_temperature(n):
    return f" for temperature {n['temperature']:g}" if n["temperature"] not in (None, 1) else ""


def _factor(ratio):
    return f"{ratio:.0f}" if ratio >= 3 else f"{ratio:.1f}"


def _factor_too_large(ratio):
    return f"about {_factor(ratio)}" if ratio <= MOST_FACTOR else f"more than {MOST_FACTOR}"


def _times(temperature):
    ratio = math.sqrt(max(temperature, 1 / temperature))
    return f"{ratio:.1f} times"
