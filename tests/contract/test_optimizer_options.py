"""The samplers together with what Keras offers: options, precisions, layers, loops, files."""

import dataclasses
import re

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED, LANGEVIN, SAMPLER, WITHOUT_DATA, each
from keras import ops
from targets.rows import every_row
from targets.small_network import (
    assert_equal,
    assert_moved,
    compiled,
    data,
    increments,
    network,
    trained,
    weights,
)

import keras_langevin as kl

BACKEND = keras.backend.backend()
SGLD, RMSPROP, QDOP = (SAMPLER[n] for n in ("SGLD", "RMSPropLangevin", "QDOPLangevin"))
NO_LABELS = [case for case in WITHOUT_DATA if not case.draws_labels]
COLD = [case for case in NO_LABELS if case.coldest == 0.0]
both = pytest.mark.parametrize("case", [SGLD, QDOP], ids=["SGLD", "QDOPLangevin"])


# ---------------------------------------------------------------------------- arguments

BAD_ARGUMENTS = [
    ({"num_data": None}, "`num_data` is required.*Pass `num_data=len"),
    ({"num_data": 0}, "`num_data` must be greater than zero.*len"),
    ({"num_data": -5}, "`num_data` must be greater than zero.*len"),
    ({"num_data": np.nan}, "`num_data` must be a finite number"),
    ({"num_data": True}, "`num_data` must be a finite number"),
    ({"num_data": "100"}, "`num_data` must be a finite number"),
    ({"temperature": -1}, "`temperature` must not be negative"),
    ({"temperature": np.nan}, "`temperature` must be a finite number"),
    ({"learning_rate": -1}, "`learning_rate` must not be negative"),
    ({"learning_rate": "fast"}, '`learning_rate` must be a number >= 0, a schedule or "auto"'),
    ({"learning_rate": np.inf}, "`learning_rate` must be a finite number"),
    ({"prior": "normal"}, r"`prior` must be one of `kl\.priors`"),
    ({"seed": 1.5}, "`seed` must be an integer"),
    ({"seed": "x"}, "`seed` must be an integer"),
    ({"seed": -1}, "`seed` must be an integer >= 0"),
    ({"seed": True}, "`seed` must be an integer"),
    ({"minibatch_correction": 0}, "`minibatch_correction` must be an integer >= 1"),
    ({"minibatch_correction": 2.5}, "`minibatch_correction` must be an integer >= 1"),
    ({"weight_decay": -1}, "`weight_decay` must not be negative"),
    ({"weight_decay": 0.01}, r"weight_decay.*prior=kl\.priors\.Normal\(stddev=1\)"),
    ({"use_ema": True}, "collapses the variance.*ensemble"),
    ({"ema_overwrite_frequency": 5}, "collapses the variance.*ensemble"),
    ({"gradient_accumulation_steps": 1}, "`gradient_accumulation_steps` must be an integer >= 2"),
]


@every_row("arguments, message", BAD_ARGUMENTS)
def test_bad_arguments(arguments, message):
    (name, value), *_ = arguments.items()
    received = re.escape(f"{name}={value!r}")
    for case in LANGEVIN:
        with pytest.raises(ValueError, match=message) as error:
            case.make(**{"learning_rate": 0.1, "num_data": 100, **arguments})
        assert re.search(rf"Received:.*{received}", str(error.value))


@every_row(
    "name, value, message",
    [
        ("averaging", 0.5, r"must be a `kl\.preconditioners\.Averaging`, or None"),
        ("averaging", {}, r"must be a `kl\.preconditioners\.Averaging`, or None"),
        ("epsilon", -1, "must (not be negative|be greater than zero)"),
    ],
)
def test_bad_arguments_of_the_metric(name, value, message):
    for sampler in (kl.DOPLangevin, kl.QDOPLangevin, kl.RMSPropLangevin, kl.BNPLangevin):
        with pytest.raises(ValueError, match=rf"`{name}` {message}.*Received: {name}={value}"):
            sampler(0.1, num_data=100, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rate", 0, r"must be in \(0, 1\]"),
        ("rate", 2, r"must be in \(0, 1\]"),
        ("floor", -0.1, r"must be in \[0, 1\]"),
        ("lagged", 1, "must be True or False"),
        ("freeze_after", 0, "must be an integer >= 1"),
        ("freeze_after", 1.5, "must be an integer >= 1"),
    ],
)
def test_bad_averaging(name, value, message):
    with pytest.raises(ValueError, match=rf"`{name}` {message}.*Received: {name}={value}"):
        kl.preconditioners.Averaging(**{name: value})


