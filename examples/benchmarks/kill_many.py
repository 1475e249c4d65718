"""Kills training at random moments, hundreds of times; nothing stored may be lost or altered.

    KERAS_BACKEND=jax python -m examples.benchmarks.kill_many --kills 200 --folder DIR

Every round has a folder of its own and a sampler drawn at random. The moment of a kill is uniform
over a process's life, imports included. After its kills a round trains on to its end and is
compared, bit for bit, with one that was never killed. Rows go to the results file, from which a
stopped study goes on. `tests/contract/test_exact_resume.py` does a few such kills.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


class WithoutTensorFlow:
    """Keras imports it on every backend where there is one: half of the start-up."""

    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            raise ModuleNotFoundError(name)


if os.environ.get("KERAS_BACKEND") == "jax":
    sys.meta_path.insert(0, WithoutTensorFlow())

sys.path.append(str(Path(__file__).parents[2] / "tests"))

import keras  # noqa: E402
from targets import resume_run  # noqa: E402

import keras_langevin as kl  # noqa: E402
from examples.studies.common.results import Results  # noqa: E402
from keras_langevin.storage.array_file import TEMPORARY  # noqa: E402
from keras_langevin.storage.training_checkpoint import TrainingCheckpoint  # noqa: E402

MODULE = "examples.benchmarks.kill_many"
SAMPLERS = ("SGLD", "QDOPLangevin", "SGHMC", "SMILE")
STAGES = ("importing", "loading", "training")
ENDLESS, LAST_EPOCHS, THINNING = 10**6, 20, 10
LIFE = 2.5  # in start-ups, of which the first is the start-up itself


def play_round(results, folder, number, kills):
    name = SAMPLERS[np.random.default_rng((1, number)).integers(len(SAMPLERS))]
    startup = seconds_to_start(folder / "started", name)
    for kill in range(kills):
        row = {"round": number, "kill": kill, "sampler": name}
        generator = np.random.default_rng((number, kill))
        results.run(kill_once, folder / "killed", name, generator, LIFE * startup, **row)
    results.run(compare, folder, name, round=number, sampler=name, kind="comparison")


def seconds_to_start(folder, name):
    start = time.perf_counter()
    with started(folder, ENDLESS, name, seed=0) as process:
        for _ in range(len(STAGES) - 1):
            process.stdout.readline()
        seconds = time.perf_counter() - start
        process.kill()
    return seconds


def kill_once(folder, name, generator, life):
    """What was stored before and after, and where the kill fell."""
    before = stored(folder)
    delay, other_seed = generator.uniform(0, life), generator.integers(1, 1000)
    # Once there is a checkpoint the seed must not matter.
    seed = other_seed if epochs_of(folder) else 0
    with started(folder, ENDLESS, name, seed) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        stage = STAGES[len(process.stdout.readlines())]
    assert process.returncode == -signal.SIGKILL
    was_writing = any(folder.glob("*" + TEMPORARY))
    after = stored(folder)
    return {
        "seconds": delay,
        "stage": stage,
        "temporary_file": was_writing,
        "samples_before": len(before),
        "samples_after": len(after),
        "lost": sum(facts not in after for facts in before),
        "epochs_after": epochs_of(folder),
    }


def stored(folder):
    """The facts of the samples; loading compares every file with its checksum."""
    return kl.SampleStore.load(folder).facts if (folder / "manifest.json").exists() else []


def epochs_of(folder):
    return (TrainingCheckpoint(folder).counters() or {"epochs_seen": 0})["epochs_seen"]


def compare(folder, name):
    """The killed run and one that was not, after the same number of epochs."""
    epochs = epochs_of(folder / "killed") + LAST_EPOCHS
    for part in ("killed", "whole"):
        with started(folder / part, epochs, name, seed=0) as process:
            process.communicate()
        assert process.returncode == 0
    killed, whole = (kl.SampleStore.load(folder / part) for part in ("killed", "whole"))
    return {"epochs": epochs, "samples": len(whole), "equal": is_same(killed, whole)}


def is_same(one, other):
    return one.facts == other.facts and all(
        list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def started(folder, epochs, name, seed):
    command = [sys.executable, "-m", MODULE, "--train", str(folder), str(epochs), name, str(seed)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    )


def train(folder, epochs, name, seed):
    """In a process of its own; says when it begins to load and when an epoch is over."""
    print("loading", flush=True)
    keras.utils.set_random_seed(int(seed))
    ready = resume_run.Ready()
    resume_run.run(folder, int(epochs), name, callbacks=[ready], thinning=THINNING)


def summary(rows):
    kills = [row for row in rows if "kill" in row]
    rounds = [row for row in rows if row.get("kind") == "comparison"]
    stages = {stage: sum(row["stage"] == stage for row in kills) for stage in STAGES}
    return {
        "kills": len(kills),
        **stages,
        "temporary_file": sum(row["temporary_file"] for row in kills),
        "lost": sum(row["lost"] for row in kills),
        "rounds": len(rounds),
        "equal": sum(row["equal"] for row in rounds),
        "samples": sum(row["samples"] for row in rounds),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--per-round", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="of the runs, kept until the study is done")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--train", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(*arguments.train)
        return
    if arguments.folder is None:
        parser.error("--folder is required")
    results = Results(arguments.results)
    for number in range(-(-arguments.kills // arguments.per_round)):
        kills = min(arguments.per_round, arguments.kills - number * arguments.per_round)
        play_round(results, arguments.folder / f"round-{number:02d}", number, kills)
    print(summary(results.rows))


if __name__ == "__main__":
    main()
