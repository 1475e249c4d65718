"""fisher="model": what the probes measure inside `fit` is the true Fisher information."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers, ops
from targets.another_process import run_python
from targets.rows import every_row
from targets.statistics_cases import BACKEND, Descent, measured

import keras_langevin as kl
from keras_langevin.statistics.model_labels import ModelLabels
from keras_langevin.statistics.reference import per_example_statistics
from keras_langevin.weights import is_statistic, parameters

BATCH, INPUTS = 6, 4


class ModelDescent(Descent):
    """Plain gradient descent beside which the statistics are measured."""

    fisher, seed = "model", 3


class Record(keras.callbacks.Callback):
    """The statistics after every step, a list of dicts, one for each kernel."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(list(measured(self.model).values()))


def network(units, hidden=3, activation=None):
    """Weights as `set_weights` wants them: kernel, bias, kernel, bias."""
    more = [layers.Dense(hidden, activation="tanh")] if hidden else []
    model = keras.Sequential(
        [keras.Input((INPUTS,)), *more, layers.Dense(units, activation=activation)]
    )
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(0.0, 0.6, w.shape) for w in model.get_weights()])
    return model


def inputs(batch=BATCH):
    return np.random.default_rng(1).normal(0.5, 1.0, (batch, INPUTS)).astype("float32")


def record(
    model,
    loss,
    x,
    y,
    fisher="model",
    steps=1,
    seed=1,
    optimizer=None,
    loss_weights=None,
    sample_weight=None,
    **kwargs,
):
    """Statistics of `steps` steps on one batch, at learning rate 0 unless the optimizer says."""
    if optimizer is None:
        optimizer = kl.QDOPLangevin(
            0.0, num_data=len(x), fisher=fisher, seed=seed, statistics_stride=1
        )
    model.compile(optimizer, loss=loss, jit_compile=JIT_IF_NEEDED, loss_weights=loss_weights)
    kl.track_statistics(model, model.optimizer)
    recorder = Record()
    kwargs = {"batch_size": len(x), "shuffle": False, "verbose": 0, **kwargs}
    data = keras.tree.map_structure(
        lambda a: a if a is None else np.concatenate([a] * steps), (x, y, sample_weight)
    )
    x, y, sample_weight = data
    model.fit(x, y, sample_weight=sample_weight, callbacks=[recorder], **kwargs)
    return recorder.steps


# ------------------------------------------------------- the true Fisher, in NumPy, float64


def forward(weights, x):
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = np.tanh(x @ kernel + bias)
    return x @ weights[-2] + weights[-1]


def true_fisher(weights, x, information, example_weights=None):
    """mean_i w_i Jᵢᵀ Λᵢ Jᵢ by finite differences, as statistics; `information(outputs)` is Λ."""
    weights, x = [np.asarray(w, "float64") for w in weights], x.astype("float64")
    shapes = [w.shape for w in weights]
    splits = np.cumsum([w.size for w in weights])[:-1]
    flat = np.concatenate([w.ravel() for w in weights])

    def outputs(flat):
        pieces = np.split(flat, splits)
        return forward([p.reshape(s) for p, s in zip(pieces, shapes, strict=True)], x)

    steps = 1e-5 * np.eye(flat.size)
    jacobian = np.stack([outputs(flat + h) - outputs(flat - h) for h in steps], -1) / 2e-5
    roots = 1.0 if example_weights is None else np.asarray(example_weights)[:, None, None]
    fisher = np.einsum(
        "bkp,bkl,blq->pq", jacobian, roots * information(outputs(flat)), jacobian
    ) / len(x)
    places = np.split(np.arange(flat.size), splits)
    result = []
    for kernel, bias, shape in zip(places[::2], places[1::2], shapes[::2], strict=True):
        own_bias = np.broadcast_to(bias, shape).ravel()
        result.append(
            {
                "second_moment": fisher[kernel, kernel].reshape(shape),
                "bias_second_moment": fisher[bias, bias],
                "cross_moment": fisher[kernel, own_bias].reshape(shape),
            }
        )
    return result


def diagonal(values):
    return values[..., None] * np.eye(values.shape[-1])


def bernoulli(logits):
    p = 1 / (1 + np.exp(-logits))
    return diagonal(p * (1 - p)) / logits.shape[-1]


def categorical(logits):
    p = np.exp(logits)
    p = p / p.sum(-1, keepdims=True)
    return diagonal(p) - p[:, :, None] * p[:, None, :]


def squared_error(outputs):
    return diagonal(np.full_like(outputs, 2 / outputs.shape[-1]))