def test_bad_damping():
    with pytest.raises(ValueError, match=r"`damping` must not be negative.*Received: damping=-1"):
        kl.QDOPLangevin(0.1, num_data=100, damping=-1)


def test_a_learning_rate_beyond_what_the_batch_size_allows():
    kl.QDOPLangevin(0.1, num_data=100, minibatch_correction=10)
    with pytest.raises(ValueError, match=r"expected learning_rate <= 0\.18.*learning_rate=0\.2"):
        kl.QDOPLangevin(0.2, num_data=100, minibatch_correction=10)


@every_row("name", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping_warns(name):
    for case in LANGEVIN:
        with pytest.warns(UserWarning, match=f"shortens large gradients.*{name}=1.0"):
            case.make(**{name: 1.0})


@pytest.mark.parametrize("sampler", [kl.DOPLangevin, kl.QDOPLangevin, kl.BNPLangevin])
@pytest.mark.backend
def test_an_untracked_model_is_refused_in_fit(sampler):
    model = network(2)
    model.compile(sampler(0.1, num_data=32), loss="mse", jit_compile=JIT_IF_NEEDED)
    with pytest.raises(ValueError, match=r"kl\.PosteriorSampler.*kl\.track_statistics"):
        model.fit(*data(), verbose=0)


def test_a_constraint_warns():
    layer = keras.layers.Dense(2, kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(kl.SGLD(0.1, num_data=32), loss="mse", jit_compile=JIT_IF_NEEDED)
    with pytest.warns(UserWarning, match=r"constraint of '.*dense/kernel' .* folded"):
        model.fit(*data(), verbose=0)
    assert weights(model)[0].min() >= 0


# ------------------------------------------------------------------ gradient accumulation


@each(COLD, ("RMSPropLangevin",))
def test_four_micro_batches_are_one_batch(case):
    def make(**kwargs):
        return case.make(0.02, 32, temperature=0.0, **kwargs)

    whole = trained(make())
    accumulated = trained(make(gradient_accumulation_steps=4), batch_size=8)
    assert_equal(accumulated, whole)
    assert_moved(weights(network(4, 2)), whole)


@both
def test_noise_is_drawn_once_for_each_accumulated_update(case):
    """And is that of the same update without accumulation."""
    plain = increments(case.make(0.05, 100, seed=2), steps=3)
    accumulated = increments(case.make(0.05, 100, seed=2, gradient_accumulation_steps=4), steps=12)
    assert_equal(accumulated[3::4], plain, 1e-6)
    inside = np.delete(accumulated, np.s_[3::4], axis=0)
    np.testing.assert_array_equal(inside, 0.0)
    between_updates = np.corrcoef(plain[1:]) - np.eye(2)  # the first may fill a metric
    assert np.abs(between_updates).max() < 0.15  # 0.05 where the metric holds the prior
    if case is SGLD:
        expected = 2 * 0.05 / 100
        assert plain.var(axis=1) == pytest.approx(expected, rel=0.1)


# ---------------------------------------------------------------------------- precision


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def mixed(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def states_of_the_metric(model):
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return [ops.convert_to_numpy(s) for s in optimizer.preconditioner.states]


def states_after_training(**kwargs):
    """At weights that stay, so that only the precision of the backward pass differs."""
    model = compiled(network(4, 2), kl.QDOPLangevin(0.0, num_data=32, seed=1, **kwargs))
    model.fit(*data(), batch_size=16, epochs=2, shuffle=False, verbose=0)
    return states_of_the_metric(model)


@pytest.mark.law
def test_the_metric_in_mixed_precision(mixed):
    states = states_after_training()
    keras.config.set_dtype_policy("float32")
    for state, exact in zip(states, states_after_training(), strict=True):
        assert np.abs(state - exact).max() < 0.03 * np.abs(exact).max()
        assert np.abs(exact).max() > 0


@pytest.mark.parametrize(
    ("mixed", "case"),
    [
        ("mixed_float16", SGLD),
        pytest.param("mixed_float16", QDOP, marks=pytest.mark.law),
        pytest.param("mixed_bfloat16", SGLD, marks=pytest.mark.law),
        ("mixed_bfloat16", QDOP),
    ],
    indirect=["mixed"],
    ids=lambda value: value if isinstance(value, str) else value.sampler.__name__,
)
def test_noise_in_mixed_precision(mixed, case):
    optimizer = case.make(0.05, 100, prior=kl.priors.Normal(0.7), seed=1)
    changes = increments(optimizer, steps=3)[1:]  # the first may fill a metric
    assert isinstance(optimizer, kl.LangevinOptimizer)
    expected = 2 * 0.05 / 100 * case.inverse_without_data(100, 0.7)
    assert changes.var(axis=1) == pytest.approx(expected, rel=0.1)


@each(WITHOUT_DATA, backend=True)
def test_a_step_with_infinite_gradients_is_skipped(case):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(network(4, 2), case.make(0.01, 32, seed=1))
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = data()
    model.fit(x, y, batch_size=16, epochs=1, verbose=0)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    before, iterations = weights(model), int(model.optimizer.iterations)
    scale = float(model.optimizer.dynamic_scale)
    model.fit(np.full_like(x, np.inf), y, batch_size=32, epochs=1, verbose=0)
    assert_equal(weights(model), before, 0.0)
    assert int(model.optimizer.iterations) == iterations
    assert float(model.optimizer.dynamic_scale) == scale / 2
    model.fit(x, y, batch_size=32, epochs=1, verbose=0)
    assert_moved(before, weights(model))


@pytest.mark.parametrize(
    ("case", "dtype"), [(SGLD, "bfloat16"), (SGLD, "float16"), (QDOP, "bfloat16")]
)
def test_weights_of_half_precision_warn(case, dtype):
    model = network(2, dtype=dtype)
    optimizer = case.make(0.01, 32, seed=1)
    with pytest.warns(UserWarning, match=rf"{dtype}.*lost in rounding.*mixed_{dtype}"):
        compiled(model, optimizer)
        model.fit(*data(), batch_size=16, verbose=0)
    assert all(np.isfinite(w).all() for w in weights(model))


@both
def test_a_fixed_loss_scale_changes_nothing(case):
    plain = trained(case.make(0.02, 32, temperature=0.0))
    assert_equal(trained(case.make(0.02, 32, temperature=0.0, loss_scale_factor=128.0)), plain)
    assert_moved(weights(network(4, 2)), plain)


# ------------------------------------------------------------------------------- layers


@each(WITHOUT_DATA)
def test_frozen_layers_stay(case):
    model = network(4, 4, 2)
    model.layers[1].trainable = False
    optimizer = case.make(0.02, 32, seed=1)
    before = weights(model)
    compiled(model, optimizer)
    model.fit(*data(), batch_size=16, verbose=0)
    after = weights(model)  # trainable ones first
    assert [w.shape for w in before] == [(3, 4), (4,), (4, 4), (4,), (4, 2), (2,)]
    frozen = [ops.convert_to_numpy(w) for w in model.layers[1].weights]
    assert_equal(frozen, before[2:4], 0.0)
    moved = [ops.convert_to_numpy(w) for n in (0, 2) for w in model.layers[n].weights[:2]]
    assert_moved(before[:2] + before[4:], moved)
    assert len(after) == 6
    blocks = [v.statistic.block for v in optimizer.statistic_variables]
    measured = {id(block.kernel) for block in blocks if block is not None}
    if measured or case.sampler is QDOP.sampler:
        assert measured == {id(model.layers[0].kernel), id(model.layers[2].kernel)}


def word_model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((2,), dtype="int32"), keras.layers.Embedding(40, 5)]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(1)])


