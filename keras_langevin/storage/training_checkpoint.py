"""The state of a training run at the end of an epoch."""

from __future__ import annotations

import re
from pathlib import Path

import keras
from keras import ops

from keras_langevin.distribution import one_process_writes
from keras_langevin.keras_internals import JointOptimizer, inner_optimizer
from keras_langevin.storage.array_file import find_damage, read_arrays, write_arrays
from keras_langevin.storage.errors import explain_write_errors
from keras_langevin.storage.json_file import damaged, read_json, write_json
from keras_langevin.storage.random_state import random_state, set_random_state
from keras_langevin.storage.sample_folder import listed

KIND = "TrainingCheckpoint"
FILE = re.compile(r"checkpoint-[0-9]{6,}\.npz")
CONTENT = {
    "file": str,
    "sha256": str,
    "counters": dict,
    "seed": (int, type(None)),
    "model": list,
    "optimizer": list,
    "random_state": list,
}


class TrainingCheckpoint:
    """The state of a model, its optimizer and a few counters, in a folder.

    The arrays are in `checkpoint-000012.npz` (12 epochs); `checkpoint.json` is replaced after
    it and says which file counts. A crash leaves the old state or the new one. All of the
    model's variables are in it (also statistics and the states of layers' random generators) and
    all of the optimizer's, in order, its seed, and the states of the generators that Keras
    shuffles data with.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._path = folder / "checkpoint.json"

    def save(self, model: keras.Model, epochs_seen: int, steps_seen: int) -> None:
        """Replaces what is stored by the present state of `model` and its optimizer. Of several
        processes, all of which make this call, the first writes.

        Raises:
            StorageError: If the disk refuses. The state stored before is kept.
        """
        what = f"The checkpoint of epoch {epochs_seen}"
        kept = "That of an earlier epoch and all samples are kept."
        with one_process_writes() as is_mine:
            if is_mine:
                with explain_write_errors(self._folder, what, lambda: kept):
                    self._save(model, epochs_seen, steps_seen)

    def _save(self, model, epochs_seen, steps_seen):
        content = {
            "counters": {"epochs_seen": epochs_seen, "steps_seen": steps_seen},
            "seed": seed_of(model.optimizer),
        }
        generators = random_state()
        content["random_state"] = [a.dtype.name for a in generators]

        def arrays():
            for part, variables in _parts(model).items():
                rows = content[part] = []
                for variable in variables:
                    array = ops.convert_to_numpy(variable)
                    rows.append([variable.path, list(array.shape), array.dtype.name])
                    yield array
            yield from generators

        file = f"checkpoint-{epochs_seen:06d}.npz"
        content |= {"file": file, "sha256": write_arrays(self._folder / file, arrays())}
        write_json(self._path, KIND, content)
        for other in self._folder.glob("checkpoint-*.npz"):
            if other.name != file:
                other.unlink(missing_ok=True)

    def counters(self, verify: bool = True) -> dict[str, int] | None:
        """`epochs_seen` and `steps_seen` of the stored state, `None` where there is none.

        Args:
            verify: Whether to compare the arrays with their checksum, which reads all of them.

        Raises:
            ValueError: If a file of it is damaged or missing, or a newer version wrote it.
        """
        if not self._path.exists():
            return None
        return (self._read() if verify else read_json(self._path, KIND, CONTENT))["counters"]

    def restore(self, model: keras.Model) -> None:
        """Puts the stored state back into `model` and its optimizer, built if it was not.

        Raises:
            ValueError: As `counters`, or if the model or optimizer has other variables.
        """
        content = self._read()
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        parts = _parts(model)
        for part, variables in parts.items():
            self._check_same(part, variables, content[part])
        variables = [*parts["model"], *parts["optimizer"]]
        dtypes = [dtype for _, _, dtype in content["model"] + content["optimizer"]]
        arrays = read_arrays(self._folder / content["file"], dtypes + content["random_state"])
        for variable, array in zip(variables, arrays, strict=False):
            variable.assign(array)
        set_random_state(arrays[len(variables) :])
        if content["seed"] is not None:
            inner_optimizer(model.optimizer).seed = content["seed"]

    def _read(self):
        content = read_json(self._path, KIND, CONTENT)
        if not FILE.fullmatch(content["file"]):
            raise damaged(self._path, f"its file is {content['file']!r}")
        path = self._folder / content["file"]
        damage = find_damage(path, content["sha256"])
        if damage:
            raise ValueError(
                f"A checkpoint must be as it was written. Received: '{path}', and {damage}. "
                "Restore the file from a backup, or keep the samples (`SampleStore.load` reads "
                "them) and start a new run in another directory."
            )
        return content

    def _check_same(self, part, variables, rows):
        if part == "model":
            mine = [f"{v.path} {tuple(v.shape)}" for v in variables]
            stored = [f"{path} {tuple(shape)}" for path, shape, _ in rows]
        else:  # an optimizer's own name is in these paths, and says nothing
            mine = [f"{v.name} {tuple(v.shape)}" for v in variables]
            stored = [f"{path.split('/')[-1]} {tuple(shape)}" for path, shape, _ in rows]
        if mine == stored:
            return
        words = [f"{name} only in the checkpoint" for name in stored if name not in mine]
        words += [f"{name} only in the {part}" for name in mine if name not in stored]
        raise ValueError(
            f"To resume, the {part} must have the variables of '{self._path}'. Received: "
            f"{listed(words) or 'the same variables in another order'}. Build and compile the "
            "model as in the first run; where only automatic names differ (`dense_1` for "
            "`dense`), call `keras.utils.clear_session()` before building it or name the layers."
        )


def seed_of(optimizer):
    """Of the numbers that a step draws, None for an optimizer that draws none."""
    optimizer = inner_optimizer(optimizer)
    return optimizer.seed if isinstance(optimizer, JointOptimizer) else None


def _parts(model):
    return {"model": model.variables, "optimizer": model.optimizer.variables}