def predicted_scale(outputs):
    half = outputs.shape[-1] // 2
    means = np.exp(-2 * outputs[:, half:])
    return diagonal(np.concatenate([means, np.full_like(means, 2.0)], -1))


def relative_error(value, expected):
    pairs = [(v[k], e[k]) for v, e in zip(value, expected, strict=True) for k in e]
    assert all(v.shape == e.shape for v, e in pairs)
    return max(np.abs(v - e).max() / np.abs(e).max() for v, e in pairs)


def largest_z(steps, expected):
    """Of the means over steps, in standard errors."""
    result = []
    for i, kinds in enumerate(expected):
        for kind, value in kinds.items():
            values = np.stack([step[i][kind] for step in steps])
            error = values.std(axis=0, ddof=1) / len(values) ** 0.5
            floor = 1e-5 * np.abs(value).max()
            result.append(np.abs((values.mean(axis=0) - value) / (error + floor)).max())
    return max(result)


BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
ONE_OF = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# Labels far from what the models say.
FAMILIES = {
    "bernoulli": (3, BINARY, bernoulli, lambda n: np.ones((n, 3))),
    "categorical": (3, ONE_OF, categorical, lambda n: np.arange(n) % 2),
    "mse": (2, "mse", squared_error, lambda n: np.full((n, 2), 9.0)),
    "known_noise": (
        2,
        kl.losses.GaussianNLL(0.5),
        lambda o: diagonal(np.full_like(o, 4.0)),
        lambda n: np.full((n, 2), 9.0),
    ),
    "predicted_noise": (
        4,
        kl.losses.GaussianNLL(),
        predicted_scale,
        lambda n: np.full((n, 2), 9.0),
    ),
}


@pytest.mark.parametrize(
    ("hidden", "units"), [(3, 1), (0, 3), pytest.param(0, 1, marks=pytest.mark.law)]
)
def test_one_yes_or_no_is_exact(units, hidden):
    """The square of a sign is 1: where one output reaches a weight nothing is left to chance."""
    model, x = network(units, hidden), inputs()
    expected = true_fisher(model.get_weights(), x, bernoulli)
    far = (forward(model.get_weights(), x) < 0).astype("float32")
    for step in record(model, BINARY, x, far, steps=3):
        assert relative_error(step, expected) < 1e-4
    empirical = record(network(units, hidden), BINARY, x, far, fisher="empirical")[0]
    assert relative_error(empirical, expected) > 0.1


def test_probabilities_as_outputs():
    model, x = network(1, activation="sigmoid"), inputs()
    expected = true_fisher(model.get_weights(), x, bernoulli)
    step = record(model, "binary_crossentropy", x, np.ones((BATCH, 1), "float32"))[0]
    assert relative_error(step, expected) < 1e-3


@pytest.mark.law
@pytest.mark.parametrize("family", FAMILIES)
def test_drawn_labels_give_the_true_fisher(family):
    units, loss, information, labels = FAMILIES[family]
    model, x = network(units), inputs()
    expected = true_fisher(model.get_weights(), x, information)
    copies = 50  # in one batch: so many draws a step
    many = np.concatenate([x] * copies)
    y = labels(len(many)).astype("float32")
    steps = record(model, loss, many, y, steps=30)
    assert largest_z(steps, expected) < 5
    mean = [{k: np.mean([s[i][k] for s in steps], 0) for k in e} for i, e in enumerate(expected)]
    assert relative_error(mean, expected) < 0.1
    empirical = record(network(units), loss, many, y, fisher="empirical")[0]
    assert relative_error(empirical, expected) > 0.5


def test_dop_measures_the_diagonal_of_the_same():
    model, x = network(1), inputs()
    expected = true_fisher(model.get_weights(), x, bernoulli)
    optimizer = kl.DOPLangevin(0.0, num_data=BATCH, fisher="model", epsilon=0.0)
    step = record(model, BINARY, x, np.ones((BATCH, 1), "float32"), optimizer=optimizer)[0]
    for kinds in expected:
        del kinds["cross_moment"]
    assert relative_error(step, expected) < 1e-4
    moments = [ops.convert_to_numpy(s) for s in optimizer.preconditioner.states]
    np.testing.assert_allclose(moments[0], expected[0]["second_moment"], rtol=1e-4)


# ----------------------------------------------------------------------------- the draws


@pytest.mark.law
def test_draws_are_new_in_every_step_and_repeat_with_the_seed():
    def kernel_moments(seed):
        x, y = inputs(), np.zeros((BATCH, 2), "float32")
        steps = record(network(2), "mse", x, y, steps=6, seed=seed)
        return np.stack([step[0]["second_moment"].ravel() for step in steps])

    first = kernel_moments(1)
    assert len(np.unique(first[:, 0])) == 6
    np.testing.assert_array_equal(first, kernel_moments(1))
    assert np.abs(first - kernel_moments(2)).max() > 0.01


