"""`learning_rate="auto"`, the default, wherever Adam trains a model."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_langevin as kl
from keras_langevin.autodiff import gauss_newton_product, hessian_product
from keras_langevin.learning_rate.curvature import CurvatureProbe

pytestmark = pytest.mark.timeout(180)
ON_TENSORFLOW = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow alone has these"
)
ROWS = 24


def numbers(columns=4, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, columns)).astype("float32")
    return x, (x[:, :1] > 0).astype("float32")


def words():
    return np.random.default_rng(0).integers(1, 9, (ROWS, 5)), numbers()[1]


def sampled(model, x, y, loss="binary_crossentropy", optimizer=None, batch_size=8, **fit):
    """The rate that `fit` finds, and the sampler."""
    model.compile(optimizer or kl.SGLD(num_data=ROWS), loss)
    sampler = kl.PosteriorSampler(burn_in=1)
    model.fit(x, y, batch_size, epochs=2, callbacks=[sampler], verbose=0, **fit)
    assert len(sampler.samples) == 1
    return float(ops.convert_to_numpy(model.optimizer.learning_rate)), sampler


@keras.saving.register_keras_serializable("tests")
class OwnGradient(layers.Layer):
    """A custom gradient without a forward-mode derivative."""

    def call(self, x):
        @ops.custom_gradient
        def tripled(x):
            def backward(*args, upstream=None):
                return 3.0 * (args[0] if upstream is None else upstream)

            return 3.0 * x, backward

        return tripled(x)


class WithoutTraining(keras.Model):
    """As in the guides: built by `fit`, `call` without `training`."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(3, "tanh"), layers.Dense(1, "sigmoid")

    def call(self, x):
        return self.out(self.hidden(x))


