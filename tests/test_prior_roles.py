"""What a prior takes a variable for, layer by layer, and the scale that follows."""

import keras
import numpy as np
import pytest
from cases import JIT_IF_NEEDED
from keras import layers
from targets.rows import every_row

import keras_langevin as kl
from keras_langevin.priors.roles import note_roles, role_of

# Each: a layer, the shape of its inputs, and what its variables are, by the end of their path.
ROLES = {
    "dense": (lambda: layers.Dense(7), (5,), {"kernel": "kernel, fan-in 5", "bias": "vector"}),
    "conv": (
        lambda: layers.Conv2D(6, (3, 2), groups=2),
        (8, 8, 4),
        {"kernel": "kernel, fan-in 12", "bias": "vector"},
    ),
    "depthwise, whatever its name": (
        lambda: layers.DepthwiseConv2D((3, 2), depth_multiplier=2, name="first"),
        (8, 8, 5),
        {"kernel": "kernel, fan-in 6", "bias": "vector"},
    ),
    "separable": (
        lambda: layers.SeparableConv2D(7, (3, 2)),
        (8, 8, 5),
        {
            "depthwise_kernel": "kernel, fan-in 6",
            "pointwise_kernel": "kernel, fan-in 5",
            "bias": "vector",
        },
    ),
    "transposed": (
        lambda: layers.Conv2DTranspose(6, 4, strides=2),
        (8, 8, 5),
        {"kernel": "kernel, fan-in 20", "bias": "vector"},  # 4 of the 16 taps meet an output
    ),
    "embedding": (lambda: layers.Embedding(50, 7), (3,), {"embeddings": "embedding"}),
    "gru": (
        lambda: layers.GRU(4),
        (3, 5),
        {
            "/kernel": "kernel, fan-in 5",
            "recurrent_kernel": "kernel, fan-in 4",
            "bias": "vector",  # of shape (2, 12)
        },
    ),
    "layer normalization": (
        layers.LayerNormalization,
        (5,),
        {"gamma": "gain", "beta": "vector"},
    ),
    "rms normalization": (layers.RMSNormalization, (5,), {"scale": "gain"}),
    "einsum that sums tokens": (
        lambda: layers.EinsumDense("abc,cd->ad", 4),
        (3, 5),
        {"kernel": "kernel, fan-in 15"},
    ),
    "einsum with heads": (
        lambda: layers.EinsumDense("abc,cde->abde", (None, 4, 2), bias_axes="de"),
        (3, 5),
        {"kernel": "kernel, fan-in 5", "bias": "vector"},
    ),
}


@every_row("name", ROLES)
def test_roles(name):
    make, shape, wanted = ROLES[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Identity()(make()(inputs)))
    note_roles(model)
    ends = {v.path: str(role_of(v)).removeprefix("output ") for v in model.trainable_variables}
    assert len(ends) == len(wanted)
    for end, role in wanted.items():
        assert [r for path, r in ends.items() if path.endswith(end)] == [role]


def test_attention():
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 3, value_dim=5)(inputs, inputs))
    note_roles(model)
    fan_in = {v.path.split("/")[-2]: role_of(v).fan_in for v in model.weights if v.name == "kernel"}
    assert fan_in == {"query": 6, "key": 6, "value": 6, "attention_output": 10}


# ------------------------------------------------------------------------ the model's outputs


def outputs_of(model):
    note_roles(model)
    return [v.path for v in model.trainable_variables if role_of(v).is_output]


def test_outputs_of_a_functional_model():
    """Through layers without kernels, and a model within; the order of layers does not decide."""
    inputs = keras.Input((5,))
    second = layers.Dense(3, name="second")
    hidden = layers.Dense(4, name="hidden")(inputs)
    head = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="first"), layers.Softmax()])
    model = keras.Model(inputs, [layers.Activation("relu")(head(hidden)), second(hidden)])
    assert {path.split("/")[-2] for path in outputs_of(model)} == {"first", "second"}


def test_a_recurrent_layer_at_the_end_has_no_kernel_of_outputs():
    """Its outputs are bounded whatever its kernels are."""
    inputs = keras.Input((4, 2))
    hidden = layers.Dense(3)(inputs)
    assert outputs_of(keras.Model(inputs, layers.GRU(4)(hidden))) == []


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = layers.Dense(4, name="hidden"), layers.Dense(2, name="head")

    def call(self, x):
        return self.head(self.hidden(x))


def test_outputs_of_a_subclassed_model():
    """What it does cannot be seen: the last kernel."""
    model = Subclassed()
    model(np.zeros((1, 3), "float32"))
    (path,) = outputs_of(model)
    assert path.endswith("head/kernel")