def test_another_seed_or_fisher_tracks_anew():
    model = network(1)

    def tracked_by(**kwargs):
        optimizer = kl.QDOPLangevin(0.0, num_data=BATCH, **kwargs)
        model.compile(optimizer, loss=BINARY)
        kl.track_statistics(model, optimizer)
        return [v for v in model.trainable_variables if is_statistic(v)]

    first = tracked_by(fisher="model", seed=1)
    again, other = tracked_by(fisher="model", seed=1), tracked_by(fisher="model", seed=2)
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert not any(a is b for a in first for b in other)
    assert len(tracked_by(seed=2)) == len(first) - 1  # nothing counts draws
    assert "compute_loss" not in model.__dict__


@pytest.mark.law
def test_accumulated_statistics_are_those_of_the_whole_batch():
    model, x = network(1), inputs(8)
    expected = true_fisher(model.get_weights(), x, bernoulli)
    optimizer = ModelDescent(0.0, gradient_accumulation_steps=4)
    y = np.ones((8, 1), "float32")
    steps = record(model, BINARY, x, y, optimizer=optimizer, batch_size=2)
    assert relative_error(steps[3], expected) < 1e-4
    (count,) = [v for v in model.trainable_variables if v.name == "label_draw"]
    assert ops.convert_to_numpy(count) == 1


@pytest.mark.law
def test_half_precision_measures_the_same():
    x, y = inputs(), np.ones((BATCH, 1), "float32")
    expected = true_fisher(network(1).get_weights(), x, bernoulli)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network(1)
    finally:
        keras.config.set_dtype_policy("float32")
    inner = ModelDescent(0.0)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**10)
    steps = record(model, BINARY, x, y, optimizer=optimizer, steps=2)
    assert relative_error(steps[-1], expected) < 2e-2


# ------------------------------------------------------- what training is without it


class CountCalls(layers.Layer):
    """Passes its input on, and counts how often it was trained on."""

    def build(self, input_shape):
        self.count = self.add_weight(shape=(), trainable=False, initializer="zeros")

    def call(self, x, training=False):
        if training:
            self.count.assign_add(1.0)
        return x


@pytest.mark.backend
def test_training_is_bit_for_bit_that_without_it():
    """Also where layers draw random numbers, keep moving values or add to the loss."""
    x = inputs(40)
    y = np.random.default_rng(3).normal(size=(40, 2)).astype("float32")

    def run(fisher):
        keras.utils.set_random_seed(4)
        model = keras.Sequential(
            [
                keras.Input((INPUTS,)),
                layers.Dense(5, activation="tanh", activity_regularizer="l2"),
                layers.Dropout(0.4),
                CountCalls(),
                layers.BatchNormalization(trainable=False),
                layers.Dense(2, kernel_regularizer="l2"),
            ]
        )
        optimizer = ModelDescent(0.1)
        optimizer.statistics = fisher and "quasi_diagonal"
        model.compile(optimizer, loss="mse", metrics=["mae"], jit_compile=JIT_IF_NEEDED)
        kl.track_statistics(model, optimizer)
        history = model.fit(
            x, y, batch_size=8, epochs=3, shuffle=False, verbose=0, validation_data=(x, y)
        )
        kept = [*parameters(model), *model.non_trainable_variables]
        return history.history, [ops.convert_to_numpy(v) for v in kept]

    plain, with_labels = run(None), run("model")
    assert 15.0 in [v for v in plain[1] if v.shape == ()]
    for one, other in zip(plain[1], with_labels[1], strict=True):
        np.testing.assert_array_equal(one, other)
    for key, values in plain[0].items():
        np.testing.assert_allclose(with_labels[0][key], values, rtol=1e-6)


def test_only_a_training_step_of_the_tracked_model_has_a_second_pass(monkeypatch):
    model, x, y = network(1), inputs(), np.ones((BATCH, 1), "float32")
    record(model, BINARY, x, y)

    def second_pass(*args):
        raise AssertionError("a second pass")

    monkeypatch.setattr(ModelLabels, "_second_pass", second_pass)
    model.evaluate(x, y, verbose=0)
    per_example_statistics(model, x, y)