class OwnLoss(WithoutTraining):
    """An older `compute_loss`, without `training`, that looks at its inputs and weights."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        penalty = ops.mean(self.hidden(x) ** 2) + ops.sum(self.hidden.kernel**2)
        return ops.mean((y - y_pred) ** 2) + 0.1 * penalty


@keras.saving.register_keras_serializable("tests")
class Positions(layers.Layer):
    """Adds a slice of its weights, which on TensorFlow has no second derivative."""

    def build(self, shape):
        self.table = self.add_weight(shape=(9, shape[-1]), name="table")

    def call(self, x):
        return x + ops.slice(ops.convert_to_tensor(self.table), (0, 0), (x.shape[1], x.shape[2]))


class AddsLoss(layers.Layer):
    def call(self, x):
        self.add_loss(0.1 * ops.mean(x**2))
        return x


def sequential(*parts, shape=(4,), dtype=None):
    return keras.Sequential(
        [keras.Input(shape, dtype=dtype), *parts, layers.Dense(1, "sigmoid", name="out")]
    )


def regularized():
    return sequential(
        layers.Dense(3, "tanh", kernel_regularizer="l2", bias_regularizer="l1"),
        layers.Dense(2, "tanh", activity_regularizer="l2"),
    )


def regularized_words():
    return sequential(
        layers.Embedding(9, 3, embeddings_regularizer="l2"),
        layers.GlobalAveragePooling1D(),
        shape=(5,),
        dtype="int32",
    )


def masked():
    embedding = layers.Embedding(9, 3, mask_zero=True)
    pooled = layers.GlobalAveragePooling1D()
    return sequential(embedding, pooled, shape=(5,), dtype="int32")


def attention():
    inputs = keras.Input((4,))
    h = layers.Reshape((2, 2))(inputs)
    h = layers.MultiHeadAttention(2, 2)(h, h)
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(layers.Flatten()(h)))


def positions():
    inputs = keras.Input((4,))
    h = Positions()(layers.Reshape((2, 2))(inputs))
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(layers.Flatten()(h)))


NUMBERS = {
    "regularizers": regularized,
    "add_loss": lambda: sequential(layers.Dense(3, "tanh"), AddsLoss()),
    "custom gradient": lambda: sequential(layers.Dense(3, "tanh"), OwnGradient()),
    "attention": attention,
    "positions": positions,
    "call without training": WithoutTraining,
    "compute_loss": OwnLoss,
    "sequential without input": lambda: keras.Sequential([layers.Dense(1, "sigmoid")]),
}


# The rows of `zoo` that every backend runs hold these on TensorFlow and torch.
NEUTRAL = ("regularizers", "attention", "call without training")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.neutral) if kind in NEUTRAL else kind
        for kind in NUMBERS
    ],
)
def test_auto_on_ordinary_models(kind):
    rate, _ = sampled(NUMBERS[kind](), *numbers())
    assert rate > 0


@pytest.mark.neutral
@pytest.mark.parametrize("make", [regularized, WithoutTraining])
def test_the_default_optimizer_takes_them(make):
    rate, _ = sampled(make(), *numbers(), optimizer=kl.QDOPLangevin(num_data=ROWS))
    assert rate > 0


@pytest.mark.parametrize(
    "make", [regularized_words, pytest.param(masked, marks=pytest.mark.neutral)]
)
def test_auto_on_words(make):
    rate, _ = sampled(make(), *words())
    assert rate > 0


@pytest.mark.neutral
def test_auto_on_whole_numbers():
    model = sequential(layers.Dense(3, "tanh"), shape=(5,), dtype="int32")
    rate, _ = sampled(model, *words())
    assert rate > 0


@pytest.mark.neutral
def test_auto_on_nested_inputs_and_outputs():
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    h = layers.Dense(3, "tanh")(inputs["a"] + inputs["b"])
    outputs = {"p": layers.Dense(1, "sigmoid", name="p")(h), "q": layers.Dense(2, name="q")(h)}
    model = keras.Model(inputs, outputs)
    x, y = numbers()
    loss = {"p": "binary_crossentropy", "q": "mse"}
    model.compile(kl.SGLD(num_data=ROWS), loss, loss_weights={"p": 1.0, "q": 0.5})
    model.fit({"a": x, "b": x}, {"p": y, "q": x[:, :2]}, 8, 2, 0, [kl.PosteriorSampler(burn_in=1)])
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) > 0


def test_auto_where_layers_alone_add_losses():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, AddsLoss()(layers.Dense(2)(inputs)))
    rate, _ = sampled(model, numbers()[0], None, loss=None)
    assert rate > 0


@pytest.mark.backend
@ON_TENSORFLOW
def test_auto_on_strings():
    import tensorflow as tf

    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            layers.StringLookup(vocabulary=["a", "b", "c"], output_mode="multi_hot"),
            layers.Dense(1, "sigmoid"),
        ]
    )
    x = np.array([["a"], ["b"], ["c"], ["a"]] * 6)
    y = (x == "a").astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    for data in ({"x": tf.constant(x), "y": y, "batch_size": 8}, {"x": dataset}):
        rate, _ = sampled(model, **{"y": None, "batch_size": None, "shuffle": False, **data})
        assert rate > 0
    for given in (x, x.astype(object), tf.constant(x)):
        assert kl.find_learning_rate(model, given, y, batch_size=8) > 0


@pytest.mark.backend
@ON_TENSORFLOW
def test_auto_where_a_layer_runs_python():
    import tensorflow as tf

    class Python(layers.Layer):
        def call(self, x):
            out = tf.py_function(lambda x: 2.0 * x, [x], tf.float32)
            return tf.ensure_shape(out, x.shape)

    model = sequential(layers.Dense(3, "tanh"), Python())
    model.compile(kl.SGLD(num_data=ROWS), "binary_crossentropy", jit_compile=False)
    model.fit(*numbers(), 8, 2, 0, [kl.PosteriorSampler(burn_in=1)])
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) > 0


def test_a_train_step_that_alone_knows_its_loss_is_refused_before_the_first_step():
    class Autoencoder(WithoutTraining):
        def train_step(self, *args):
            raise AssertionError("no step may be made")

    model, (x, y) = Autoencoder(), numbers()
    model.compile(kl.QDOPLangevin(num_data=ROWS))
    with pytest.raises(ValueError, match=r"`train_step` alone.*learning_rate=1e-3"):
        model.fit(x, y, callbacks=[kl.PosteriorSampler(burn_in=0)], verbose=0)


def test_a_compiled_loss_that_a_train_step_does_not_read_is_refused():
    class Ignores(WithoutTraining):
        def train_step(self, *args):
            loss = ops.mean(self(args[-1][0]) ** 2)
            raise AssertionError(f"no step may be made: {loss}")

    model, (x, y) = Ignores(), numbers()
    model.compile(kl.QDOPLangevin(num_data=ROWS), "binary_crossentropy")
    with pytest.raises(ValueError, match=r"`train_step` alone.*learning_rate=1e-3"):
        model.fit(x, y, callbacks=[kl.PosteriorSampler(burn_in=0)], verbose=0)


def test_a_train_step_that_reads_the_compiled_loss_is_sampled():
    class Counts(WithoutTraining):
        def train_step(self, *args):
            return super().train_step(*args)

    model, (x, y) = Counts(), numbers()
    model.compile(kl.SGLD(num_data=ROWS), "binary_crossentropy")
    model.fit(x, y, epochs=2, callbacks=[kl.PosteriorSampler(burn_in=1)], verbose=0)
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) > 0


@pytest.mark.neutral
def test_what_cannot_be_measured_names_the_rate_and_the_way_out(monkeypatch):
    def broken(*args, **kwargs):
        raise NotImplementedError("no derivative")

    for function in ("gauss_newton_product", "gradient"):
        monkeypatch.setattr(f"keras_langevin.learning_rate.curvature.{function}", broken)
    with pytest.raises(ValueError, match=r'"auto" must measure.*no derivative.*rate=1e-3'):
        sampled(regularized(), *numbers())


def largest(model, x, y, sample_weight=None):
    model.compile(kl.SGLD(1e-3, num_data=ROWS, prior=kl.priors.Normal(1.0)), "mse")
    kl.warm_up_metric(model, x, y, batch_size=8)
    return kl.diagnostics.curvature(model, x, y, sample_weight=sample_weight).largest


def linear(**arguments):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False, **arguments)])
    model.set_weights([np.ones((4, 1), "float32")])
    return model


def test_the_curvature_of_regularizers_counts():
    x, y = numbers()
    plain = largest(linear(), x, y)
    ridge = largest(linear(kernel_regularizer=keras.regularizers.L2(0.7)), x, y)
    assert ridge - plain == pytest.approx(2 * 0.7, rel=1e-4)
    activity = largest(linear(activity_regularizer=keras.regularizers.L2(0.7)), x, y)
    data = np.linalg.eigvalsh(2 * x.T @ x / ROWS)[-1]
    assert plain - data == pytest.approx(1 / ROWS, rel=1e-3)  # the prior's
    assert activity - plain == pytest.approx(0.7 * data, rel=1e-4)


def test_a_loss_of_the_weights_counts():
    class Ridge(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1, use_bias=False)

        def call(self, x):
            return self.dense(x)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean((y - y_pred) ** 2) + 0.7 * ops.sum(self.dense.kernel**2)

    x, y = numbers()
    model = Ridge()
    model(x[:1])
    assert largest(model, x, y) - largest(linear(), x, y) == pytest.approx(1.4, rel=1e-4)


def test_masked_places_do_not_count():
    ids, _ = words()
    short, padded = ids[:, :3], ids.copy()
    padded[:, 3:] = 0
    found = []
    for x in (short, padded):
        inputs = keras.Input((None,), dtype="int32")
        h = layers.Embedding(9, 3, mask_zero=True, embeddings_initializer="ones")(inputs)
        model = keras.Model(inputs, layers.Dense(1, kernel_initializer="ones")(h))
        found.append(largest(model, x, np.ones((*x.shape, 1), "float32")))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("method", ["reverse", "difference"])
def test_every_way_to_differentiate_gives_the_same(method):
    generator = np.random.default_rng(0)
    x = ops.convert_to_tensor(generator.normal(size=(6, 3)), "float32")
    values = [ops.convert_to_tensor(generator.normal(size=s), "float32") for s in ((3, 2), (2,))]
    vectors = [ops.convert_to_tensor(generator.normal(size=s), "float32") for s in ((3, 2), (2,))]

    def outputs(values):
        return [ops.tanh(ops.matmul(x, values[0])) + values[1]]

    def loss(predictions):
        return ops.mean(ops.exp(predictions[0]))

    def whole(values):
        return loss(outputs(values))

    best = "reverse" if keras.backend.backend() == "tensorflow" else "forward"
    for found, expected in (
        [gauss_newton_product(outputs, loss, values, vectors, m) for m in (method, best)],
        [hessian_product(whole, values, vectors, m) for m in (method, best)],
    ):
        for one, other in zip(found, expected, strict=True):
            one, other = ops.convert_to_numpy(one), ops.convert_to_numpy(other)
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


def test_differences_find_the_same_largest_eigenvalue(monkeypatch):
    model, (x, y) = regularized(), numbers()
    model.compile(kl.SGLD(1e-3, num_data=ROWS), "binary_crossentropy")
    kl.warm_up_metric(model, x, y, batch_size=8)
    expected = CurvatureProbe(model).measure(x, y).largest
    monkeypatch.setattr(
        "keras_langevin.learning_rate.curvature.ways_to_differentiate",
        lambda: [("difference", "eager")],
    )
    assert CurvatureProbe(model).measure(x, y).largest == pytest.approx(expected, rel=1e-2)
