"""Steps with NaN or infinity in them: none is taken, all are counted, and the law stays."""

import keras
import numpy as np
import pytest
from cases import SAMPLER, WITH_VARIANTS, each
from keras import ops
from targets.gaussian_chain import GaussianChain
from targets.restartable import restartable
from targets.rows import every_row
from targets.small_network import Weights, compiled, data, flat, network, weights

import keras_langevin as kl
from keras_langevin.optimizers import nonfinite, sampler

BACKEND = keras.backend.backend()
law = pytest.mark.law
ACTIONS = ("raise", "skip", "rollback")


CASES = [case for case in WITH_VARIANTS if not case.needs_data]
every_sampler = each(CASES, ("SGHMC", "SMILE"))


class Faults(keras.layers.Layer):
    """The identity. Where the first entry of an example's `fault` is not 0 its output is
    multiplied by that fault, and with `in_gradient` only the gradient that passes is."""

    def __init__(self, place, in_gradient=False):
        super().__init__()
        self.place, self.in_gradient = place, in_gradient

    def call(self, x, fault):
        factor = ops.where(fault[:, :1] == self.place, fault[:, 1:], ops.ones_like(fault[:, :1]))
        faulty = x * factor
        return x + (faulty - x - ops.stop_gradient(faulty - x)) if self.in_gradient else faulty


def faulty_network(in_gradient=False):
    """Two layers; a fault is given by the place (1 or 2, of the layer after which) and a factor."""
    keras.utils.set_random_seed(0)
    x, fault = keras.Input((3,)), keras.Input((2,))
    hidden = Faults(1, in_gradient)(keras.layers.Dense(4, "tanh")(x), fault)
    outputs = Faults(2, in_gradient)(keras.layers.Dense(2)(hidden), fault)
    return keras.Model([x, fault], outputs)


class Batches(keras.utils.PyDataset):
    """Batches of 8 by number; `faults` maps some of them to (place, factor)."""

    def __init__(self, numbers, faults):
        super().__init__()
        self.numbers, self.faults = list(numbers), faults
        self.x, self.y = data(rows=8 * 64)

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        number = self.numbers[index]
        rows = slice(8 * number, 8 * number + 8)
        fault = np.zeros((8, 2), "float32")
        if number in self.faults:
            fault[3] = self.faults[number]  # one example of eight
        return (self.x[rows], fault), self.y[rows]


def fit(model, numbers, faults=None, **kwargs):
    model.fit(Batches(numbers, faults or {}), verbose=0, shuffle=False, **kwargs)


def state_of(optimizer):
    """Everything but the counters, by name."""
    counters = ("iteration", "nonfinite_steps", "last_nonfinite_step")
    values = {v.path: ops.convert_to_numpy(v) for v in optimizer.variables}
    return {path: v for path, v in values.items() if path.split("/")[-1] not in counters}


def assert_finite(model):
    for array in [*weights(model), *state_of(model.optimizer).values()]:
        assert np.isfinite(array).all()


def chain(case, faults, numbers=range(12), action="skip", **kwargs):
    model = compiled(faulty_network(), case.make(0.01, 64, seed=1, on_nonfinite=action))
    fit(model, numbers, faults, **kwargs)
    return model


# ------------------------------------------------------------------------ what is not taken


FAULTS = {5: (2, np.nan), 6: (1, np.nan), 9: (2, np.inf)}


@every_sampler
def test_a_chain_goes_on_as_if_it_had_not_seen_the_bad_steps(case):
    """Bit for bit."""
    if case.arguments.get("fisher") == "model":
        pytest.skip("a bad step draws labels, as any does")

    @restartable
    def start():
        return compiled(faulty_network(), case.make(0.01, 64, seed=1, on_nonfinite="skip"))

    model = start()
    fit(model, range(12), FAULTS)
    assert model.optimizer.nonfinite_steps == 3
    assert model.optimizer.last_nonfinite_step == 10
    assert int(model.optimizer.iterations) == 12
    found = [*weights(model), *state_of(model.optimizer).values()]
    model = start()
    for first, last in ((0, 5), (7, 9), (10, 12)):
        model.optimizer.iterations.assign(first)
        fit(model, range(first, last))
    assert model.optimizer.nonfinite_steps == 0
    for a, b in zip(found, [*weights(model), *state_of(model.optimizer).values()], strict=True):
        np.testing.assert_array_equal(a, b)


