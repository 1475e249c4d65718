"""The callback that collects posterior samples during `fit`."""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path

import keras

from keras_langevin import arguments
from keras_langevin.ensemble import BayesianEnsembleModel
from keras_langevin.keras_internals import (
    adapt_progress_bar,
    dataset_of_fit,
    inner_optimizer,
    keep_weights,
)
from keras_langevin.learning_rate.automatic import AutomaticLearningRate
from keras_langevin.optimizers.snapshots import as_sampler
from keras_langevin.sampling.checks import check_integer
from keras_langevin.sampling.copies import TUNER, empty_copy
from keras_langevin.sampling.data_check import check_data
from keras_langevin.sampling.divergence import DivergenceGuard
from keras_langevin.sampling.followed_chain import FollowedChain
from keras_langevin.sampling.logs import SamplerLogs
from keras_langevin.sampling.phases import explores, num_steps, sample_learning_rate
from keras_langevin.sampling.prepare_model import model_without_weights, prepare_model
from keras_langevin.sampling.processes import check_same_weights, refuse_separate_chains
from keras_langevin.sampling.run_checks import RunChecks
from keras_langevin.sampling.schedule import SamplingSchedule
from keras_langevin.sampling.scheduled_store import ScheduledStore
from keras_langevin.storage.common_folder import samples_of_run
from keras_langevin.storage.sample import Sample
from keras_langevin.storage.sample_folder import is_unused
from keras_langevin.storage.sample_store import SampleStore
from keras_langevin.storage.training_checkpoint import TrainingCheckpoint


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

    A model that is not built is built from the shapes of the first batch, as Keras does. With an
    optimizer whose `learning_rate` is `"auto"` it finds the rate before the first step, from the
    training data, and again after epochs 1, 2, 4, 8 ... of burn-in. Reading them takes nothing from
    what `fit` meets. It warns once, where the data or the logs say so, of weights of the examples
    that are far from 1 on average; of targets far from the scale of the likelihood; of a `num_data`
    that is not the number of examples; of a training loss that stays above that of a constant
    prediction; of drifts that are shortened in more than 5 % of the steps after burn-in.

    At the end of each epoch it adds `num_samples`, `learning_rate`, `temperature`,
    `minibatch_noise` (minibatch over injected noise, where it is known; it warns above 1)
    and the optimizer's own quantities to the logs. Rates and noise are those of the step to come,
    `temperature` that of the posterior, also while a schedule explores. Put it before `CSVLogger`
    and other callbacks that should see them; `History` always does. The progress bar shows of them
    `num_samples` and what is not as it should be: steps that were not finite, drifts shortened in
    more than 1 %, `minibatch_noise` above 1, a kinetic temperature outside its bounds.

    In a training loop of your own put it into a `keras.callbacks.CallbackList`, and call that where
    `fit` would, as `examples/several_processes.py` does for `torch.distributed`.

    A sampler follows one chain. Another `fit` goes on with it where the weights are those that the
    last one ended with; for another model, a fold of other data or a new start make a new sampler.
    A deep copy, of which KerasTuner makes one for each trial, starts empty.

    Args:
        burn_in: Epochs (or steps) before which nothing is stored, >= 0. `None` (the default) burns
            half of the `epochs` of the first `fit`, and says so unless `verbose=0`.
        thinning: Epochs (or steps) from one sample to the next, >= 1.
        unit: `"epoch"` or `"step"`. With `"step"` Keras waits for each batch to finish.
        directory: Folder for the samples (see `SampleStore`), and for a checkpoint of the
            training after every epoch. `None` keeps the samples in memory. Of several processes
            that sample one chain (`keras.distribution.initialize` on JAX, `torch.distributed`)
            each makes its sampler with the same folder; the first writes, the others read.
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
            `resume` is false; if the run in it has another schedule. In `fit`: if the model has
            no weights, or others than those stored, or they do not begin where the last `fit` with
            this sampler ended, or a sampling optimizer is used with a loss that is not a mean
            over the batch, or each of several processes would sample
            a chain of its own.
        FloatingPointError: In `fit`, when the loss of an epoch or a weight to be stored is NaN
            or infinite, or bad steps have brought the loss scale of float16 below 6e-5. What was
            stored before is complete and can be used. In burn-in at `learning_rate="auto"` the
            epoch is undone first, with a warning, and goes on at a tenth of the rate; three times.

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
            check_integer("burn_in", burn_in, 0, "None or ")
            burn_in = int(burn_in)
        check_integer("thinning", thinning, 1)
        check_integer("chain", chain, 0)
        arguments.one_of("unit", unit, ("epoch", "step"))
        if max_samples is not None:
            check_integer("max_samples", max_samples, 2, "None or ")
        if directory is not None:
            arguments.path("directory", directory)
        arguments.boolean("resume", resume)
        if resume and directory is None:
            raise ValueError(
                "`resume=True` must come with the `directory` of the run to continue. "
                "Received: directory=None."
            )
        max_samples = None if max_samples is None else int(max_samples)
        self._given = (SamplingSchedule(burn_in, int(thinning), unit), int(chain), max_samples)
        self._start(directory, resume)
        if unit == "step":
            # A batch hook makes Keras wait for every batch, so there is one only when needed.
            self.on_train_batch_end = self._after_batch

    def _start(self, directory=None, resume=False):
        """The state before any `fit` but that in the directory."""
        self.epochs_seen = 0
        self.steps_seen = 0  # counted with unit="step"
        self._checkpoint = None if directory is None else TrainingCheckpoint(Path(directory))
        self._must_restore = self._is_prepared = False
        resume = resume and not is_unused(Path(directory))
        samples = samples_of_run(directory, resume)
        self._stored = ScheduledStore(samples, *self._given, resume)
        if resume:
            self._restore_counters()
        self._steps_before_epoch = 0
        self._num_skipped = 0
        self._fit_thread = None
        self._guard = self._logs = None  # from `fit` on
        self._automatic = None  # with learning_rate="auto"
        self._epochs_done = 0  # in Keras' count, for what is left of `fit`
        self._followed = FollowedChain()
        self._checks = RunChecks(self)
        self._was_copied = False

    def __deepcopy__(self, memo):
        self._was_copied = True
        return empty_copy(self, memo)

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
        batch_size = batch_size and round(batch_size)
        ensemble.remember_sampled(self.model, batch_size, self._checks.drift_clipped)
        return ensemble

    def set_model(self, model):
        """Checks the model and installs the statistics its optimizer needs. Called by Keras."""
        super().set_model(model)
        self._is_prepared = prepare_model(self.model, self._stored)

    def on_train_begin(self, logs=None):
        self._fit_thread = threading.get_ident()
        refuse_separate_chains(self.model)
        if not (self._is_prepared or prepare_model(self.model, self._stored)):
            raise model_without_weights(self.model)
        self._followed.leave()
        if self.burn_in is None:
            self._choose_burn_in()
        sampler = as_sampler(self.model.optimizer)
        was_restored = self._must_restore
        if was_restored:
            self._checkpoint.restore(self.model)
            self._must_restore = False
        self._guard, self._logs = DivergenceGuard(self), SamplerLogs(self)
        verbose = self.params.get("verbose")
        constant = check_data(self.model, self.params.get("steps"), verbose)
        self._checks.compare_with(constant)
        adapt_progress_bar(self.model, self._phase, self._logs.is_normal)
        sampler.prepare_fit(self.model)
        self._burns_in = not self._has_burned_in()
        if self._burns_in:
            sampler.begin_burn_in(self._steps_of_fit())
        if sampler.has_automatic_learning_rate:
            self._automatic = AutomaticLearningRate(self.model, self._steps_of_fit())
            if was_restored:
                sampler.has_learning_rate = True
            if not sampler.has_learning_rate:
                if verbose:
                    print("PosteriorSampler: measuring the learning rate ...")
                self._automatic.begin()
                self._logs.batch_size = self._automatic.found.batch_size
                if not self._burns_in:
                    self._say_what_was_found()
        self._logs.warn_about_minibatch_noise()
        self._end_burn_in()

    def on_train_end(self, logs=None):
        self._followed.end()

    def on_epoch_begin(self, epoch, logs=None):
        self._steps_before_epoch, self._epochs_done = self.steps_seen, epoch
        keep_weights(self.model)
        self._followed.go_on(self, f"{self._seen()} {self.unit}s" if self._seen() else None)
        self._was_undone = False
        if self._automatic is not None and self._burns_in:
            self._automatic.remember()
        dataset = dataset_of_fit(self.model)
        if hasattr(dataset, "set_epoch"):  # Keras' own count depends on what it built before
            dataset.set_epoch(self.epochs_seen)

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        self._check_finite(logs.get("loss"))
        check_same_weights(self.model)
        self.epochs_seen += 1
        self._epochs_done += 1
        if self.unit == "epoch":
            self._sample_when_due(self.epochs_seen - 1, self.epochs_seen)
            self._end_burn_in()
        if self._automatic is not None and self._burns_in:
            self._automatic.epoch_end(self.epochs_seen)
        quantities = self._logs.quantities()
        self._checks.epoch_end(logs.get("loss"), quantities, self._has_burned_in())
        logs.update(quantities)
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
        self._check_finite()
        before, self.steps_seen = self.steps_seen, self._steps_before_epoch + done
        self._sample_when_due(before, self.steps_seen)
        self._end_burn_in()

    def _check_finite(self, loss=None):
        """Raises where the chain diverged; in burn-in at the rate of "auto" it tries a smaller one
        first."""
        try:
            self._guard.check(None if self._was_undone else loss)  # the mean over what is undone
        except FloatingPointError:
            rate = self._automatic.back_off() if self._automatic and self._burns_in else None
            if rate is None:
                raise
            self._guard, self._was_undone = DivergenceGuard(self), True
            warnings.warn(
                f'The chain diverged in burn-in at learning_rate="auto", {rate:.2g}: the '
                "loss is curved more along its way than where that was measured. It is back "
                "where this epoch began, and goes on at a tenth of that rate.",
                stacklevel=3,
            )

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
        """Tells an optimizer that tunes itself until then, and says what it found."""
        if not self._has_burned_in():
            return
        as_sampler(self.model.optimizer).end_burn_in()
        if not self._burns_in:
            return
        self._burns_in = False
        if self._automatic is not None:
            self._automatic.settle()
        self._say_what_was_found()

    def _say_what_was_found(self):
        found = self._automatic or as_sampler(self.model.optimizer)
        words = found.in_words(self._steps_left())
        if words and self.params.get("verbose"):
            print(f"PosteriorSampler: {words}")

    def _steps_of_fit(self):
        return (self.params.get("epochs") or 0) * (self.params.get("steps") or 0)

    def _steps_left(self):
        done = self.steps_seen - self._steps_before_epoch  # of an epoch that is not over
        return self._steps_of_fit() - self._epochs_done * (self.params.get("steps") or 0) - done

    def _has_burned_in(self):
        return self._seen() >= self.burn_in

    def _phase(self):
        """Of the epoch that begins, in words."""
        if self._has_burned_in():
            return "sampling"
        return f"burn-in, {self.unit} {self._seen() + 1} of {self.burn_in}"

    def _seen(self):
        return self.epochs_seen if self.unit == "epoch" else self.steps_seen

    def _why_empty(self):
        if self._num_skipped:
            return (
                f"Samples were due {self._num_skipped} times, always while the schedule of the "
                "learning rate explored. Train on into its sampling phase, or choose `burn_in` and "
                "`thinning` so that they meet it, as `thinning=1` does."
            )
        if self._was_copied and not self._seen():
            return f"This sampler was deep-copied, and `fit` may have run with a copy. {TUNER}"
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