@pytest.mark.parametrize(
    ("case", "options"),
    [
        pytest.param(SGLD, {}, marks=pytest.mark.backend),
        (RMSPROP, {}),
        pytest.param(QDOP, {}, marks=pytest.mark.backend),
        (SGLD, {"gradient_accumulation_steps": 2}),
        pytest.param(QDOP, {"gradient_accumulation_steps": 2}, marks=pytest.mark.law),
        (SGLD, {"loss_scale_factor": 8.0}),
    ],
    ids=lambda value: getattr(value, "sampler", dict).__name__,
)
def test_every_row_of_an_embedding_is_sampled(case, options):
    """The gradient holds the rows 0 to 3; on TensorFlow it is sparse."""
    words = np.array([[0, 1], [2, 3]] * 4)
    targets = np.ones((8, 1), "float32")

    def rows(temperature):
        optimizer = case.make(
            0.05, 20, prior=kl.priors.Normal(0.5), temperature=temperature, seed=1, **options
        )
        model = compiled(word_model(), optimizer)
        before = weights(model)[0]
        model.fit(words, targets, batch_size=4, epochs=2, shuffle=False, verbose=0)
        return before, weights(model)[0]

    before, after = rows(1.0)
    assert (np.abs(after - before).max(axis=1) > 1e-3).all()
    before, after = rows(0.0)
    is_lagged = case is not SGLD  # the first step fills the metric
    updates = (2 if "gradient_accumulation_steps" in options else 4) - is_lagged
    inverse = case.inverse_without_data(20, 0.5)
    shrunk = (1 - 0.05 * inverse / (20 * 0.25)) ** updates
    if case is RMSPROP:  # the first batch gives all rows the variable's mean square
        assert (np.abs(after[4:]) < np.abs(before[4:])).all()
    else:
        np.testing.assert_allclose(after[4:], shrunk * before[4:], rtol=1e-5)
    assert np.abs(after[:4] - shrunk * before[:4]).max() > 1e-4


