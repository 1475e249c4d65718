"""Schedules of the learning rate: their formulas, the law of chains that follow them, and what
`PosteriorSampler` stores of those."""

import itertools
from fractions import Fraction

import keras
import numpy as np
import pytest
from cases import slow_but_for
from keras import ops
from targets.one_layer import JIT, SIGNS, NoLoss, one_layer, run
from targets.regression import Constant, HalfSquaredError
from targets.restartable import restartable
from targets.rows import every_row
from targets.sampler_runs import assert_same, compiled, fit, steps

import keras_langevin as kl
from keras_langevin import schedules
from keras_langevin.sampling.schedule import SamplingSchedule

BATCHES = 5  # an epoch of `fit`


@pytest.fixture(autouse=True)
def fresh_session():
    """Compiled models live on."""
    keras.utils.set_random_seed(0)


def values(schedule, num_steps):
    return np.array([float(ops.convert_to_numpy(schedule(t))) for t in range(num_steps)])


# --------------------------------------------------------------------------------- mutants


class RateOfTheNextStep(schedules.CyclicalCosine):
    def __call__(self, step):
        return super().__call__(step + 1)


class LongerCycle(schedules.CyclicalCosine):
    def __init__(self, initial_learning_rate, cycle_steps, exploration=0.5):
        super().__init__(initial_learning_rate, cycle_steps + 1, exploration)


class NoiseAlways(schedules.CyclicalCosine):
    def is_sampling(self, step):
        return step >= 0


class NoiseNever(schedules.CyclicalCosine):
    def is_sampling(self, step):
        return step < 0


class PhaseOfTheNextStep(schedules.CyclicalCosine):
    def is_sampling(self, step):
        return super().is_sampling(step + 1)


class PhaseOfTheStepBefore(schedules.CyclicalCosine):
    def is_sampling(self, step):
        return super().is_sampling(step - 1)


MUTANTS = [
    RateOfTheNextStep,
    LongerCycle,
    NoiseAlways,
    NoiseNever,
    PhaseOfTheNextStep,
    PhaseOfTheStepBefore,
]


# -------------------------------------------------------------------------------- formulas


def paper_rate(initial, k, total, cycles):
    """Zhang et al., k = 1 ... K in M cycles."""
    cycle = -(-total // cycles)
    return initial / 2 * (np.cos(np.pi * ((k - 1) % cycle) / cycle) + 1)


@every_row("cls", [schedules.CyclicalCosine, *MUTANTS[:2]])
def test_the_cycle_is_the_papers(cls):
    total, cycles = 103, 4  # cycles of 26 steps, the last one cut short
    expected = paper_rate(0.3, np.arange(1, total + 1), total, cycles)
    found = values(cls(0.3, cycle_steps=26), total)
    agrees = np.allclose(found, expected, rtol=1e-5, atol=0)
    assert agrees == (cls is schedules.CyclicalCosine)


def test_rates_and_phases_of_the_authors_script():
    """Batches of 64 from 50,000 in 200 epochs and 4 cycles, the last 5 epochs of 50 with noise:
    https://github.com/ruqizhang/csgmcmc, `experiments/cifar_csgmcmc.py`."""
    cycle = 39112  # 200 epochs of 50000 / 64 + 1 batches, divided by 4, rounded down
    schedule = schedules.CyclicalCosine(0.5, cycle, exploration=0.9)
    counts = [0, 1, 9778, 19556, 35200, 39110, 39111, 39112, 150000]
    expected = [0.5 * (np.cos(np.pi * (r % cycle) / cycle) + 1) * 0.5 for r in counts]
    found = [float(ops.convert_to_numpy(schedule(r))) for r in counts]
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # 8e-10 of the last step among them
    by_epochs = schedules.CyclicalCosine(0.5, 50, exploration=0.9)
    for epoch in range(200):
        assert by_epochs.is_sampling(epoch) == ((epoch % 50) + 1 > 45)


@pytest.mark.neutral
def test_phases_are_exact_shares_of_a_cycle():
    """r < β in exact fractions, for shares that floating point misses by a rounding."""
    for cycle, hundredths in itertools.product([1, 2, 3, 10, 30, 100, 39112], range(100)):
        exploration = hundredths / 100
        if exploration > 1 - 1 / cycle:
            continue
        schedule = schedules.CyclicalCosine(0.1, cycle, exploration)
        first = schedule.exploration_steps
        for step in {0, max(first - 1, 0), first, cycle - 1}:
            expected = Fraction(step, cycle) >= Fraction(hundredths, 100)
            for start in (0, cycle, 7 * cycle):
                assert schedule.is_sampling(start + step) is expected, (cycle, exploration, step)


def test_phases_of_tensors():
    schedule = schedules.CyclicalCosine(0.1, 10, 0.3)
    expected = [schedule.is_sampling(t) for t in range(25)]
    found = schedule.is_sampling(ops.arange(25))
    assert keras.backend.standardize_dtype(found.dtype) == "bool"
    np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)
    assert sum(expected) == 7 + 7 + 2


