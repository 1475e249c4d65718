"""A long run stays as it began: the study of `examples/benchmarks/soak.py`, shorter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from examples.benchmarks import soak

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.skipif(keras.backend.backend() == "torch", reason="thousands of steps"),
]
ROOT = Path(__file__).parents[2]
MOST_BYTES = 50_000  # per 1000 steps: ten times what the table of contents of the samples takes

SCRIPT = """
import json, sys

import keras
import numpy as np

folder, root, steps, planted = sys.argv[1:]
sys.path.insert(0, root)

from examples.benchmarks import soak


class Leak(keras.callbacks.Callback):
    kept = []

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append(np.ones(250_000))


class Retrace(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch % 4 == 3:
            self.model.make_train_function(force=True)


callbacks = {"leak": [Leak()], "retrace": [Retrace()], "nothing": []}[planted]
results = soak.Results(folder + "/rows.jsonl")
soak.run(folder + "/samples", int(steps), results, every=1, callbacks=callbacks)
rows = results.rows
rate, _ = soak.slope(rows)
print(json.dumps({"rate": rate, "traces": rows[-1]["traces"] - rows[0]["traces"], "rows": rows}))
"""


def soaked(folder, steps, planted="nothing"):
    command = [sys.executable, "-c", SCRIPT, str(folder), str(ROOT), str(steps), planted]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.further
def test_twenty_thousand_steps(tmp_path):
    found = soaked(tmp_path, 20_000)
    assert found["rate"] < MOST_BYTES
    assert found["traces"] == 0
    assert len(found["rows"]) == 19
    assert found["rows"][-1]["samples"] == 76


def test_a_leak_is_seen(tmp_path):
    """2 MB per 1000 steps; much smaller ones fill at first what compiling has left free."""
    found = soaked(tmp_path, 12_000, "leak")
    assert found["rate"] > 2 * MOST_BYTES
    assert found["traces"] == 0


def test_a_compilation_is_seen(tmp_path):
    assert soaked(tmp_path, 12_000, "retrace")["traces"] >= 2


def test_the_slope():
    noise = 1000 * np.random.default_rng(0).normal(size=201)
    rows = [
        {"steps": 1000 * i, "private_bytes": 5e8 + 700 * i + 1e6 * (i < 20) + noise[i]}
        for i in range(1, 201)
    ]
    rate, band = soak.slope(rows)
    assert abs(rate - 700) < 2 * band
    assert 1 < band < 10
