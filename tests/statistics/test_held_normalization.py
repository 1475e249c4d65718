"""BatchNormalization with held moments: every example has a likelihood of its own."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers, ops
from targets.statistics_cases import BACKEND, Descent, measured

import keras_langevin as kl
from keras_langevin.statistics.reference import per_example_statistics
from keras_langevin.weights import named_weights, parameters

N = 24


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (N, 3)).astype("float32")
    return x, (x[:, :1] - x[:, 1:2]).astype("float32")


class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm = layers.Dense(4), layers.BatchNormalization()

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((None, 4))

    def call(self, x, training=None):
        return keras.ops.tanh(self.norm(self.dense(x), training=training))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.block, self.out = Block(), layers.Dense(1)

    def call(self, x, training=None):
        return self.out(self.block(x, training=training))


def sequential():
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.BatchNormalization(),
            layers.Dense(4, "tanh"),
            layers.BatchNormalization(),
            layers.Dense(1),
        ]
    )


def functional():
    inputs = keras.Input((3,))
    hidden = layers.BatchNormalization(scale=False)(layers.Dense(4)(inputs))
    return keras.Model(inputs, layers.Dense(1)(layers.Activation("tanh")(hidden)))


def nested():
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Dense(1)(sequential()(inputs)))


def subclassed():
    model = Subclassed()
    model(make_data()[0])
    return model


KINDS = {
    "sequential": sequential,
    "functional": functional,
    "nested": nested,
    "subclassed": subclassed,
}


def normalizations(model):
    return [
        x
        for x in model._flatten_layers()  # a test may look
        if isinstance(x, layers.BatchNormalization)
    ]


def compiled(model, optimizer):
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_no_example_depends_on_the_others(kind):
    model, (x, _) = KINDS[kind](), make_data()
    assert kl.freeze_batch_normalization(model, x, batch_size=8) is model
    whole = ops.convert_to_numpy(model(x, training=True))
    alone = [ops.convert_to_numpy(model(x[i : i + 1], training=True)) for i in range(3)]
    np.testing.assert_allclose(np.concatenate(alone), whole[:3], rtol=1e-5, atol=1e-6)
    predicted = ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_array_equal(whole, predicted)
    kl.freeze_batch_normalization(model, freeze=False)
    whole = ops.convert_to_numpy(model(x, training=True))
    alone = ops.convert_to_numpy(model(x[:2], training=True))
    assert np.abs(alone - whole[:2]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_measuring_sampler_trains_it_with_all_defaults(kind):
    model, (x, y) = KINDS[kind](), make_data()
    compiled(model, kl.QDOPLangevin(num_data=N, seed=1))
    kl.freeze_batch_normalization(model, x)
    norms = normalizations(model)
    held = [ops.convert_to_numpy(n.moving_mean) for n in norms]
    betas = [ops.convert_to_numpy(n.beta) for n in norms]
    sampler = kl.PosteriorSampler(burn_in=1)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[sampler])
    for norm, mean, beta in zip(norms, held, betas, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(norm.moving_mean), mean)
        assert np.abs(ops.convert_to_numpy(norm.beta) - beta).max() > 0
    assert len(sampler.samples) == 2
    member = kl.BayesianEnsembleModel(model, [dict(sampler.samples[-1])])
    outputs = ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(member.predict(x, verbose=0), outputs, rtol=1e-4, atol=1e-5)


def test_the_statistics_are_those_of_the_reference():
    model, (x, y) = functional(), make_data()
    kl.freeze_batch_normalization(model, x)
    compiled(model, Descent(0.0))
    kl.track_statistics(model, model.optimizer)
    model.fit(x, y, batch_size=N, shuffle=False, verbose=0)
    found = measured(model)
    for path, kinds in per_example_statistics(model, x, y).items():
        for kind, value in kinds.items():
            np.testing.assert_allclose(found[path][kind], value, rtol=1e-3, atol=1e-5)
    compiled(model, Descent(0.0))
    assert np.abs(_change(model, x, training=True)).max() == 0  # held after the reference too


def _change(model, x, training):
    whole = ops.convert_to_numpy(model(x, training=training))
    return whole - ops.convert_to_numpy(model(x, training=False))


def test_the_moments_are_those_of_the_data_whatever_the_batches():
    x = make_data()[0]
    found = []
    for batch_size in (5, N):
        keras.utils.set_random_seed(0)
        model = sequential()
        kl.freeze_batch_normalization(model, x, batch_size=batch_size)
        first, second = normalizations(model)
        np.testing.assert_allclose(ops.convert_to_numpy(first.moving_mean), x.mean(0), rtol=1e-4)
        np.testing.assert_allclose(ops.convert_to_numpy(first.moving_variance), x.var(0), rtol=1e-4)
        hidden = ops.convert_to_numpy(model.layers[1](first(x, training=False)))
        found.append([hidden.mean(0), ops.convert_to_numpy(second.moving_mean)])
    np.testing.assert_allclose(found[0][1], found[0][0], atol=0.05)
    np.testing.assert_allclose(*found[1], rtol=1e-4, atol=1e-5)


def test_without_data_the_moments_stay():
    model, (x, _) = sequential(), make_data()
    norm = normalizations(model)[0]
    norm.moving_mean.assign([1.0, 2.0, 3.0])
    kl.freeze_batch_normalization(model)
    np.testing.assert_array_equal(ops.convert_to_numpy(norm.moving_mean), [1.0, 2.0, 3.0])
    assert np.abs(_change(model, x, training=True)).max() == 0


def test_a_frozen_layer_keeps_its_moments():
    model, (x, _) = sequential(), make_data()
    model.layers[0].trainable = False
    kl.freeze_batch_normalization(model, x)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.layers[0].moving_mean), 0.0)
    assert np.abs(ops.convert_to_numpy(model.layers[2].moving_mean)).max() > 0


def test_in_a_compiled_and_tracked_model_and_back():
    model, (x, y) = sequential(), make_data()
    compiled(model, kl.QDOPLangevin(0.01, num_data=N, seed=1))
    kl.track_statistics(model, model.optimizer)
    with pytest.raises(ValueError, match="freeze_batch_normalization"):
        model.fit(x, y, batch_size=8, verbose=0)
    kl.freeze_batch_normalization(model, x)
    model.fit(x, y, batch_size=8, verbose=0)
    kl.freeze_batch_normalization(model, freeze=False)
    with pytest.raises(ValueError, match="freeze_batch_normalization"):
        model.fit(x, y, batch_size=8, verbose=0)
    kl.untrack_statistics(model)
    assert all("call" not in layer.__dict__ for layer in model.layers)
    compiled(model, keras.optimizers.SGD(0.01))
    model.fit(x, y, batch_size=8, verbose=0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("DOPLangevin", {}), ("SGHMC", {}), ("SMILE", {"tuning_steps": 3}), ("BNPLangevin", {})],
)
def test_other_samplers_train_it(name, arguments):
    model, (x, y) = functional(), make_data()
    kl.freeze_batch_normalization(model, x)
    compiled(model, getattr(kl, name)(1e-3, num_data=N, seed=1, **arguments))
    sampler = kl.PosteriorSampler(burn_in=1)
    model.fit(x, y, batch_size=N, epochs=2, verbose=0, callbacks=[sampler])
    assert len(sampler.samples) == 1


def test_saved_and_loaded_it_predicts_the_same(tmp_path):
    model, (x, y) = sequential(), make_data()
    kl.freeze_batch_normalization(model, x)
    compiled(model, kl.QDOPLangevin(0.01, num_data=N, seed=1))
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=0)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )
    assert all(layer.trainable for layer in loaded.layers)


def test_a_dataset_and_its_steps():
    x = make_data()[0]
    model = sequential()
    kl.freeze_batch_normalization(model, ((x[i : i + 8],) for i in (0, 8, 16)), steps=2)
    mean = ops.convert_to_numpy(model.layers[0].moving_mean)
    assert np.abs(mean - x[:16].mean(0)).max() < 1e-4


# ------------------------------------------------------------------------------------- refused


def test_the_refusal_says_what_works_and_nothing_else():
    model, (x, y) = sequential(), make_data()
    compiled(model, kl.QDOPLangevin(0.01, num_data=N, seed=1))
    before = model.get_weights()
    with pytest.raises(ValueError) as caught:
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=0)])
    message = str(caught.value)
    for words in ("freeze_batch_normalization", "kl.SGLD", "kl.RMSPropLangevin", "kl.BNPLangevin"):
        assert words in message
    assert "Exception encountered" not in message
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_a_model_without_such_layers_is_refused():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    with pytest.raises(ValueError, match="must have `BatchNormalization` layers"):
        kl.freeze_batch_normalization(model)


def endless():
    while True:
        yield (make_data()[0],)


def test_endless_data_need_steps():
    with pytest.raises(ValueError, match="`steps` must say"):
        kl.freeze_batch_normalization(sequential(), endless())


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a dataset of TensorFlow's")
def test_an_endless_dataset_needs_steps():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(make_data()[0]).batch(8).repeat()
    with pytest.raises(ValueError, match="`steps` must say"):
        kl.freeze_batch_normalization(sequential(), data)
    model = sequential()
    kl.freeze_batch_normalization(model, data, steps=3)
    assert np.abs(ops.convert_to_numpy(model.layers[0].moving_mean)).max() > 0


# --------------------------------------------------- samplers that take moments of the batch


@pytest.mark.parametrize("name", ["SGLD", "RMSPropLangevin", "BNPLangevin"])
def test_members_have_moving_moments_of_their_own(name):
    model, (x, y) = sequential(), make_data()
    compiled(model, getattr(kl, name)(0.05, num_data=N, seed=1))
    sampler = kl.PosteriorSampler(burn_in=0)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[sampler])
    names = [n for n in named_weights(model) if "moving" in n]
    assert len(names) == 4
    first, last = (dict(sample) for sample in sampler.samples)
    assert all(np.abs(first[n] - last[n]).max() > 0 for n in names)
    members = sampler.ensemble().predict_members(x)
    np.testing.assert_allclose(members[-1], model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    assert len(parameters(model)) == 8
