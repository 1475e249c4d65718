"""Trains one method of the study once, with a clock running, and collects what it predicts."""

import dataclasses
import functools
import time

import keras
import numpy as np

import keras_langevin as kl
from examples.studies.common.digit_network import network, probabilities

WARM_START_EPOCHS = 3
WARM_START_RATE = 1e-3
METRIC_BATCHES = 40  # that fill a sampler's metric before its first step
NETWORKS = 5  # of the deep ensemble
DROPOUT_PASSES = 50


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What to train on, and what to predict: labelled images, then `x_out`, which are no digits."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    x_out: np.ndarray
    batch_size: int

    @property
    def steps(self):
        """Steps of one epoch."""
        return -(-len(self.x) // self.batch_size)

    @functools.cached_property
    def x_all(self):
        return np.concatenate([self.x_test, self.x_out])


@dataclasses.dataclass
class Run:
    """What came out: class probabilities of `Task.x_all` by predictor, and what it took."""

    predictions: dict
    epochs: int
    seconds: float  # of training, with compilation, without evaluation
    compile_seconds: float  # of these, by how much the first epoch is longer than the others
    seconds_per_step: float  # median of the epochs after the first
    members: np.ndarray | None = None  # (members, examples, classes)
    clipped: float | None = None  # share of steps whose drift was clipped
    curve: list = dataclasses.field(default_factory=list)  # of `Watch`


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch, those of the callbacks before it in the list included; goes on
    from where another clock has stopped."""

    def __init__(self, after=None):
        super().__init__()
        self.epochs = []
        self.seconds_before = 0.0 if after is None else after.seconds
        self.compile_seconds_before = 0.0 if after is None else after.compile_seconds

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(time.perf_counter() - self.start)

    @property
    def seconds(self):
        return self.seconds_before + sum(self.epochs)

    @property
    def compile_seconds(self):
        return self.compile_seconds_before + max(self.epochs[0] - self.median, 0.0)

    @property
    def median(self):
        """Seconds of an epoch that compiles nothing."""
        return float(np.median(self.epochs[1:] or self.epochs))

    def times(self, task):
        """The fields of `Run`."""
        return {
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
            "seconds_per_step": self.median / task.steps,
        }


class Watch(keras.callbacks.Callback):
    """After each epoch: how well the last point predicts, and the mean of all after `burn_in`.

    Belongs after the clock in the list of callbacks, which then leaves out the time this takes.
    """

    def __init__(self, task, clock, first_epoch=1, burn_in=None):
        super().__init__()
        self.task, self.clock = task, clock
        self.first_epoch, self.burn_in = first_epoch, burn_in
        self.records, self.total, self.count = [], 0.0, 0
        self.best, self.best_nll, self.best_epoch = None, np.inf, 0

    def on_epoch_end(self, epoch, logs=None):
        p = probabilities(self.model, self.task.x_test)
        nll = self.record("point", epoch, p)
        if nll < self.best_nll:
            self.best, self.best_nll, self.best_epoch = p, nll, epoch + 1
        if self.burn_in is not None and epoch >= self.burn_in:
            self.total, self.count = self.total + p, self.count + 1
            self.record("ensemble", epoch, self.total / self.count)

    def record(self, predictor, epoch, p):
        if not np.isfinite(p).all():
            return np.inf
        nll = kl.calibration.negative_log_likelihood(p, self.task.y_test)
        accuracy = kl.calibration.accuracy(p, self.task.y_test)
        self.records.append(
            (predictor, self.first_epoch + epoch, nll, accuracy, self.clock.seconds)
        )
        return nll

    @property
    def curve(self):
        """Tuples: predictor, epoch, NLL, accuracy, seconds of training until then, and how many
        of them went into compilation."""
        return [(*record, self.clock.compile_seconds) for record in self.records]


def train(method, settings, task, seed, epochs, stop_at_best=False, watched=False):
    """The `Run` of a method. `stop_at_best` predicts with the point after the best epoch on
    `task.x_test`, which must then be validation data; `watched` records the curve."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    if method.kind == "point" and stop_at_best:
        return train_to_best_epoch(method, settings, task, epochs)
    ways = {
        "point": train_point,
        "dropout": train_dropout,
        "deep ensemble": train_deep_ensemble,
        "chain": train_chain,
    }
    return ways[method.kind](method, settings, task, seed, epochs, watched)


def fit(model, optimizer, task, epochs, callbacks):
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() != "torch",
    )
    if isinstance(optimizer, kl.LangevinOptimizer):
        kl.warm_up_metric(model, task.x, task.y, task.batch_size, num_batches=METRIC_BATCHES)
    return model.fit(task.x, task.y, task.batch_size, epochs, verbose=0, callbacks=callbacks)


def fit_point(optimizer, task, epochs, rate=0.0, watched=True, after=None):
    """A network trained from random weights, its clock and its `Watch` (idle if not watched)."""
    model = network(task.x.shape[1], rate)
    clock = Clock(after)
    watch = Watch(task, clock)
    fit(model, optimizer, task, epochs, [clock, watch] if watched else [clock])
    return model, clock, watch


def train_to_best_epoch(method, settings, task, epochs):
    _, clock, watch = fit_point(method.optimizer(**settings), task, epochs)
    if watch.best is None:
        raise FloatingPointError("No epoch had a finite loss.")
    return Run({"point": watch.best}, watch.best_epoch, **clock.times(task))


