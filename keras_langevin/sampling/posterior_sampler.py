"""The callback that collects posterior samples during `fit`."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import keras
import numpy as np

from keras_langevin import arguments
from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.keras_internals import (
    dataset_of_fit,
    inner_optimizer,
)
from keras_langevin.learning_rate.automatic import AutomaticLearningRate
from keras_langevin.optimizers.snapshots import as_sampler
from keras_langevin.sampling.divergence import DivergenceGuard
from keras_langevin.sampling.logs import SamplerLogs
from keras_langevin.sampling.phases import explores, num_steps, sample_learning_rate
from keras_langevin.sampling.schedule import SamplingSchedule
from keras_langevin.sampling.scheduled_store import ScheduledStore
from keras_langevin.statistics import track_statistics
from keras_langevin.storage.sample import Sample
from keras_langevin.storage.sample_folder import is_unused
from keras_langevin.storage.sample_store import SampleStore
from keras_langevin.storage.training_checkpoint import TrainingCheckpoint
from keras_langevin.weights import named_weights


class PosteriorSampler(keras.callbacks.Callback):
    """Stores posterior samples of a model's weights while `fit` trains it.

    With `unit="epoch"` a sample is stored at the end of epoch e when `e > burn_in` and
    `(e - burn_in) % thinning == 0`; e counts the epochs this sampler has seen, from 1 and on
    through several calls of `fit`. With `unit="step"` the same holds for training batches;
    when a batch is due within an execution of several (`steps_per_execution`), the sample is
    drawn at the execution's end.

    Where the optimizer needs per-example statistics and the model does not measure them, the
    sampler installs them (`keras_langevin.track_statistics`). With an optimizer that samples
    nothing, such as Adam, it stores plain snapshots, whose `temperature` is `None`.

    With a schedule of the learning rate that explores and samples in turns, such as
    `keras_langevin.schedules.CyclicalCosine`, it stores only in the sampling phase: where the last
    step before the sample explored, a position that is due is skipped, not shifted. The
    `learning_rate` of such a sample is that of its last step.

    With an optimizer whose `learning_rate` is `"auto"` it finds the rate before the first step,
    from the training data, and again after epochs 1, 2, 4, 8 ... of burn-in.

    At the end of each epoch it adds `num_samples`, `learning_rate`, `temperature`,
    `minibatch_noise` (minibatch over injected noise, where it is known; it warns above 1)
    and the optimizer's own quantities to the logs. Rates and noise are those of the step to come,
    `temperature` that of the posterior, also while a schedule explores. Put it before `CSVLogger`
    and other callbacks that should see them; the progress bar and `History` always do.

    Args:
        burn_in: Epochs (or steps) before which nothing is stored, >= 0. `None` (the default) burns
            half of the `epochs` of the first `fit`, and says so unless `verbose=0`.
        thinning: Epochs (or steps) from one sample to the next, >= 1.
        unit: `"epoch"` or `"step"`. With `"step"` Keras waits for each batch to finish.
        directory: Folder for the samples (see `SampleStore`), and for a checkpoint of the
            training after every epoch. `None` keeps the samples in memory.
        max_samples: Most samples to keep, >= 2. When there would be more, every other one is
            dropped and the thinning doubled: those kept are exactly the ones that the
            doubled thinning would have stored. `None` keeps all.
        resume: Continue the run stored in `directory`. The counters are restored at once
            (`epochs_seen`), weights and optimizer when `fit` begins, both as of the last epoch
            that was completed; the learning rate and the seed of the noise are among them. An
            epoch that was interrupted is run once more; a position of the schedule that is
            stored already is not stored a second time. An empty `directory` starts a new run, so
            that one program can be started again and again. See below for the order of the data.
        chain: Number of this chain, written into the samples, >= 0.

    Raises:
        ValueError: If an argument is not what is said above; if `directory` holds a run and
            `resume` is false; if the run in it has another schedule. In `fit`: if the model is
            not built, its weights differ from those stored, or a sampling optimizer is used
            with a loss that is not a mean over the batch.
        FloatingPointError: In `fit`, when the loss of an epoch or a weight to be stored is NaN
            or infinite, or bad steps have brought the loss scale of float16 below 6e-5. What was
            stored before is complete and can be used.

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer=kl.SGLD(learning_rate=1e-3, num_data=100), loss="mse")
    sampler = kl.PosteriorSampler(burn_in=2, thinning=1)
    x, y = np.random.normal(size=(100, 4)), np.random.normal(size=(100, 1))
    model.fit(x, y, epochs=12, callbacks=[sampler], verbose=0)
    len(sampler.samples)  # 10
    ensemble = sampler.ensemble()
    ```

    A run that continues after an interruption, with the samples, bit for bit, of one that was not
    interrupted, when the data come in the same order. That is so for `shuffle=False`, for
    `kl.RandomBatches` and other datasets that are functions of the epoch
    (`set_epoch(epochs_seen)` is called before every epoch where there is one) and, but on
    TensorFlow, for shuffled arrays: the states of Python's, NumPy's and torch's generators are
    stored with the epoch. The backend must be deterministic (on GPUs
    `keras.utils.set_random_seed` and `tf.config.experimental.enable_op_determinism`).

    ```python
    sampler = kl.PosteriorSampler(burn_in=2, directory="run", resume=True)
    model.fit(x, y, epochs=12, initial_epoch=sampler.epochs_seen, callbacks=[sampler])
    ```
    """

    def __init__(
        self,
        burn_in: int | None = None,
        thinning: int = 1,
        unit: str = "epoch",
        directory: str | os.PathLike | None = None,
        max_samples: int | None = None,
        resume: bool = False,
        *,
        chain: int = 0,
    ):
        super().__init__()
        if burn_in is not None:
            _check_integer("burn_in", burn_in, 0, "None or ")
            burn_in = int(burn_in)
        _check_integer("thinning", thinning, 1)
        _check_integer("chain", chain, 0)
        arguments.one_of("unit", unit, ("epoch", "step"))
        if max_samples is not None:
            _check_integer("max_samples", max_samples, 2, "None or ")
        if directory is not None:
            arguments.path("directory", directory)
        arguments.boolean("resume", resume)
        if resume and directory is None:
            raise ValueError(
                "`resume=True` must come with the `directory` of the run to continue. "
                "Received: directory=None."
            )
        self.epochs_seen = 0
        self.steps_seen = 0  # counted with unit="step"
        self._checkpoint = None if directory is None else TrainingCheckpoint(Path(directory))
        self._must_restore = False
        resume = resume and not is_unused(Path(directory))
        self._stored = ScheduledStore(
            SampleStore.load(directory) if resume else SampleStore(directory),
            SamplingSchedule(burn_in, int(thinning), unit),
            int(chain),
            None if max_samples is None else int(max_samples),
            resume,
        )
        if resume:
            self._restore_counters()
        self._steps_before_epoch = 0
        self._num_skipped = 0
        self._fit_thread = None
        self._guard = self._logs = None  # from `fit` on
        self._automatic = None  # with learning_rate="auto"
        if unit == "step":
            # A batch hook makes Keras wait for every batch, so there is one only when needed.
            self.on_train_batch_end = self._after_batch

    @property
    def samples(self) -> SampleStore:
        """The `SampleStore` with what was sampled so far."""
        return self._stored.samples

    @property
    def burn_in(self) -> int | None:
        """Epochs or steps before which nothing is stored; `None` until the first `fit` where it was
        left out."""
        return self._stored.schedule.burn_in

    @property
    def thinning(self) -> int:
        """Epochs or steps from one sample to the next; doubled when `max_samples` is full."""
        return self._stored.schedule.spacing

    @property
    def unit(self) -> str:
        """`"epoch"` or `"step"`."""
        return self._stored.schedule.unit

    @property
    def chain(self) -> int:
        """The number of this chain, as in its samples."""
        return self._stored.chain

    @property
    def max_samples(self) -> int | None:
        """Most samples that are kept; `None` for all."""
        return self._stored.max_samples

    def ensemble(self, **kwargs):
        """The samples as one Keras model, a `BayesianEnsembleModel`.

        Args:
            **kwargs: Passed on to `BayesianEnsembleModel`.

        Raises:
            ValueError: If nothing has been sampled yet, or `fit` has not run.
        """
        if not len(self.samples):
            raise ValueError(
                f"An ensemble must have at least one sample. Received: {self._seen()} {self.unit}s "
                f"seen, burn_in={self.burn_in}, thinning={self.thinning}. {self._why_empty()}"
            )
        if self.model is None:
            raise ValueError(
                "`ensemble()` must come after `fit` with this sampler, which shows it the model. "
                "Received: no model yet. To use stored samples alone call "
                "`BayesianEnsembleModel(model, sampler.samples)`."
            )
        ensemble = BayesianEnsembleModel(self.model, self.samples, **kwargs)
        batch_size = self._logs and self._logs.batch_size
        ensemble.remember_sampled(self.model, batch_size and round(batch_size))
        return ensemble

    def set_model(self, model):
        """Checks the model and installs the statistics its optimizer needs. Called by Keras."""
        super().set_model(model)
        model, optimizer = self.model, self._optimizer()
        if optimizer is None:  # `predict` with a model that is not compiled
            return
        if not model.built or not named_weights(model):
            raise ValueError(
                "`PosteriorSampler` must have a model that is built before `fit`. "
                f"Received: model '{model.name}', which is not. Begin a Sequential with "
                "`keras.Input(...)`, or call `model.build(...)` or the model on a batch first."
            )
        if as_sampler(optimizer).num_data is not None:
            _check_mean_loss(model)
        self._stored.check_model(model, optimizer)
        track_statistics(model, model.optimizer)

    def on_train_begin(self, logs=None):
        self._fit_thread = threading.get_ident()
        if self.burn_in is None:
            self._choose_burn_in()
        sampler = as_sampler(self.model.optimizer)
        was_restored = self._must_restore
        if was_restored:
            self._checkpoint.restore(self.model)
            self._must_restore = False
        self._guard, self._logs = DivergenceGuard(self), SamplerLogs(self)
        sampler.prepare_fit(self.model)
        if sampler.has_automatic_learning_rate:
            steps_of_fit = (self.params.get("epochs") or 0) * (self.params.get("steps") or 0)
            self._automatic = AutomaticLearningRate(self.model, steps_of_fit)
            if was_restored:
                sampler.has_learning_rate = True
            if not sampler.has_learning_rate:
                self._automatic.begin()
        self._logs.warn_about_minibatch_noise()
        self._end_burn_in()

    def on_epoch_begin(self, epoch, logs=None):
        self._steps_before_epoch = self.steps_seen
        dataset = dataset_of_fit(self.model)
        if hasattr(dataset, "set_epoch"):  # Keras' own count depends on what it built before
            dataset.set_epoch(self.epochs_seen)

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        self._guard.check(logs.get("loss"))
        self.epochs_seen += 1
        if self.unit == "epoch":
            self._sample_when_due(self.epochs_seen - 1, self.epochs_seen)
            self._end_burn_in()
        if self._automatic is not None and self._is_burning_in():
            self._automatic.epoch_end(self.epochs_seen)
        logs.update(self._logs.quantities())
        if self._checkpoint is not None:
            self._guard.finite_weights()  # or raises: the last good state stays
            self._checkpoint.save(self.model, self.epochs_seen, self.steps_seen)

    def _after_batch(self, batch, logs=None):
        if threading.get_ident() != self._fit_thread:
            # Keras looks for batch hooks only in a list, and else calls them from a thread at
            # any later time, when the weights are those of another step.
            raise ValueError(
                '`callbacks` must be a list when a `PosteriorSampler` has unit="step". '
                "Received: callbacks=sampler. Use `fit(..., callbacks=[sampler])`."
            )
        done = batch + 1  # the last execution of an epoch may be shorter than the others
        if self.params and self.params.get("steps"):
            done = min(done, self.params["steps"])
        self._guard.check()
        before, self.steps_seen = self.steps_seen, self._steps_before_epoch + done
        self._sample_when_due(before, self.steps_seen)
        self._end_burn_in()

    def _sample_when_due(self, after, until):
        position = self._stored.due_within(after, until)
        if position is None:
            return
        if explores(self._optimizer()):
            self._num_skipped += 1
            return
        self._stored.append(self._draw(position))  # drawn before any other is dropped for it

    def _choose_burn_in(self):
        """Half of what `fit` will run."""
        epochs, steps = self.params.get("epochs"), self.params.get("steps")
        total = epochs if self.unit == "epoch" else epochs and steps and epochs * steps
        if not total:
            raise ValueError(
                f"`burn_in` must be given where `fit` does not know how many {self.unit}s it will "
                "run. Received: burn_in=None. Pass `burn_in` to `PosteriorSampler`."
            )
        self._stored.set_burn_in(total // 2)
        if self.params.get("verbose"):
            print(
                f"PosteriorSampler: burn_in={self.burn_in}, half of {total} {self.unit}s; samples "
                "are stored from then on."
            )

    def _end_burn_in(self):
        """Tells an optimizer that tunes itself until then."""
        if self._seen() >= self.burn_in:
            as_sampler(self.model.optimizer).end_burn_in()

    def _is_burning_in(self):
        return self._seen() <= self.burn_in

    def _seen(self):
        return self.epochs_seen if self.unit == "epoch" else self.steps_seen

    def _why_empty(self):
        if self._num_skipped:
            return (
                f"Samples were due {self._num_skipped} times, always while the schedule of the "
                "learning rate explored. Train on into its sampling phase, or choose `burn_in` and "
                "`thinning` so that they meet it, as `thinning=1` does."
            )
        if self.burn_in is None:
            return "Train in `fit` with this sampler among `callbacks` first."
        return (
            f"The first sample is due at {self.unit} {self.burn_in + self.thinning}: train longer "
            "in `fit` with this sampler among `callbacks`, or lower `burn_in` or `thinning`."
        )

    def _draw(self, position):
        optimizer = self._optimizer()
        return Sample(
            self._guard.finite_weights(),
            step=num_steps(optimizer),
            learning_rate=sample_learning_rate(optimizer),
            temperature=as_sampler(optimizer).temperature,
            chain=self.chain,
            position=position,
            copy=False,
        )

    def _optimizer(self):
        return inner_optimizer(getattr(self.model, "optimizer", None))

    def _restore_counters(self):
        counters = self._checkpoint.counters()
        if counters is not None:
            self.epochs_seen = counters["epochs_seen"]
            self.steps_seen = counters["steps_seen"]
            self._must_restore = True


def checked_sampler(sampler):
    """Of a callback that stands beside a `PosteriorSampler`."""
    if isinstance(sampler, PosteriorSampler):
        return sampler
    raise ValueError(
        "`sampler` must be the `kl.PosteriorSampler` of the same `fit`. Received: "
        f"sampler={arguments.shorten(sampler)}."
    )


def _check_integer(argument, value, least, also=""):
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < least:
        raise ValueError(
            f"`{argument}` must be {also}an integer >= {least}. Received: {argument}="
            f"{arguments.shorten(value)}."
        )


def _check_mean_loss(model):
    means = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
    for loss in keras.tree.flatten(model.loss):
        if isinstance(loss, keras.losses.Loss) and loss.reduction not in means:
            raise ValueError(
                "A sampling optimizer must have a loss that is the MEAN over the batch: its "
                "`learning_rate` multiplies the gradient of the mean loss, and `num_data` makes "
                f"that the posterior's. Received: reduction={loss.reduction!r} in loss "
                f"'{loss.name}'. Construct the loss with reduction='sum_over_batch_size'."
            )