def twice():
    """A layer that is called twice, between two others."""
    keras.utils.set_random_seed(0)
    inputs, shared = keras.Input((3,)), keras.layers.Dense(3, "tanh")
    return keras.Model(inputs, keras.layers.Dense(2)(shared(shared(inputs))))


def test_a_layer_called_twice():
    cold = trained(kl.SGLD(0.1, num_data=32, temperature=0.0, prior=None), model=twice())
    assert_equal(cold, trained(keras.optimizers.SGD(0.1), model=twice()), 1e-6)
    assert_moved(weights(twice()), cold)
    assert_moved(weights(twice()), trained(QDOP.make(0.01, 32, seed=1), model=twice()))


def two_outputs():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh")], name="inner")
    inputs = keras.Input((3,))
    hidden = inner(inputs)
    value = keras.layers.Dense(2, name="value")(hidden)
    kind = keras.layers.Dense(3, name="kind")(keras.Sequential([inner])(inputs))
    return keras.Model(inputs, {"value": value, "kind": kind})


@pytest.mark.law
def test_nested_models_with_two_outputs_and_losses():
    x, y = data()
    targets = {"value": y, "kind": np.arange(32) % 3}
    losses = {
        "value": "mse",
        "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }

    def path(optimizer):
        model = compiled(two_outputs(), optimizer, losses, loss_weights={"value": 1.0, "kind": 0.5})
        model.fit(x, targets, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return weights(model)

    cold = path(kl.SGLD(0.1, num_data=32, temperature=0.0, prior=None))
    assert_equal(cold, path(keras.optimizers.SGD(0.1)), 1e-6)
    assert_moved(weights(two_outputs()), path(QDOP.make(0.01, 32, seed=1)))


class Unused(keras.Model):
    """Has a layer that no output depends on."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = keras.layers.Dense(2), keras.layers.Dense(2)

    def build(self, shape):
        self.used.build(shape)
        self.unused.build(shape)
        self.built = True

    def call(self, inputs):
        return self.used(inputs)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.backend
@both
def test_a_variable_without_gradient(case):
    """JAX gives zeros in the place of no gradient: there the variable walks on its prior."""
    model = Unused()
    model.build((None, 3))
    compiled(model, case.make(0.02, 32, seed=1))
    used, unused = ([ops.convert_to_numpy(w) for w in layer.weights[:2]] for layer in model.layers)
    if BACKEND == "jax":
        model.fit(*data(), batch_size=16, verbose=0)
    else:
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            model.fit(*data(), batch_size=16, verbose=0)
    after = [[ops.convert_to_numpy(w) for w in layer.weights[:2]] for layer in model.layers]
    assert_moved(used, after[0])
    if BACKEND == "jax":
        assert_moved(unused, after[1])
    else:
        assert_equal(unused, after[1], 0.0)


# ------------------------------------------------------------------------ weighted examples


def test_a_weight_of_two_is_the_example_twice():
    """num_data · mean loss is the same sum, once with N and a weight, once with N + 1."""
    x, y = data(8)
    weights_of_examples = np.array([2.0] + [1.0] * 7)
    weighted = trained(
        kl.SGLD(0.09, num_data=8, temperature=0.0, prior=None),
        xy=(x, y),
        sample_weight=weights_of_examples,
    )
    repeated = trained(
        kl.SGLD(0.09 * 9 / 8, num_data=9, temperature=0.0, prior=None),
        xy=(np.r_[x, x[:1]], np.r_[y, y[:1]]),
    )
    assert_equal(weighted, repeated)
    plain = trained(kl.SGLD(0.09, num_data=8, temperature=0.0, prior=None), xy=(x, y))
    assert_moved(plain, weighted)


def test_class_weights_are_sample_weights():
    x, _ = data(9)
    y = np.arange(9) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def path(**kwargs):
        optimizer = kl.SGLD(0.1, num_data=9, temperature=0.0)
        model = compiled(network(4, 3), optimizer, loss, jit_compile=JIT_IF_NEEDED)
        model.fit(x, y, batch_size=9, epochs=3, shuffle=False, verbose=0, **kwargs)
        return weights(model)

    weighted = path(class_weight={0: 1.0, 1: 2.0, 2: 1.0})
    assert_equal(weighted, path(sample_weight=1.0 + (y == 1)))
    assert_moved(path(), weighted)


# ------------------------------------------------------------------- training loops of one's own


# The pattern of the Keras guides "Customizing what happens in fit()".
if BACKEND == "tensorflow":
    import tensorflow as tf

    class OwnLoop(keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compute_loss(y=y, y_pred=y_pred)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

elif BACKEND == "jax":
    import jax

    class OwnLoop(keras.Sequential):
        def loss_and_updates(self, trainable, non_trainable, x, y):
            y_pred, non_trainable = self.stateless_call(trainable, non_trainable, x, training=True)
            return self.compute_loss(x, y, y_pred), (y_pred, non_trainable)

        def train_step(self, state, data):
            trainable, non_trainable, optimizer_variables, metrics = state
            gradient = jax.value_and_grad(self.loss_and_updates, has_aux=True)
            (loss, (_, non_trainable)), gradients = gradient(trainable, non_trainable, *data)
            trainable, optimizer_variables = self.optimizer.stateless_apply(
                optimizer_variables, gradients, trainable
            )
            return {"loss": loss}, (trainable, non_trainable, optimizer_variables, metrics)

else:
    import torch

    class OwnLoop(keras.Sequential):
        def train_step(self, data):
            x, y = data
            self.zero_grad()
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            loss.backward()
            trainable = list(self.trainable_weights)
            gradients = [v.value.grad for v in trainable]
            with torch.no_grad():
                self.optimizer.apply(gradients, trainable)
            return {"loss": loss}


@pytest.mark.backend
@both
def test_a_train_step_of_ones_own(case):
    """Gives the very path of `fit`, noise included."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]
    own = trained(case.make(0.02, 32, seed=1), batch_size=16, model=OwnLoop(layers))
    assert_equal(own, trained(case.make(0.02, 32, seed=1), batch_size=16))
    assert_moved(weights(network(4, 2)), own)


# --------------------------------------------------------------------------- learning rates


def noise_per_step(learning_rate, steps, num_data=100, **kwargs):
    """η of each step, read off the variance 2η/N of the noise."""
    changes = increments(
        kl.SGLD(learning_rate, num_data=num_data, prior=None, seed=1), steps, **kwargs
    )
    return changes.var(axis=1) * num_data / 2


def test_the_noise_follows_a_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.4, 0.1, 0.2])
    measured = noise_per_step(schedule, 6)
    assert measured == pytest.approx([0.4, 0.4, 0.1, 0.1, 0.2, 0.2], rel=0.1)