@pytest.mark.law
@pytest.mark.parametrize("seed", [None, 1])
def test_dropout_is_on_and_its_masks_are_not_those_of_the_gradient(seed):
    """Statistics are non-zero where the second pass kept the input, and gradients where the
    first pass did."""

    def run(steps):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((200,)), layers.Dropout(0.5, seed=seed), layers.Dense(1, use_bias=False)]
        )
        model.set_weights([np.zeros((200, 1), "float32")])
        x, y = np.ones((1, 200), "float32"), np.ones((1, 1), "float32")
        recorded = record(model, BINARY, x, y, optimizer=ModelDescent(1e-3), steps=steps)
        return recorded, model.get_weights()[0][:, 0]

    (_, after_one), (steps, after_two) = run(1), run(2)
    measured_masks = [step[0]["second_moment"][:, 0] > 0 for step in steps]
    gradient_masks = [after_one != 0, after_two != after_one]
    for kept in (*measured_masks, *gradient_masks):
        assert 60 < kept.sum() < 140
    for one in measured_masks:
        for other in gradient_masks:
            assert 60 < (one == other).sum() < 140
    assert 60 < (measured_masks[0] == measured_masks[1]).sum() < 140


def test_a_model_that_does_not_know_training():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(1)

        def call(self, x):
            return self.inner(x)

    model, x = Subclassed(), inputs()
    model(x)
    expected = true_fisher(model.get_weights(), x, bernoulli)
    step = record(model, BINARY, x, np.ones((BATCH, 1), "float32"))[0]
    assert relative_error(step, expected) < 1e-4


# -------------------------------------------------------------------- outputs, weights


WEIGHTS = np.array([0.0, 1.0, 2.0, 0.5, 3.0, 1.0], "float32")


@pytest.mark.parametrize(
    ("reduction", "shape"),
    [
        ("sum_over_batch_size", (BATCH,)),
        pytest.param("sum_over_batch_size", (BATCH, 1), marks=pytest.mark.law),
        pytest.param("mean_with_sample_weight", (BATCH,), marks=pytest.mark.law),
        ("mean_with_sample_weight", (BATCH, 1)),
    ],
)
def test_sample_weights_multiply_the_information(shape, reduction):
    model, x = network(1), inputs()
    loss = keras.losses.BinaryCrossentropy(from_logits=True, reduction=reduction)
    weights = WEIGHTS / (WEIGHTS.mean() if reduction == "mean_with_sample_weight" else 1.0)
    expected = true_fisher(model.get_weights(), x, bernoulli, weights)
    y = np.ones((BATCH, 1), "float32")
    step = record(model, loss, x, y, sample_weight=WEIGHTS.reshape(shape))[0]
    assert relative_error(step, expected) < 1e-4


def two_heads():
    trunk = keras.Input((INPUTS,))
    hidden = layers.Dense(3, activation="tanh", name="hidden")(trunk)
    first, second = (layers.Dense(1, name=name)(hidden) for name in ("first", "second"))
    model = keras.Model(trunk, {"first": first, "second": second})
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(0.0, 0.8, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.law
def test_several_outputs_with_their_weights():
    """The heads, one yes or no and one Gaussian number each, are exact; what they share adds."""
    model, x = two_heads(), inputs()
    hidden, head = model.get_weights()[:2], model.get_weights()[2:]
    weights = {"first": WEIGHTS, "second": WEIGHTS[::-1].copy()}
    parts = [
        true_fisher([*hidden, *head[:2]], x, lambda o: 0.3 * bernoulli(o), weights["first"]),
        true_fisher(
            [*hidden, *head[2:]], x, lambda o: diagonal(np.full_like(o, 8.0)), weights["second"]
        ),
    ]
    both = {kind: parts[0][0][kind] + parts[1][0][kind] for kind in parts[0][0]}
    y = {"first": np.ones((BATCH, 1), "float32"), "second": np.full((BATCH, 1), 9.0, "float32")}
    losses = {"first": BINARY, "second": kl.losses.GaussianNLL(0.5)}
    loss_weights = {"first": 0.3, "second": 2.0}
    kwargs = {"loss_weights": loss_weights, "sample_weight": weights}
    steps = record(model, losses, x, y, steps=300, **kwargs)
    for step in steps:
        assert relative_error(step[1:], [parts[0][1], parts[1][1]]) < 1e-4
    assert largest_z([step[:1] for step in steps], [both]) < 5
    assert np.std([step[0]["second_moment"][0, 0] for step in steps]) > 0  # the heads' signs


# ---------------------------------------------------------------- with everything else


@pytest.mark.law
@pytest.mark.parametrize("sampler", [kl.DOPLangevin, kl.QDOPLangevin])
def test_samples_with_automatic_rate_and_saves(sampler, tmp_path):
    x = inputs(64)
    y = (x.sum(axis=1, keepdims=True) > 2).astype("float32")
    model = network(1)
    optimizer = sampler("auto", num_data=64, fisher="model", seed=1)
    model.compile(optimizer, loss=BINARY, jit_compile=JIT_IF_NEEDED)
    callback = kl.PosteriorSampler(burn_in=2)
    model.fit(x, y, batch_size=16, epochs=5, verbose=0, callbacks=[callback])
    assert len(callback.samples) == 3
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-6)
    assert loaded.optimizer.preconditioner.fisher == "model"
    loaded.fit(x, y, batch_size=16, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=0)])
    assert int(ops.convert_to_numpy(loaded.optimizer.iterations)) == 24


