"""The default learning rate and validation on data of every kind, to the end."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_langevin as kl

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.timeout(120)
ON_TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow alone has these")
NOT_ON_TORCH = pytest.mark.skipif(BACKEND == "torch", reason="Keras has none on torch")
ROWS, BATCH = 24, 8


def arrays(columns=3):
    x = np.random.default_rng(0).normal(size=(ROWS, columns)).astype("float32")
    return x, (x[:, :1] > 0).astype("float32")


def compiled(model=None, optimizer=None, **arguments):
    model = model or network()
    optimizer = optimizer or kl.SGLD(num_data=ROWS)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"], **arguments)
    return model


def network(sparse=False):
    return keras.Sequential(
        [keras.Input((3,), sparse=sparse), layers.Dense(1, activation="sigmoid")]
    )


def run(model, *data, **fit):
    sampler = kl.PosteriorSampler(burn_in=1)
    callbacks = [sampler]
    if fit.pop("validate", False):
        callbacks.append(kl.EnsembleValidation(sampler))
    history = model.fit(*data, epochs=3, callbacks=callbacks, verbose=0, **fit).history
    assert len(sampler.samples) == 2
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) > 0
    return history, sampler


def tf_dataset(batch=BATCH):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays()).batch(batch)


class Batches(keras.utils.PyDataset):
    def __init__(self, endless=False, **kwargs):
        super().__init__(**kwargs)
        self.endless = endless

    @property
    def num_batches(self):
        return None if self.endless else ROWS // BATCH

    def __getitem__(self, index):
        place = slice(index % 3 * BATCH, (index % 3 + 1) * BATCH)
        return tuple(a[place] for a in arrays())


def test_endless_data_and_validation_data():
    history, sampler = run(
        compiled(),
        tf_dataset().repeat(),
        steps_per_epoch=3,
        validation_data=tf_dataset(6).repeat(),
        validation_steps=2,
        shuffle=False,
        validate=True,
    )
    x, y = arrays()
    expected = sampler.ensemble().evaluate(x[:12], y[:12], verbose=0)
    assert history["val_ensemble_loss"][-1] == pytest.approx(expected[0], rel=1e-4)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("endless", [False, True])
def test_a_py_dataset_with_workers(workers, endless):
    steps = {"steps_per_epoch": 3, "validation_steps": 2} if endless else {}
    history, sampler = run(
        compiled(),
        Batches(endless, workers=workers),
        validation_data=Batches(endless, workers=workers),
        shuffle=False,
        validate=True,
        **steps,
    )
    x, y = arrays()
    count = 16 if endless else ROWS
    expected = sampler.ensemble().evaluate(x[:count], y[:count], verbose=0)
    assert history["val_ensemble_loss"][-1] == pytest.approx(expected[0], rel=1e-4)


@pytest.mark.parametrize("workers", [0, 1] if BACKEND == "torch" else [0])  # JAX warns of forks
def test_a_loader_of_torch(workers):
    import torch

    tensors = torch.utils.data.TensorDataset(*map(torch.from_numpy, arrays()))
    loaders = [
        torch.utils.data.DataLoader(tensors, BATCH, shuffle=shuffle, num_workers=workers)
        for shuffle in (True, False)
    ]
    run(compiled(), loaders[0], validation_data=loaders[1], shuffle=False, validate=True)


def test_a_generator_that_validates_is_refused_before_the_first_step():
    model, (x, y) = compiled(), arrays()
    before = model.get_weights()
    with pytest.raises(ValueError, match="generator, which can be read once"):
        run(model, x, y, validation_data=(pair for pair in [(x, y)]), validate=True)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_validation_data_without_an_end_are_refused():
    sampler = kl.PosteriorSampler(burn_in=1)
    for data in (tf_dataset().repeat(), Batches(endless=True)):
        with pytest.raises(ValueError, match="dataset that ends"):
            kl.EnsembleValidation(sampler, data)


@NOT_ON_TORCH
def test_sparse_matrices():
    import scipy.sparse

    x, y = arrays()
    matrix = scipy.sparse.csr_matrix(np.where(x > 0.5, x, 0.0))
    model = compiled(network(sparse=True))
    run(model, matrix, y, batch_size=BATCH)
    rate = kl.find_learning_rate(model, matrix, y, batch_size=BATCH)
    dense = kl.find_learning_rate(model, matrix.toarray(), y, batch_size=BATCH)
    assert rate == pytest.approx(dense, rel=1e-4)


@ON_TENSORFLOW
def test_sparse_and_ragged_tensors():
    import tensorflow as tf

    x, y = arrays()
    sparse = tf.sparse.from_dense(np.where(x > 0.5, x, 0.0))
    run(compiled(network(sparse=True)), sparse, y, batch_size=BATCH)

    class Lengths(layers.Layer):
        def call(self, ragged):
            return tf.reduce_mean(ragged, axis=1)

    words = tf.RaggedTensor.from_row_lengths(
        np.ones((2 * ROWS, 1), "float32"), [1, 3] * (ROWS // 2)
    )
    inputs = keras.Input((None, 1), ragged=True)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(Lengths()(inputs)))
    run(compiled(model, jit_compile=False), words, y, batch_size=BATCH)


def test_frames_after_the_metric_was_warmed_up():
    pandas = pytest.importorskip("pandas")
    x, y = arrays()
    frame, series = pandas.DataFrame(x), pandas.Series(y[:, 0])
    model = compiled(optimizer=kl.QDOPLangevin(num_data=ROWS))
    kl.warm_up_metric(model, frame, series, batch_size=BATCH)
    assert kl.find_learning_rate(model, frame, series, batch_size=BATCH) > 0
    run(model, frame, series, batch_size=BATCH)
    diagnosed = kl.diagnostics.curvature(model, frame, series).largest
    assert diagnosed == pytest.approx(kl.diagnostics.curvature(model, x, y).largest, rel=1e-4)


@pytest.mark.parametrize(
    "num_data, fit",
    [
        (18, {"validation_split": 0.25, "validate": True}),
        (ROWS, {"class_weight": {0: 0.9, 1: 1.1}}),
    ],
)
def test_arguments_of_fit(num_data, fit):
    model = compiled(optimizer=kl.SGLD(num_data=num_data))
    run(model, *arrays(), batch_size=6, **fit)


def test_validation_that_leaves_out_epochs():
    history, _ = run(
        compiled(), *arrays(), validation_data=arrays(), validation_freq=2, validate=True
    )
    assert len(history["val_loss"]) == 1
    assert len(history["val_ensemble_loss"]) == 2  # epochs 2 and 3


def test_tensors_of_the_backend():
    x, y = map(ops.convert_to_tensor, arrays())
    model = compiled()
    run(model, x, y, batch_size=BATCH)
    assert kl.find_learning_rate(model, x, y, batch_size=BATCH) > 0
    assert kl.diagnostics.step_size(model, x, y, BATCH).stability_limit > 0