@every_sampler
def test_random_faults_in_random_layers_leave_everything_finite(case):
    rng = np.random.default_rng(0)
    chosen = rng.choice(48, 16, replace=False)
    faults = {int(i): (rng.integers(1, 3), rng.choice([np.nan, np.inf, -np.inf])) for i in chosen}
    model = chain(case, faults, range(48), "rollback")
    assert_finite(model)
    assert model.optimizer.nonfinite_steps == 16
    assert model.optimizer.last_nonfinite_step == max(faults) + 1
    assert np.abs(flat(model) - flat(faulty_network())).max() > 1e-4


def test_nothing_of_a_bad_step_is_taken_in_any_layer():
    """The fault is in the gradient that reaches the first layer; that of the second is finite."""
    model = compiled(faulty_network(in_gradient=True), SAMPLER["SGHMC"].make(0.01, 64, seed=1))
    fit(model, range(3))
    before = [*weights(model), *state_of(model.optimizer).values()]
    fit(model, [3], {3: (1, np.inf)})
    after = [*weights(model), *state_of(model.optimizer).values()]
    assert model.optimizer.nonfinite_steps == 1
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", [kl.SGLD, kl.QDOPLangevin, kl.BNPLangevin])
def test_a_bad_micro_batch_spoils_its_own_update_only(make):
    optimizer = make(0.01, num_data=64, seed=1, gradient_accumulation_steps=3)
    model = compiled(faulty_network(), optimizer)
    fit(model, range(9), {1: (2, np.nan)})
    assert optimizer.nonfinite_steps == 1
    assert optimizer.last_nonfinite_step == 1
    assert_finite(model)
    assert np.abs(flat(model) - flat(faulty_network())).max() > 1e-4


def test_statistics_that_overflow_where_gradients_do_not():
    """Squares of derivatives beyond 1e19."""
    model = compiled(faulty_network(in_gradient=True), kl.QDOPLangevin(1e-3, num_data=64, seed=1))
    fit(model, range(3))
    before = flat(model)
    fit(model, [3], {3: (2, 1e22)})
    np.testing.assert_array_equal(flat(model), before)
    assert model.optimizer.nonfinite_steps == 1


# ------------------------------------------------ proposals, where all else is finite


def overflowing(dtype="float32"):
    """One step from 0 along a finite gradient, to beyond the largest number."""
    variable = keras.Variable(np.zeros(3), dtype=dtype)
    other = keras.Variable(np.ones(2))
    optimizer = kl.SGLD(1e3, num_data=10, prior=None, seed=1)
    optimizer.build([variable, other])
    large = 1e36 if dtype == "float32" else 1e3
    optimizer.apply([ops.full((3,), large, dtype=dtype), ops.ones((2,))])
    return optimizer, np.append(ops.convert_to_numpy(variable), ops.convert_to_numpy(other))


@pytest.mark.filterwarnings("ignore:.*lost in rounding")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_proposal_that_overflows_is_refused(dtype):
    optimizer, values = overflowing(dtype)
    np.testing.assert_array_equal(values, [0, 0, 0, 1, 1])
    assert optimizer.nonfinite_steps == 1


@pytest.mark.neutral
def test_a_check_of_the_gradients_alone_would_miss_it(monkeypatch):
    step = kl.SGLD.step

    def noting(self, parameters, gradients, learning_rate):
        self.gradients = gradients
        return step(self, parameters, gradients, learning_rate)

    def accept(self, results):
        if nonfinite.all_finite(self.gradients):
            return results
        raise AssertionError

    monkeypatch.setattr(kl.SGLD, "step", noting)
    monkeypatch.setattr(kl.SGLD, "accept", accept)
    _, values = overflowing()
    assert not np.isfinite(values).all()