class OffsetForgotten(schedules.PolynomialDecay):
    def __call__(self, step):
        return super().__call__(step - self.offset + 1)


@every_row("cls", [schedules.PolynomialDecay, OffsetForgotten])
@every_row("power", [0.55, 1.0])
def test_polynomial_decay(cls, power):
    """Halved at (b + t)/b = 2^(1/γ), again at 4^(1/γ), and a sum of squares that converges."""
    offset, first = 50.0, 0.2
    schedule = cls(first * offset**power, offset, power)
    halvings = [round(offset * (2 ** (n / power) - 1)) for n in range(4)]
    found = [float(ops.convert_to_numpy(schedule(t))) for t in halvings]
    agrees = np.allclose(found, [0.2, 0.1, 0.05, 0.025], rtol=3e-3)
    assert agrees == (cls is schedules.PolynomialDecay)
    if agrees:
        t = np.arange(300)
        exact = first * offset**power / (offset + t) ** power
        np.testing.assert_allclose(values(schedule, 300), exact, rtol=1e-5)


@every_row(
    "make, match",
    [
        (lambda: schedules.PolynomialDecay(0.0, 1.0), "`scale` must be greater than zero"),
        (lambda: schedules.PolynomialDecay(0.1, 0), "`offset` must be greater than zero"),
        (lambda: schedules.PolynomialDecay(0.1, 1.0, 0.5), r"\(0.5, 1\].*power=0.5"),
        (lambda: schedules.PolynomialDecay(0.1, 1.0, 1.1), r"\(0.5, 1\].*power=1.1"),
        (lambda: schedules.CyclicalCosine(-0.1, 10), "initial_learning_rate=-0.1"),
        (lambda: schedules.CyclicalCosine(0.1, 0), "cycle_steps=0"),
        (lambda: schedules.CyclicalCosine(0.1, 10.0), "cycle_steps=10.0"),
        (lambda: schedules.CyclicalCosine(0.1, 10, -0.1), "exploration=-0.1"),
        (lambda: schedules.CyclicalCosine(0.1, 10, 1.0), "exploration=1.0"),
        (lambda: schedules.CyclicalCosine(0.1, 10, 0.95), "at least one step.*exploration=0.95"),
    ],
)
def test_arguments_are_checked(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@every_row(
    "schedule", [schedules.PolynomialDecay(0.3, 20, 0.7), schedules.CyclicalCosine(0.2, 17, 0.25)]
)
def test_config_round_trip(schedule):
    """Keras has a schedule of its own called PolynomialDecay."""
    optimizer = kl.SGLD(schedule, num_data=10)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    config = again.get_config()["learning_rate"]
    found = keras.optimizers.schedules.deserialize(config)
    assert type(found) is type(schedule) and found.get_config() == schedule.get_config()
    rates = []
    for step in range(40):
        again.iterations.assign(step)
        rates.append(float(ops.convert_to_numpy(again.learning_rate)))
    np.testing.assert_array_equal(rates, values(schedule, 40))


# ------------------------------------------------------------------------------------ law

NUM_DATA, RATE, CYCLE, REPLICAS, TEMPERATURE = 10, 0.3, 24, 20000, 0.5
HESSIAN = 1 + 1 / NUM_DATA / 0.5**2  # one weight, inputs of one, prior N(0, ½²)


class EveryStep(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        kernel = ops.convert_to_numpy(self.model.layers[-1].kernel)
        self.weights.append(kernel[0].astype("float64"))


def largest_deviation(schedule):
    """Of mean and variance from the exact ones, in standard errors, over every step of two
    cycles of 20,000 chains in one compiled `fit`."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(REPLICAS, use_bias=False)])
    prior = kl.priors.Normal(0.5)
    optimizer = kl.SGLD(schedule, num_data=NUM_DATA, temperature=TEMPERATURE, prior=prior, seed=1)
    model.compile(optimizer, HalfSquaredError(), jit_compile=JIT)
    y = np.linspace(-1.0, 2.0, NUM_DATA)
    mode = y.mean() / HESSIAN
    start = np.random.default_rng(0).normal(size=REPLICAS)
    start = (start - start.mean()) / start.std() + mode + 1.5
    model.layers[-1].kernel.assign(start[None])
    record = EveryStep()
    data = Constant(np.ones((NUM_DATA, 1)), y[:, None], steps=2 * CYCLE)
    model.fit(data, verbose=0, shuffle=False, callbacks=[record])
    deviations, mean, variance = [], 1.5, 1.0
    for k, weights in enumerate(record.weights, start=1):
        rate = paper_rate(RATE, k, 2 * CYCLE, 2)
        explores = (k - 1) % CYCLE / CYCLE < 0.5
        mean *= 1 - rate * HESSIAN
        variance *= (1 - rate * HESSIAN) ** 2
        variance += 0.0 if explores else 2 * rate * TEMPERATURE / NUM_DATA
        deviations.append((weights.mean() - mode - mean) / (variance / REPLICAS) ** 0.5)
        deviations.append((weights.var() / variance - 1) / (2 / REPLICAS) ** 0.5)
    return np.abs(deviations).max()


@pytest.mark.parametrize(
    "cls",
    [
        schedules.CyclicalCosine,
        pytest.param(NoiseAlways, marks=pytest.mark.neutral),
        *[pytest.param(m, marks=pytest.mark.law) for m in MUTANTS if m is not NoiseAlways],
    ],
)
def test_mean_and_variance_in_every_step_of_two_cycles(cls):
    assert (largest_deviation(cls(RATE, CYCLE, 0.5)) < 5) == (cls is schedules.CyclicalCosine)


@slow_but_for(kl.SGLD, kl.RMSPropLangevin, kl.QDOPLangevin)
def test_no_sampler_adds_noise_while_it_explores(case):
    """Weights of zero without a gradient, which stay there while there is no noise."""
    optimizer = case.make(schedules.CyclicalCosine(0.01, 6, 0.5), prior=kl.priors.Normal(0.7))
    model = one_layer(optimizer, NoLoss(), units=20)
    model.set_weights([0 * w for w in model.get_weights()])
    path = np.abs(run(model, SIGNS, np.zeros((4, 20)), steps=6)[0]).max(axis=(1, 2))
    assert (path[:3] == 0).all() and (np.diff(path)[2:] != 0).all()


@pytest.mark.law
def test_the_divergence_term_is_part_of_the_noise():
    def path(temperature):
        keras.utils.set_random_seed(0)
        schedule = schedules.CyclicalCosine(0.01, 4, 0.5)
        optimizer = kl.RMSPropLangevin(
            schedule, num_data=16, temperature=temperature, divergence=True
        )
        return run(one_layer(optimizer, "mse", units=2), x, x[:, :2], steps=4)[0]

    x = np.random.default_rng(0).normal(size=(16, 3))
    noise = np.abs(path(1.0) - path(0.0)).max(axis=(1, 2))
    assert noise[:2].max() < 1e-6 and noise[2:].min() > 1e-4


# ------------------------------------------------------------------------ what is stored

right_and_wrong = pytest.mark.parametrize(
    "cls",
    [schedules.CyclicalCosine, pytest.param(PhaseOfTheNextStep, marks=pytest.mark.neutral)],
)


@restartable
def cyclical(
    cycle, exploration=0.5, cls=schedules.CyclicalCosine, steps_per_execution=1, **of_optimizer
):
    keras.utils.set_random_seed(0)
    optimizer = kl.SGLD(cls(0.01, cycle, exploration), num_data=20, seed=1, **of_optimizer)
    return compiled(optimizer=optimizer, steps_per_execution=steps_per_execution)


@right_and_wrong
def test_stored_are_the_weights_that_sampling_steps_led_to(cls):
    """Step t, from 0, leads to the weights at position t + 1."""
    model, sampler = cyclical(6, cls=cls), kl.PosteriorSampler(0, unit="step")
    fit(model, sampler, 4)
    assert (steps(sampler) == [4, 5, 6, 10, 11, 12, 16, 17, 18]) == (cls is not PhaseOfTheNextStep)


@right_and_wrong
def test_the_end_of_a_cycle_is_stored_where_it_ends_an_epoch(cls):
    model, sampler = cyclical(2 * BATCHES, 0.9, cls), kl.PosteriorSampler(0)
    fit(model, sampler, 5)
    positions = [facts["position"] for facts in sampler.samples.facts]
    assert (positions == [2, 4]) == (cls is schedules.CyclicalCosine)


@pytest.mark.neutral
def test_a_position_in_exploration_is_skipped_not_shifted():
    model, sampler = cyclical(6), kl.PosteriorSampler(0, 4, unit="step")
    fit(model, sampler, 4)
    assert steps(sampler) == [4, 12, 16]


@pytest.mark.skipif(not JIT, reason="Keras has no steps_per_execution on torch")
def test_the_phase_is_that_of_the_weights_at_the_end_of_an_execution():
    sampler = kl.PosteriorSampler(0, unit="step")
    fit(cyclical(6, steps_per_execution=2), sampler, 4)
    # Executions end at 2 4 5 | 7 9 10 | 12 14 15 | 17 19 20.
    assert steps(sampler) == [4, 5, 10, 12, 17]


def test_accumulated_gradients_take_the_phase_of_their_learning_rate():
    """A schedule counts batches. Updates come after batches 2, 4, ..., with the learning rate of
    steps 1, 3, ..."""

    def trained(temperature):
        model = cyclical(8, gradient_accumulation_steps=2, temperature=temperature)
        sampler, every = kl.PosteriorSampler(0, unit="step"), EveryStep()
        fit(model, sampler, 2, callbacks=[every])
        return model, sampler, np.array(every.weights)

    _, sampler, sampled = trained(1.0)
    assert [facts["position"] for facts in sampler.samples.facts] == [6, 7, 8, 9]
    assert steps(sampler) == [3, 3, 4, 4]
    rates = values(schedules.CyclicalCosine(0.01, 8, 0.5), 8)
    assert [s.learning_rate for s in sampler.samples] == pytest.approx(rates[[5, 5, 7, 7]])
    noise = np.abs(sampled - trained(0.0)[2]).max(axis=1)
    assert (noise > 1e-4).tolist() == [False] * 5 + [True] * 5


def test_facts_of_a_sample():
    """Rate and temperature are those of the step that led to it, also at the end of a cycle."""
    model, sampler = cyclical(6, temperature=0.7), kl.PosteriorSampler(0, unit="step")
    history = fit(model, sampler, 4).history
    rates = values(schedules.CyclicalCosine(0.01, 6, 0.5), 20)
    expected = [rates[step - 1] for step in steps(sampler)]
    assert [s.learning_rate for s in sampler.samples] == pytest.approx(expected)
    assert max(expected) < 0.01 / 2 * 1.01
    assert {s.temperature for s in sampler.samples} == {0.7}
    assert history["temperature"] == [0.7] * 4
    assert history["num_samples"] == [2, 4, 6, 9]
    to_come = [scale > 0 for scale in history["noise_scale"]]
    assert to_come == [True, True, True, False]  # steps 5, 10, 15, 20


def test_snapshots_of_an_optimizer_that_does_not_sample():
    schedule = schedules.CyclicalCosine(0.01, BATCHES, 0.8)
    model = compiled(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule)))
    sampler = kl.PosteriorSampler(0, unit="step")
    fit(model, sampler, 2)
    assert steps(sampler) == [5, 10]
    assert sampler.samples[0].temperature is None


@pytest.mark.neutral
def test_no_warning_about_a_rate_that_no_sample_is_drawn_at():
    schedule = schedules.CyclicalCosine(0.5, BATCHES, 0.8)
    model = compiled(optimizer=kl.DOPLangevin(schedule, num_data=20))
    history = fit(model, kl.PosteriorSampler(0)).history
    assert history["minibatch_noise"] == [1.25]  # which a constant rate of 0.5 warns about


@pytest.mark.neutral
def test_ensemble_of_nothing_but_exploration():
    model, sampler = cyclical(2 * BATCHES), kl.PosteriorSampler(1, 2)
    fit(model, sampler, 2)
    with pytest.raises(ValueError, match="The first sample is due at epoch 3"):
        sampler.ensemble()
    fit(model, sampler, 3)
    with pytest.raises(ValueError, match=r"5 epochs seen.* due 2 times, always while .* explored"):
        sampler.ensemble()


# ------------------------------------------------------------------------------- doubling


@pytest.mark.neutral
@every_row("execution", [1, 3])
def test_doubling_that_keeps_the_first_position_keeps_the_others(execution):
    schedule = SamplingSchedule(4, 3, "step")
    for keeps_first in (False, True, True, False):
        before = [p for p in range(200) if schedule.includes(p)]
        schedule = schedule.doubled(keeps_first)
        after = [p for p in range(200) if schedule.includes(p)]
        assert after == before[0 if keeps_first else 1 :: 2]
        windows = [(i, i + execution) for i in range(0, 198, execution)]
        due = [schedule.due_within(*window) for window in windows]
        assert [p for p in due if p is not None] == [p for p in after if p <= 198]


@pytest.mark.neutral
@every_row(
    "burn_in, expected",
    [
        (0, [8, 16]),  # 3 4 | 4 8 | 8 16
        (1, [7, 15]),  # 3 4 | 3 7 | 7 15; every other position after 3 7 is exploration
    ],
)
def test_max_samples_never_thins_to_exploration_alone(burn_in, expected):
    model, sampler = cyclical(4), kl.PosteriorSampler(burn_in, unit="step", max_samples=2)
    fit(model, sampler, 4)
    assert steps(sampler) == expected and sampler.thinning == 8


@pytest.mark.law
def test_three_epochs_and_four_are_seven(tmp_path):
    def trained(epochs, **kwargs):
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        sampler = kl.PosteriorSampler(1, unit="step", max_samples=2, **kwargs)
        fit(cyclical(4), sampler, epochs, initial_epoch=sampler.epochs_seen)
        return sampler

    whole = trained(7)
    trained(3, directory=tmp_path / "run")
    sampler = trained(7, directory=tmp_path / "run", resume=True)
    assert steps(sampler) == steps(whole) == [15, 31]  # 7 15 | 15 31
    for one, other in zip(sampler.samples, whole.samples, strict=True):
        assert_same(one, other, rtol=1e-6, atol=1e-7)