def test_the_noise_follows_callbacks():
    by_epoch = keras.callbacks.LearningRateScheduler(lambda epoch: [0.4, 0.1, 0.2][epoch])
    measured = noise_per_step(0.3, 2, epochs=3, callbacks=[by_epoch])
    assert measured == pytest.approx([0.4, 0.4, 0.1, 0.1, 0.2, 0.2], rel=0.1)
    on_plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.25, patience=1, min_lr=0.05)
    measured = noise_per_step(0.4, 1, epochs=4, callbacks=[on_plateau])
    assert measured == pytest.approx([0.4, 0.4, 0.1, 0.05], rel=0.1)


def counting(sampler):
    """A sampler that counts how often Python runs its step: once for each trace."""

    class Counting(sampler):
        runs = 0

        def step(self, *args):
            type(self).runs += 1
            yield from super().step(*args)

    return Counting


@pytest.mark.skipif(BACKEND == "torch", reason="torch is not traced")
@each(WITHOUT_DATA, backend=True)
def test_a_compiled_step_is_traced_once(case):
    sampler = counting(case.sampler)
    counted = dataclasses.replace(case, sampler=sampler)
    model = compiled(network(4, 2), counted.make(0.01, 40))
    callback = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1))
    x, y = data(40)
    model.fit(x, y, batch_size=2, epochs=3, verbose=0, callbacks=[callback])
    model.fit(x, y, batch_size=2, epochs=1, verbose=0)
    # TensorFlow traces a function that made variables a second time: the optimizer's state.
    assert sampler.runs == (2 if BACKEND == "tensorflow" else 1)


