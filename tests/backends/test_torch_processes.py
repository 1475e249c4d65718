"""Two processes of `torch.distributed` sample, in the example's loop, what one does."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from targets.another_process import check_all_end, check_ended
from targets.running import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.torch,
    pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch only"),
]
SAMPLERS = ["SGLD", "QDOPLangevin", "model", "BNPLangevin", "SGHMC", "SMILE"]

SCRIPT = """
import json, sys

import keras
import numpy as np
import torch

import keras_langevin as kl
from examples import several_processes as example
from keras_langevin.storage.common_folder import samples_of_run

rank, folder, names = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
rendezvous = {"init_method": f"file://{folder}/rendezvous", "rank": rank, "world_size": 2}
torch.distributed.init_process_group("gloo", **rendezvous)
generator = np.random.default_rng(0)
X = generator.normal(1.0, 1.0, size=(128, 6)).astype("float32")
Y = generator.normal(size=(128, 2)).astype("float32")


def make_model(optimizer):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile(optimizer, kl.losses.GaussianNLL(1.0))
    return model


def make_optimizer(name, seed=1):
    if name == "model":
        return kl.QDOPLangevin(0.02, num_data=128, seed=seed, fisher="model")
    return getattr(kl, name)(0.01, num_data=128, seed=seed)


def batches(batch_size):
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    share = batch_size // processes
    for first in range(0, len(X), batch_size):
        rows = slice(first + share * rank, first + share * (rank + 1))
        yield torch.tensor(X[rows]), torch.tensor(Y[rows])


def train(model, sampler, epochs, batch_size=32):
    example.sample(model, sampler, lambda epoch: list(batches(batch_size)), epochs)
    return [[w.tolist() for w in sample.values()] for sample in sampler.samples]


def sampled(name):
    # Of a batch of 128 some examples are measured.
    batch_size = 128 if name == "QDOPLangevin" else 32
    sampler = kl.PosteriorSampler(burn_in=1)
    return train(make_model(make_optimizer(name)), sampler, 3, batch_size)


def stored(epochs, name, resume=False, unit="epoch"):
    options = {"burn_in": 1, "directory": f"{folder}/{name}", "unit": unit, "max_samples": 4}
    sampler = kl.PosteriorSampler(**options, resume=resume)
    samples = train(make_model(make_optimizer("QDOPLangevin")), sampler, epochs)
    assert (sampler.samples._shelf._lock is not None) == (rank == 0)
    return samples


def message(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except ValueError as error:
        return str(error)


def with_early_wrapper():
    model, plain = make_model(make_optimizer("QDOPLangevin")), example.DistributedDataParallel
    early = plain(model)
    example.DistributedDataParallel = lambda model: early
    try:
        train(model, kl.PosteriorSampler(burn_in=0), 1)
    finally:
        example.DistributedDataParallel = plain


def with_own_seed():
    train(make_model(make_optimizer("SGLD", seed=rank)), kl.PosteriorSampler(burn_in=0), 1)


def with_fit():
    model = make_model(make_optimizer("SGLD"))
    model.fit(X, Y, verbose=0, callbacks=[kl.PosteriorSampler(burn_in=0)])


found = {
    "two": {name: sampled(name) for name in names},
    "fit": message(with_fit),
    "own seed": message(with_own_seed),
    "early wrapper": message(with_early_wrapper),
    "own folders": message(samples_of_run, f"{folder}/{rank}", False),
    "whole": stored(6, "whole", unit="step"),
    "half": stored(2, "run"),
    "resumed": stored(4, "run", resume=True),
    "not stopped": stored(4, "other"),
    "used": message(kl.PosteriorSampler, 1, directory=f"{folder}/run"),
}
torch.distributed.destroy_process_group()
if rank == 0:
    found["one"] = {name: sampled(name) for name in names}
json.dump(found, open(f"{folder}/found-{rank}", "w"))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    more = {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(folder), *SAMPLERS],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **more},
        )
        for rank in (0, 1)
    ]
    check_all_end(processes)
    return folder, *(json.loads((folder / f"found-{rank}").read_text()) for rank in (0, 1))


def assert_alike(found, expected, **tolerance):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_processes_follow_the_path_of_one(results, sampler):
    _, first, second = results
    assert_alike(second["two"][sampler], first["two"][sampler], rtol=0, atol=0)
    assert_alike(first["two"][sampler], first["one"][sampler], rtol=1e-4, atol=1e-5)


def test_processes_that_would_sample_several_chains_are_refused(results):
    for found in results[1:]:
        assert "`fit` trains the copy of each process" in found["fit"]
        assert "Received: `fit` in one of 2 processes" in found["fit"]
        for name in ("own seed", "early wrapper"):
            assert "weights that differ between 2 processes" in found[name]


def test_one_process_writes_and_all_read(results):
    folder, *both = results
    for name in ("half", "resumed", "not stopped"):
        assert_alike(both[1][name], both[0][name], rtol=0, atol=0)
    assert_alike(both[0]["resumed"], both[0]["not stopped"], rtol=0, atol=0)
    assert len(both[0]["half"]) == 1
    files = {path.name for path in (folder / "run").iterdir()}
    assert {f"sample-00000{i}.npz" for i in range(3)} < files
    assert {"manifest.json", "checkpoint.json", "checkpoint-000004.npz"} < files
    assert both[0]["whole"] == both[1]["whole"]
    assert len(both[0]["whole"]) <= 4


def test_folders_of_their_own_and_used_ones_are_refused(results):
    _, first, second = results
    assert first["own folders"] is None
    assert "`directory` must be one folder that all of them see" in second["own folders"]
    for found in (first, second):
        assert "`directory` must be new or empty" in found["used"]


def test_the_example(tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ran = subprocess.run(
        [sys.executable, *launch, ROOT / "examples" / "several_processes.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    check_ended([ran.returncode], [ran.stderr])
    lines = sorted(line for line in ran.stdout.splitlines() if line.startswith("process"))
    assert [line.split(":")[0] for line in lines] == ["process 0", "process 1"]
    assert lines[0].split(":")[1] == lines[1].split(":")[1]
    words = lines[0].split()
    assert float(words[5]) < 1.0  # 23 independent samples: 0.2 each, of five numbers
    assert 0.8 < float(words[-1]) < 1.3
