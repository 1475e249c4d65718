"""Layers around models of another library, which read weights of their own."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_langevin as kl

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="about torch")
@pytest.mark.parametrize("at_once", [1, 3], ids="{}_at_once".format)
def test_members_of_a_torch_module_are_its_own(at_once):
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.TorchModuleWrapper(net, output_shape=(None, 2))(inputs))
    rng = np.random.default_rng(1)
    samples = [[rng.normal(size=v.shape) for v in model.trainable_variables] for _ in range(3)]
    ensemble = kl.BayesianEnsembleModel(
        model, samples, output="mean", noise_stddev=1.0, member_batch_size=at_once
    )
    found = ensemble.predict_members(X, verbose=0)
    for sample, one in zip(samples, found, strict=True):
        for variable, value in zip(model.trainable_variables, sample, strict=True):
            variable.assign(value)
        np.testing.assert_allclose(one, model.predict(X, verbose=0), rtol=1e-4, atol=1e-5)


@pytest.mark.backend
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow")
def test_a_layer_of_a_saved_model_is_refused_before_the_first_step(tmp_path):
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    inner.export(tmp_path / "inner", verbose=False)
    inputs = keras.Input((4,))
    wrapped = layers.TFSMLayer(tmp_path / "inner", call_endpoint="serve")
    model = keras.Model(inputs, wrapped(inputs))
    model.compile(kl.SGLD(0.01, num_data=8), "mse")
    with pytest.raises(ValueError, match=r"`TFSMLayer`.*Set `trainable = False`"):
        model.fit(X, X[:, :2], callbacks=[kl.PosteriorSampler(burn_in=0)], verbose=0)