def train_point(method, settings, task, seed, epochs, watched):
    model, clock, watch = fit_point(method.optimizer(**settings), task, epochs, watched=watched)
    prediction = probabilities(model, task.x_all)
    return Run({"point": prediction}, epochs, **clock.times(task), curve=watch.curve)


def train_dropout(method, settings, task, seed, epochs, watched):
    """Cosine decay over all epochs; predicts once with scaled weights, once with dropout on."""
    decay = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], epochs * task.steps)
    optimizer = method.optimizer(decay)
    model, clock, watch = fit_point(optimizer, task, epochs, settings["rate"], watched)
    predictions = {
        "weights scaled": probabilities(model, task.x_all),
        f"{DROPOUT_PASSES} passes": probabilities(model, task.x_all, DROPOUT_PASSES),
    }
    return Run(predictions, epochs, **clock.times(task), curve=watch.curve)


def train_deep_ensemble(method, settings, task, seed, epochs, watched):
    """Networks trained one after the other from different random weights; the time is of all."""
    clock, members, curve = None, [], []
    for number in range(NETWORKS):
        keras.utils.set_random_seed(1000 + NETWORKS * seed + number)
        optimizer = method.optimizer(**settings)
        model, clock, _ = fit_point(optimizer, task, epochs, watched=False, after=clock)
        members.append(probabilities(model, task.x_all))
        if watched:
            watch = Watch(task, clock, first_epoch=(number + 1) * epochs)
            watch.record("ensemble", 0, np.mean(members, axis=0)[: len(task.y_test)])
            curve += watch.curve
    members = np.stack(members)
    predictions = {"ensemble": members.mean(axis=0)}
    return Run(predictions, epochs, **clock.times(task), members=members, curve=curve)


def train_chain(method, settings, task, seed, epochs, watched):
    """A warm start, burn-in until a third of all epochs, then one sample per epoch."""
    weights, warm_clock = warm_start(task, seed)
    keras.utils.set_random_seed(seed)
    model = network(task.x.shape[1], 0.0)
    model.set_weights(weights)
    burn_in = max(epochs // 3 - WARM_START_EPOCHS, 0)
    sampler = kl.PosteriorSampler(burn_in=burn_in)
    clock = Clock(after=warm_clock)
    watch = Watch(task, clock, WARM_START_EPOCHS + 1, burn_in)
    callbacks = [sampler, clock, watch] if watched else [sampler, clock]
    optimizer = chain_optimizer(method, settings, model, task)
    history = fit(model, optimizer, task, epochs - WARM_START_EPOCHS, callbacks)
    members = sampler.ensemble().predict_members(task.x_all, len(task.x_all), verbose=0)
    return Run(
        {
            "point": members[-1],  # the last sample is the last point
            "weight mean": mean_network(model, sampler.samples, task.x_all),
            "ensemble": members.mean(axis=0),
        },
        epochs,
        **clock.times(task),
        members=members,
        clipped=history.history.get("drift_clipped", [None])[-1],
        curve=watch.curve,
    )


@functools.cache
def warm_start(task, seed):
    """Weights after a few epochs of Adam, and the clock of that. Every chain of a seed starts
    from them and has this time added to its own; they are computed only once."""
    keras.utils.set_random_seed(seed)
    optimizer = keras.optimizers.Adam(WARM_START_RATE)
    model, clock, _ = fit_point(optimizer, task, WARM_START_EPOCHS, watched=False)
    return model.get_weights(), clock


def chain_optimizer(method, settings, model, task):
    arguments = dict(settings)
    prior = kl.priors.FanInNormal(arguments.pop("prior_scale"))
    if method.is_sampler:
        return method.optimizer(num_data=len(task.x), prior=prior, **arguments)
    add_to_loss(prior, model, len(task.x))
    return method.optimizer(**arguments)


def add_to_loss(prior, model, num_data):
    """A Gaussian prior for an optimizer that knows none: precision / (2 N) ‖θ‖² is added to the
    mean loss."""
    for variable in model.trainable_variables:
        precision = prior.for_variable(variable).precision(tuple(variable.shape))
        variable.regularizer = keras.regularizers.L2(0.5 * precision / num_data)


def mean_network(model, samples, x):
    """What the network with the mean of the sampled weights predicts; changes the model."""
    for variable in model.trainable_variables:
        if variable.path in samples.weights:
            variable.assign(np.mean([sample[variable.path] for sample in samples], axis=0))
    return probabilities(model, x)


def scores(p, task):
    """How good the probabilities of `task.x_all` are, by name."""
    if not np.isfinite(p).all():
        raise FloatingPointError("A predicted probability is not finite.")
    inside, outside = p[: len(task.y_test)], p[len(task.y_test) :]
    results = {
        "accuracy": kl.calibration.accuracy(inside, task.y_test),
        "nll": kl.calibration.negative_log_likelihood(inside, task.y_test),
        "ece": kl.calibration.expected_calibration_error(inside, task.y_test),
    }
    if len(outside):
        entropies = [kl.calibration.predictive_entropy(part) for part in (inside, outside)]
        results["auroc"] = kl.calibration.out_of_distribution_auroc(*entropies)
    return results