@pytest.mark.neutral
def test_a_check_of_the_weights_alone_would_miss_statistics(monkeypatch):
    accept = nonfinite.NonfiniteSteps.accept

    def weights_alone(self, results, statistics, *args):
        return accept(self, results, [], *args)

    monkeypatch.setattr(nonfinite.NonfiniteSteps, "accept", weights_alone)
    with pytest.raises(AssertionError):
        test_statistics_that_overflow_where_gradients_do_not()


@pytest.mark.neutral
def test_a_choice_layer_by_layer_would_move_the_others(monkeypatch):
    def accept(self, results, statistics, *args):
        settled = [one(self, [result], [], *args) for result in results]
        return settled[0][0], [pair for _, pairs in settled for pair in pairs]

    one = nonfinite.NonfiniteSteps.accept
    monkeypatch.setattr(nonfinite.NonfiniteSteps, "accept", accept)
    with pytest.raises(AssertionError):
        test_nothing_of_a_bad_step_is_taken_in_any_layer()


# ---------------------------------------------------------------------------- all_finite


@every_row("shape", [(), (5,), (1, 4), (3, 4), (2, 3, 4, 5)])
def test_one_bad_entry_anywhere_is_found(shape):
    rng = np.random.default_rng(0)
    large = np.where(rng.random(shape) < 0.5, -3e38, 3e38).astype("float32")
    tiny = np.full(shape, 1e-45, "float32")
    for array in (large, tiny, np.full(shape, 3e38, "float32")):
        assert bool(nonfinite.all_finite([ops.convert_to_tensor(array), ops.ones((2, 2))]))
        for bad in (np.nan, np.inf, -np.inf):
            spoilt = array.copy()
            spoilt[tuple(rng.integers(0, n) for n in shape)] = bad
            spoilt = ops.convert_to_tensor(spoilt)
            assert not bool(nonfinite.all_finite([ops.ones((2, 2)), spoilt]))


def test_infinities_of_both_signs_do_not_cancel():
    assert not bool(nonfinite.all_finite([ops.convert_to_tensor([np.inf, -np.inf])]))


# ------------------------------------------------------------------------------ rollback


def flat_walk(bad, steps):
    """An optimizer with the slope 1/2 everywhere, and the weights before every step."""
    path = Weights()

    def disturb(step, noise):
        noise[:] = np.nan if step in bad else 0.5

    optimizer = kl.SGHMC(0.01, num_data=10, prior=None, seed=1, on_nonfinite="rollback")
    GaussianChain(np.full(4, np.inf), disturb=disturb).run(optimizer, steps, recorder=path)
    return optimizer, path.path


def test_the_third_bad_step_in_a_row_goes_back_to_the_copy(monkeypatch):
    monkeypatch.setattr("targets.gaussian_chain.STEPS_PER_EXECUTION", 1)
    optimizer, path = flat_walk({120, 122, 123, 150, 151, 152}, 154)
    assert np.abs(path[122] - path[121]).max() > 0
    np.testing.assert_array_equal(path[121], path[120])  # one alone, and two, are skipped
    np.testing.assert_array_equal(path[124], path[122])
    np.testing.assert_array_equal(path[152], path[150])
    np.testing.assert_array_equal(path[153], path[100])  # a copy is made by steps 0 and 100
    assert np.abs(path[150] - path[100]).max() > 0.01
    assert np.abs(path[154] - path[153]).max() > 0
    assert optimizer.nonfinite_steps == 6


def test_without_a_copy_the_weights_stay_where_they_began():
    variable = keras.Variable(np.arange(3.0))
    optimizer = kl.SGLD(0.1, num_data=10, seed=1, on_nonfinite="rollback")
    optimizer.build([variable])
    for _ in range(7):
        optimizer.apply([ops.full((3,), np.nan)])
    np.testing.assert_array_equal(ops.convert_to_numpy(variable), np.arange(3.0))
    assert optimizer.nonfinite_steps == 7


