"""What a saved ensemble holds, and which networks come back from it."""

import io
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import keras_langevin as kl
from keras_langevin.weights import weight_values

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = (X.sum(-1) > 0).astype("int32")


def sampled(model, optimizer=None):
    """An ensemble that knows the model it came from."""
    model.compile(optimizer or kl.SGLD(0.01, num_data=len(X)), "binary_crossentropy")
    sampler = kl.PosteriorSampler(burn_in=1)
    model.fit(X, Y, epochs=3, callbacks=[sampler], verbose=0)
    return sampler.ensemble()


def network(*middle):
    return keras.Sequential([keras.Input((4,)), *middle, layers.Dense(1, "sigmoid")])


def groups(path):
    """Groups of the weights' file that hold arrays, and the number of numbers."""
    with zipfile.ZipFile(path) as archive:
        data = archive.read("model.weights.h5")
    found = {}
    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item.size}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def test_a_file_holds_the_members_alone(tmp_path):
    ensemble = sampled(network(layers.Dense(5, "tanh")), kl.QDOPLangevin(0.01, num_data=len(X)))
    ensemble.save(tmp_path / "e.keras")
    weights = 4 * 5 + 5 + 5 + 1
    assert sum(groups(tmp_path / "e.keras").values()) == 2 * weights


def comes_back(ensemble, tmp_path, **options):
    ensemble.save(tmp_path / "e.keras")
    loaded = keras.saving.load_model(tmp_path / "e.keras", safe_mode=False, **options)
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0), ensemble.predict(X, verbose=0), rtol=1e-5
    )
    assert list(loaded.weights_by_name()) == list(ensemble.weights_by_name())


def test_a_network_that_cannot_be_cloned_comes_back(tmp_path):
    comes_back(sampled(network(layers.Lambda(lambda t: 2 * t))), tmp_path)


class Backbone(keras.Model):
    """Its config says nothing of LoRA, as those of KerasHub, nor of how many layers there are."""

    def __init__(self, layers_of_it=1, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [layers.Dense(3, "tanh") for _ in range(layers_of_it)]
        self.out = layers.Dense(1, "sigmoid")

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.out(x)

    def build(self, input_shape):
        size = input_shape[-1]
        for layer in [*self.hidden, self.out]:
            layer.build((None, size))
            size = layer.units

    def get_config(self):
        return {}


def backbone(count=1):
    model = Backbone(count)
    model.build((None, 4))
    return model


def test_a_backbone_with_lora_comes_back(tmp_path):
    model = backbone()
    model.hidden[0].enable_lora(2)
    comes_back(sampled(model), tmp_path, custom_objects={"Backbone": Backbone})


def test_a_network_that_would_not_come_back_is_refused_before_it_is_written(tmp_path):
    ensemble = sampled(backbone(2))
    expected = r"same weights. Received: Backbone .* 6 weights.* gives 4"
    with pytest.raises(ValueError, match=expected):
        ensemble.save(tmp_path / "e.keras")
    assert not (tmp_path / "e.keras").exists()


class Table(layers.Layer):
    """Keeps numbers outside of its weights, and saves them itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = 1.0

    def call(self, x):
        return self.factor * x

    def save_own_variables(self, store):
        store["factor"] = np.float32(self.factor)

    def load_own_variables(self, store):
        self.factor = float(np.asarray(store["factor"]))


def test_what_a_layer_saves_itself_comes_back(tmp_path):
    table = Table()
    table.factor = 3.0
    model = network(layers.Dense(3), table)
    ensemble = sampled(model)
    last = kl.BayesianEnsembleModel(model, [weight_values(model)])
    np.testing.assert_allclose(last.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5)
    comes_back(ensemble, tmp_path, custom_objects={"Table": Table})


def test_other_files_and_quantization_are_refused_in_a_sentence(tmp_path):
    ensemble = sampled(network())
    with pytest.raises(ValueError, match=r"saved to a `.keras` file. Received: filepath=.*e.h5"):
        ensemble.save(tmp_path / "e.h5")
    assert not (tmp_path / "e.h5").exists()
    with pytest.raises(NotImplementedError, match=r"cannot be quantized. Received: mode='int8'"):
        ensemble.quantize("int8")
