"""Two processes of JAX sample in `fit` what one does, into one folder."""

import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from targets.another_process import check_all_end
from targets.running import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX only"),
]

SCRIPT = """
import json, sys

import keras
import numpy as np

rank, processes, port, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if processes > 1:
    keras.distribution.initialize(f"127.0.0.1:{port}", processes, rank)
devices = keras.distribution.list_devices()
assert len(devices) == processes
parallel = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)

import keras_langevin as kl

generator = np.random.default_rng(0)
X = generator.normal(1.0, 1.0, size=(64, 6)).astype("float32")
Y = generator.normal(size=(64, 2)).astype("float32")
BATCH_SIZE = 16 // processes  # of each, as Keras wants it
ROWS = np.arange(64).reshape(-1, processes, BATCH_SIZE)[:, rank].ravel()


def train(epochs, parallel=parallel, **options):
    keras.utils.clear_session()
    keras.distribution.set_distribution(parallel)
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile(kl.QDOPLangevin(0.02, num_data=64, seed=1), kl.losses.GaussianNLL(1.0))
    sampler = kl.PosteriorSampler(burn_in=1, **options)
    data = {"x": X[ROWS], "y": Y[ROWS], "batch_size": BATCH_SIZE, "shuffle": False, "verbose": 0}
    begin = sampler.epochs_seen
    model.fit(**data, epochs=epochs, initial_epoch=begin, callbacks=[sampler])
    return sampler


def arrays(sampler):
    return [[w.tolist() for w in sample.values()] for sample in sampler.samples]


def message(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except ValueError as error:
        return str(error)


found = {"whole": arrays(train(4))}
if processes > 1:
    found["apart"] = message(train, 1, parallel=None)
    run = {"directory": f"{folder}/run", "resume": True}
    found["half"] = arrays(train(2, **run))
    sampler = train(4, **run)
    found["resumed"] = arrays(sampler)
    found["has_lock"] = sampler.samples._shelf._lock is not None
    keras.distribution.set_distribution(None)  # each process predicts by itself
    found["predictions"] = sampler.ensemble().predict(X, verbose=0).tolist()
json.dump(found, open(f"{folder}/found-{rank}-of-{processes}", "w"))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path}
    environment.pop("XLA_FLAGS", None)
    names = ((0, 2), (1, 2), (0, 1))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(count), port, str(folder)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank, count in names
    ]
    check_all_end(processes)
    files = (folder / f"found-{rank}-of-{count}" for rank, count in names)
    return folder, *(json.loads(file.read_text()) for file in files)


def assert_alike(found, expected, **tolerance):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, **tolerance)


def test_two_processes_follow_the_path_of_one(results):
    _, first, second, alone = results
    assert_alike(first["whole"], second["whole"], rtol=0, atol=0)
    assert_alike(first["whole"], alone["whole"], rtol=1e-4, atol=1e-5)


def test_one_process_writes_and_all_read(results):
    folder, first, second, _ = results
    assert (first["has_lock"], second["has_lock"]) == (True, False)
    for found in (first, second):
        assert len(found["half"]) == 1
        assert_alike(found["resumed"], first["whole"], rtol=1e-6, atol=1e-7)
    files = {path.name for path in (folder / "run").iterdir()}
    assert {f"sample-00000{i}.npz" for i in range(3)} | {"checkpoint-000004.npz"} < files


def test_processes_that_would_sample_several_chains_are_refused(results):
    for found in results[1:3]:
        assert "Received: one of 2 processes, and no distribution" in found["apart"]


def test_each_process_predicts_by_itself(results):
    _, first, second, _ = results
    np.testing.assert_array_equal(first["predictions"], second["predictions"])
    assert np.isfinite(first["predictions"]).all()