def test_the_momentum_is_drawn_anew():
    """From N(0, T): the one before had been pushed far from it."""
    variable = keras.Variable(np.zeros(2000))
    optimizer = kl.SGHMC(
        0.01, num_data=10, prior=None, temperature=4.0, seed=1, on_nonfinite="rollback"
    )
    optimizer.build([variable])
    for step in range(9):
        optimizer.apply([ops.full((2000,), np.nan if step > 5 else 100.0)])
    momentum = ops.convert_to_numpy(optimizer.momenta[0])
    assert momentum.mean() == pytest.approx(0.0, abs=0.15)
    assert momentum.std() == pytest.approx(2.0, rel=0.05)


class Cliff(keras.losses.Loss):
    """θ²/2 within |θ| < 2.5, NaN beyond: weights from where no batch leads back."""

    def call(self, y_true, y_pred):
        value = ops.sum(0.5 * ops.square(y_pred) + 0.0 * y_true, axis=-1)
        return value * ops.where(ops.max(ops.abs(y_pred), axis=-1) < 2.5, 1.0, np.nan)


@pytest.mark.skipif(BACKEND == "torch", reason="thousands of steps")
@pytest.mark.parametrize(("action", "gets_away"), [("rollback", True), ("skip", False)])
def test_a_chain_beyond_a_cliff(action, gets_away, monkeypatch):
    monkeypatch.setattr("targets.gaussian_chain.Potential", lambda precisions: Cliff())
    walk = GaussianChain(np.ones(1))
    optimizer = kl.SGLD(0.1, num_data=1, prior=None, seed=1, on_nonfinite=action)
    recorder = walk.run(optimizer, 2400)
    last = np.stack(recorder.draws)[-60:]
    assert (np.ptp(last) > 0.5) == gets_away
    assert (optimizer.nonfinite_steps < 600) is gets_away


# ------------------------------------------------------------------------------ the law


def random_faults(share):
    chosen = np.random.default_rng(3).random(100_000) < share

    def disturb(step, noise):
        if chosen[step]:
            noise[:] = np.nan

    return disturb


def variance(make, share, steps=1600):
    """Of 400 independent weights whose posterior is N(0, 1), and the share of bad steps."""
    learning_rate = 0.2
    chain = GaussianChain(np.ones(400), disturb=random_faults(share) if share else None)
    optimizer = make(learning_rate, num_data=1, prior=None, seed=1)
    recorder = chain.run(optimizer, steps, burn_in=400)
    return np.square(np.stack(recorder.draws)).mean(), optimizer.nonfinite_steps / steps


def skipping(sampler, action, **kwargs):
    return lambda *a, **k: sampler(*a, on_nonfinite=action, **kwargs, **k)


@pytest.mark.skipif(BACKEND == "torch", reason="thousands of steps")
@pytest.mark.parametrize(
    ("make", "exact"),
    [
        (skipping(kl.SGLD, "skip"), 1 / 0.9),
        (skipping(kl.SGLD, "rollback"), 1 / 0.9),
        (skipping(kl.SGHMC, "skip", momentum=0.8), 1.0),
        pytest.param(skipping(kl.SGHMC, "rollback", momentum=0.8), 1.0, marks=law),
        pytest.param(skipping(kl.SMILE, "skip", tuner=None), None, marks=law),
    ],
    ids=["SGLD-skip", "SGLD-rollback", "SGHMC-skip", "SGHMC-rollback", "SMILE-skip"],
)
def test_the_law_is_that_without_the_bad_steps(make, exact):
    share = 0.1
    steps = 1600 if exact else 8000  # at a constant speed lengths change slowly
    measured, seen = variance(make, share, steps)
    assert seen == pytest.approx(share, abs=0.02)
    if exact is None:
        exact = variance(make, 0.0, steps)[0]
    assert measured == pytest.approx(exact, rel=0.03)