# ------------------------------------------------------------------------------------ files


def two_epochs(model):
    x, y = data()
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)


def optimizer_values(optimizer):
    return [ops.convert_to_numpy(v) for v in optimizer.variables]


# How often labels were drawn is a statistic, which a model's file leaves out.
@each(NO_LABELS, ("SGHMC",), backend=True)
def test_a_saved_model_continues_as_if_it_had_not_stopped(case, tmp_path):
    straight = compiled(network(4, 2), case.make(0.01, 32, seed=1))
    two_epochs(straight)
    straight.save(tmp_path / "model.keras")
    saved = optimizer_values(straight.optimizer)
    two_epochs(straight)

    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is case.sampler
    if loaded.optimizer.statistics:
        assert not kl.statistics.is_tracked(loaded)
        kl.track_statistics(loaded, loaded.optimizer)
    assert_equal(optimizer_values(loaded.optimizer), saved, 0.0)
    assert int(loaded.optimizer.iterations) == 8
    two_epochs(loaded)
    assert_equal(weights(loaded), weights(straight), 1e-6)


@pytest.mark.law
def test_a_saved_model_of_mixed_precision_continues(tmp_path):
    """Keras drops the loss scale, which starts anew; the sampler's state is kept."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        straight = compiled(network(4, 2), QDOP.make(0.01, 32, seed=1))
        two_epochs(straight)
        straight.save(tmp_path / "model.keras")
        with pytest.warns(UserWarning, match="Skipping variable loading .* 'loss_scale_optimizer'"):
            loaded = keras.models.load_model(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    kl.track_statistics(loaded, loaded.optimizer)
    inner, saved = loaded.optimizer.inner_optimizer, straight.optimizer.inner_optimizer
    assert_equal(optimizer_values(inner), optimizer_values(saved), 0.0)
    two_epochs(straight)
    two_epochs(loaded)
    assert_equal(weights(loaded), weights(straight), 1e-3)


@both
def test_state_of_another_kind_of_optimizer_is_refused(case):
    other = compiled(network(4, 2), keras.optimizers.Adam())
    two_epochs(other)
    store = {}
    other.optimizer.save_own_variables(store)
    model = compiled(network(4, 2), case.make(0.01, 32))
    two_epochs(model)
    with pytest.raises(ValueError, match=rf"state of this {case.sampler.__name__} does not fit"):
        model.optimizer.load_own_variables(store)
