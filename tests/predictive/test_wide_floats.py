"""`floatx="float64"`: every density and loss stays in it."""

import keras
import numpy as np
import pytest
from keras import losses, ops

import keras_langevin as kl
from keras_langevin.predictive.registry import find_family

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
pytestmark = [
    pytest.mark.backend,
    pytest.mark.torch,
    pytest.mark.skipif(BACKEND == "jax", reason="JAX needs jax_enable_x64 from the start"),
]

LOSSES = [
    (losses.SparseCategoricalCrossentropy(ignore_class=1), np.array([0, 1, 2])),
    (losses.CategoricalCrossentropy(label_smoothing=0.1), np.eye(4)[:3]),
    (losses.BinaryCrossentropy(label_smoothing=0.1), np.eye(4)[:3]),
    *[
        (getattr(losses, name)(), RNG.poisson(2.0, (3, 4)))
        for name in (
            "MeanSquaredError",
            "MeanAbsoluteError",
            "Huber",
            "LogCosh",
            "MeanSquaredLogarithmicError",
            "Poisson",
        )
    ],
    (kl.losses.GaussianNLL(), RNG.normal(size=(3, 2))),
    (kl.losses.GaussianNLL(0.3), RNG.normal(size=(3, 4))),
    (kl.losses.NegativeBinomialNLL(), RNG.poisson(2.0, (3, 2))),
    (kl.losses.StudentTNLL(), RNG.normal(size=(3, 2))),
    (kl.losses.StudentTNLL(df=None), RNG.normal(size=3)),
    (kl.losses.BetaNLL(), RNG.uniform(0.1, 0.9, (3, 2))),
]


@pytest.fixture
def wide():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


@pytest.mark.parametrize(
    ("loss", "y"), LOSSES, ids=[f"{type(loss).__name__}-{i}" for i, (loss, _) in enumerate(LOSSES)]
)
def test_densities_and_losses_in_float64(wide, loss, y):
    loss = type(loss).from_config(loss.get_config())
    family = find_family(loss)
    outputs = RNG.uniform(0.1, 0.9, (2, 3, 3 if getattr(loss, "df", 4) is None else 4))
    if family.output == "probabilities":
        outputs = outputs / outputs.sum(axis=-1, keepdims=True)
    tensor = ops.convert_to_tensor(outputs, "float64")
    levels = (0.1, 0.9) if BACKEND == "torch" else ()  # TensorFlow's loops are slow outside a graph
    found = {
        "log_density": family.log_density(tensor, ops.convert_to_tensor(y)),
        "scores": family.fisher_scores(tensor[0], tensor),
        **family.uncertainty(tensor, levels),
    }
    if type(loss).__module__.startswith("keras_langevin"):  # some of Keras' own are not
        found["loss"] = loss.call(ops.convert_to_tensor(y), tensor[0])
    for name, value in found.items():
        assert keras.backend.standardize_dtype(value.dtype) == "float64", name
    single = family.log_density(ops.cast(tensor, "float32"), ops.convert_to_tensor(y))
    np.testing.assert_allclose(
        ops.convert_to_numpy(single), ops.convert_to_numpy(found["log_density"]), rtol=1e-4
    )