@pytest.mark.neutral
@pytest.mark.skipif(BACKEND == "torch", reason="thousands of steps")
@pytest.mark.parametrize(
    ("sampler", "exact"), [(kl.SGLD, 1 / 0.9), (kl.SGHMC, 1.0)], ids=["SGLD", "SGHMC"]
)
def test_a_bad_gradient_put_to_zero_would_not_keep_it(sampler, exact):
    """The drift of the step is lost and its noise is not."""

    class Zeroing(sampler):
        def step(self, parameters, gradients, learning_rate):
            gradients = [ops.where(ops.isfinite(g), g, 0.0) for g in gradients]
            return super().step(parameters, gradients, learning_rate)

    measured, _ = variance(Zeroing, 0.1)
    assert measured != pytest.approx(exact, rel=0.03)


# ----------------------------------------------------------------- arguments, files, messages


def test_the_argument():
    for case in CASES:
        make = case.make
        with pytest.raises(ValueError, match=r"`on_nonfinite` must be one of .*on_nonfinite='no'"):
            make(0.01, num_data=10, on_nonfinite="no")
        for action in ACTIONS:
            optimizer = make(0.01, num_data=10, on_nonfinite=action)
            assert optimizer.on_nonfinite == action
            copy = type(optimizer).from_config(optimizer.get_config())
            assert copy.on_nonfinite == action
    assert kl.SGLD(0.01, num_data=10).on_nonfinite == "raise"
    assert kl.SMILE(0.01, num_data=10).on_nonfinite == "rollback"


@pytest.mark.parametrize("action", ["skip", "rollback"])
def test_the_count_survives_saving(tmp_path, action):
    model = compiled(network(4, 2), kl.SGLD(0.01, num_data=32, seed=1, on_nonfinite=action))
    x, y = data()
    y[8:16] = np.nan
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    optimizer = restored.optimizer
    assert optimizer.nonfinite_steps == 2
    assert optimizer.last_nonfinite_step == 6
    assert optimizer.sampler_logs()["nonfinite_steps"] == 2
    for m in (model, restored):
        m.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    np.testing.assert_array_equal(flat(model), flat(restored))


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_what_the_posterior_sampler_does(unit):
    x, y = data()
    bad = y.copy()
    bad[8:16] = np.nan

    def fit_with(action, labels, sampler):
        model = compiled(network(4, 2), kl.SGLD(0.01, num_data=32, seed=1, on_nonfinite=action))
        model.fit(x, y, batch_size=8, callbacks=[sampler], shuffle=False, verbose=0)
        return model.fit(x, labels, batch_size=8, callbacks=[sampler], shuffle=False, verbose=0)

    sampler = kl.PosteriorSampler(0, unit=unit)
    with pytest.raises(FloatingPointError, match=r"in 1 steps, none of them taken, .* step 6, at"):
        fit_with("raise", bad, sampler)
    assert len(sampler.samples) == (1 if unit == "epoch" else 5)
    for action in ("skip", "rollback"):
        sampler = kl.PosteriorSampler(0, unit=unit)
        history = fit_with(action, bad, sampler).history
        assert history["nonfinite_steps"] == [1]
        assert len(sampler.samples) == (2 if unit == "epoch" else 8)
        assert all(np.isfinite(a).all() for sample in sampler.samples for a in sample.values())


def test_an_optimizer_that_has_not_begun():
    optimizer = kl.SGLD(0.01, num_data=10)
    assert optimizer.nonfinite_steps == optimizer.last_nonfinite_step == 0


def test_steps_that_the_loss_scale_skips_are_no_failures():
    """Of float16: what overflows at this scale is tried again at half of it."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(network(4, 2), kl.SGLD(0.01, num_data=32, seed=1))
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = data()
    model.fit(np.full_like(x, np.inf), y, batch_size=32, epochs=3, verbose=0)
    optimizer = model.optimizer.inner_optimizer
    assert optimizer.nonfinite_steps == 0


def test_where_all_is_finite_nothing_is_changed(monkeypatch):
    runs = []
    for accept in (sampler.Sampler.accept, lambda self, results: results):
        monkeypatch.setattr(sampler.Sampler, "accept", accept)
        model = chain(SAMPLER["SGHMC"], {})
        runs.append([*weights(model), *state_of(model.optimizer).values()])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # XLA rounds another way