@pytest.mark.law
def test_a_resumed_run_draws_on(tmp_path):
    x, y = inputs(12), np.random.default_rng(3).normal(size=(12, 2)).astype("float32")

    def run(epochs, initial_epoch=0, **kwargs):
        keras.utils.clear_session()
        model = network(2)
        optimizer = kl.QDOPLangevin(1e-2, num_data=12, fisher="model", seed=3)
        model.compile(optimizer, loss="mse", jit_compile=JIT_IF_NEEDED)
        fit = {"batch_size": 4, "shuffle": False, "verbose": 0, "initial_epoch": initial_epoch}
        model.fit(x, y, epochs=epochs, callbacks=[kl.PosteriorSampler(0, **kwargs)], **fit)
        return model.get_weights()

    whole = run(3)
    run(1, directory=tmp_path / "run")
    resumed = run(3, 1, directory=tmp_path / "run", resume=True)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


@every_row("sampler", [kl.DOPLangevin, kl.QDOPLangevin])
def test_the_option_is_in_the_config(sampler):
    optimizer = sampler(0.1, num_data=10, fisher="model")
    assert optimizer.fisher == optimizer.get_config()["fisher"] == "model"
    assert sampler.from_config(optimizer.get_config()).fisher == "model"
    assert sampler(0.1, num_data=10).fisher == "empirical"
    with pytest.raises(ValueError, match=r"`fisher` must be one of.*fisher='true'"):
        sampler(0.1, num_data=10, fisher="true")


REPLICAS = """
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    from test_model_labels import *

    x, y = inputs(), np.ones((BATCH, 1), "float32")
    with strategy.scope():
        model = network(1)
        optimizer = ModelDescent(0.0)
        model.compile(optimizer, loss=BINARY, jit_compile=False)
    expected = true_fisher(model.get_weights(), x, bernoulli)
    kl.track_statistics(model, optimizer)
    for _ in range(2):
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    assert strategy.num_replicas_in_sync == 2
    print(relative_error(list(measured(model).values()), expected))
"""


@pytest.mark.law
@pytest.mark.backend
@pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
def test_replicas_measure_their_common_batch():
    assert float(run_python(REPLICAS)) < 1e-4


# ------------------------------------------------------------------------------- errors


def track(model, loss, **kwargs):
    optimizer = kl.QDOPLangevin(0.1, num_data=BATCH, fisher="model")
    model.compile(optimizer, loss=loss, **kwargs)
    kl.track_statistics(model, optimizer)


def test_losses_without_a_likelihood_are_refused():
    def own_loss(y, outputs):
        return ops.mean(ops.square(y - outputs), axis=-1)

    for loss, more in ((own_loss, {}), ("hinge", {}), ("mse", {"loss_weights": -2.0})):
        model = network(1)
        with pytest.raises(ValueError, match=r'(?s)fisher="model" draws.*use? ?.*"empirical"'):
            track(model, loss, **more)
        assert "compute_loss" not in model.__dict__
        assert not any(map(is_statistic, model.trainable_variables))


def test_weights_of_anything_but_examples_are_refused():
    model = keras.Sequential([keras.Input((5, INPUTS)), layers.Dense(2)])
    track(model, kl.losses.GaussianNLL(0.5))
    x, y = np.ones((3, 5, INPUTS), "float32"), np.ones((3, 5, 2), "float32")
    with pytest.raises(ValueError, match=r"one number for each example.*shape=\((3|None), 5\)"):
        model.fit(x, y, sample_weight=np.ones((3, 5), "float32"), verbose=0)


@pytest.mark.backend
@pytest.mark.skipif(BACKEND == "jax", reason="Keras loses the mask before the loss on JAX")
def test_masked_outputs_are_refused():
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(4, 3, mask_zero=True), layers.Dense(2)]
    )
    track(model, kl.losses.GaussianNLL(0.5))
    with pytest.raises(ValueError, match="must have no mask"):
        model.fit(np.ones((3, 5), "int32"), np.ones((3, 5, 2), "float32"), verbose=0)