def test_outputs_have_the_stated_deviation_at_any_depth():
    """Draws from the prior, for inputs of size one; one scale for all explodes with the depth."""
    x = np.random.default_rng(0).normal(size=(200, 30)).astype("float32")
    for depth in (1, 5):
        hidden = [layers.Dense(200, "relu") for _ in range(depth)]
        model = keras.Sequential([keras.Input((30,)), *hidden, layers.Dense(40)])
        note_roles(model)
        for prior, low, high in (
            (kl.priors.LayerwiseNormal(10.0, hidden_scale=2.0, bias_stddev=1e-3), 8.0, 12.0),
            (kl.priors.FanInNormal(10.0, bias_stddev=1e-3), 3.16 * 5 ** (depth / 2) * 0.8, np.inf),
        ):
            random = np.random.default_rng(1)
            for variable in model.trainable_variables:
                found = prior.for_variable(variable)
                variable.assign(random.normal(found.mean, found.stddev, variable.shape))
            assert low < np.std(model.predict(x, verbose=0)) < high


# -------------------------------------------------------------------------------- in a sampler


def small_model():
    inputs = keras.Input((6, 4))
    heads = layers.EinsumDense("abc,cde->abde", (6, 3, 2), name="heads")(inputs)
    normal = layers.LayerNormalization(name="norm")(layers.Flatten()(heads))
    return keras.Model(inputs, layers.Dense(2, name="out")(normal))


def trained(model, optimizer):
    model.compile(optimizer, "mse", jit_compile=JIT_IF_NEEDED)
    x, y = np.ones((8, 6, 4), "float32"), np.ones((8, 2), "float32")
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=1)])
    return model


def stddevs(model):
    sampled = zip(model.optimizer.sampled_variables, model.optimizer._priors, strict=True)
    return {v.path: (p.mean, pytest.approx(p.stddev)) for v, p in sampled}


@pytest.mark.backend
def test_the_sampler_asks_the_layers(tmp_path):
    """Also one that a file has brought, whose optimizer met the variables before the layers."""
    model = trained(small_model(), kl.SGLD(1e-3, num_data=8))
    expected = {
        "heads/kernel": (0.0, (4 / 4) ** 0.5),
        "norm/gamma": (1.0, 1.0),
        "norm/beta": (0.0, 1.0),
        "out/kernel": (0.0, (6.0**2 / 36) ** 0.5),
        "out/bias": (0.0, 1.0),
    }
    assert stddevs(model) == expected
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert stddevs(loaded) != expected  # by names: 24 inputs of the einsum
    assert stddevs(trained(loaded, loaded.optimizer)) == expected
    assert loaded.optimizer.layout.prior_precisions[0] == pytest.approx((4 / 4) / 8)
    assert loaded.optimizer.preconditioner.layout.prior_precisions[0] == pytest.approx((4 / 4) / 8)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the prior is the same elsewhere")
def test_a_model_of_words_learns_with_all_defaults():
    """Two words in twelve tell the class; those that do not are drawn from the prior. Chance is
    0.69 nats, Adam reaches 0.01, and four seeds gave 0.05 to 0.06."""

    def sentences(random, n=600):
        y = random.integers(0, 2, n)
        x = random.integers(10, 200, (n, 12))
        for _ in range(2):
            x[np.arange(n), random.integers(0, 12, n)] = random.integers(0, 5, n) + 5 * y
        return x, y

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Embedding(200, 16),
            layers.GlobalAveragePooling1D(),
            layers.Dense(16, "relu"),
            layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kl.QDOPLangevin(num_data=600), loss)
    train, test = (sentences(np.random.default_rng(seed)) for seed in (0, 1))
    sampler = kl.PosteriorSampler(burn_in=20)
    model.fit(*train, 30, 40, verbose=0, callbacks=[sampler])
    assert sampler.ensemble().evaluate(*test, verbose=0) < 0.15


# ------------------------------------------------------------------------------- the description


def test_description():
    model = small_model()
    expected = """\
variable      shape      prior      of
heads/kernel  (4, 3, 2)  N(0, 1^2)  kernel, fan-in 4
norm/gamma    (36,)      N(1, 1^2)  gain
norm/beta     (36,)      N(0, 1^2)  vector
out/kernel    (36, 2)    N(0, 1^2)  output kernel, fan-in 36
out/bias      (2,)       N(0, 1^2)  vector"""
    assert kl.priors.describe(model) == expected
    assert repr(kl.priors.describe(model)) == expected
    prior = {"heads": None, "out": kl.priors.Laplace(0.3), ".*": kl.priors.StudentT(3.0)}
    model.compile(kl.SGLD(1e-3, num_data=8, prior=prior), "mse")
    lines = str(kl.priors.describe(model)).splitlines()
    assert "flat " in lines[1]
    assert "StudentT(df=3.0, scale=1.0, mean=0.0)" in lines[2]
    assert "Laplace(scale=0.3, mean=0.0)" in lines[4]


def test_description_needs_weights():
    with pytest.raises(ValueError, match=r"`model` must be a built .*Received: model="):
        kl.priors.describe(keras.Sequential([layers.Dense(2)]))
