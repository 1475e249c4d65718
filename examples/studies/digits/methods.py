"""The ways to train that the digits example compares, and their tuned settings."""

import dataclasses
import sys
import time

import keras

import keras_langevin as kl
from examples.studies.common.digit_network import network


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimizer and the settings that `tuning.py` chose for it."""

    name: str
    optimizer: type
    learning_rate: float
    temperature: float = 1.0  # of samplers
    dropout: float = 0.0
    epochs: int | None = None  # None: as many as the samplers
    arguments: dict = dataclasses.field(default_factory=dict)  # more of the optimizer's

    @property
    def samples(self):
        """True for a sampler, False for a baseline."""
        return issubclass(self.optimizer, kl.LangevinOptimizer)

    @property
    def noise_is_of_batches(self):
        """True where learning rate and batch size set the temperature."""
        return self.optimizer in (kl.NGD, kl.SNGD)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one data set is trained on: samplers collect one sample an epoch in the second half."""

    batch_size: int
    epochs: int
    prior: kl.priors.Prior
    methods: tuple[Method, ...]

    @property
    def burn_in(self):
        return self.epochs // 2


# Chosen on parts of the training set only, never on the test set.
#
# digits: lowest held-out negative log-likelihood in the three-fold cross-validation of
# `tuning.py`, seed 0. Not the whole grid there: DOP and QDOP were run at five to nine of
# its twelve points (1e-2 only for DOP at temperature 1, where it diverged). RMSProp has 1e-3, not
# the 2e-3 that was better by less than 1 %, because 2e-3 diverged at another temperature. QDOP has
# 2.5e-3, not 3e-3, at which minibatches bring more noise than the temperature asks for. The
# baselines' rates and epochs are of curves over 150 epochs, the prior of four widths on one fold.
# BNPLangevin, NGD and SNGD were tried on one fold: BNP at 0.1 and 0.3 (0.6 diverges); NGD at four
# rates and three dampings, whose rate of 3e-3 samples at T = 0.03 (1e-2 diverges at this damping).
# SNGD has the divergence alone: Jeffreys' prior of 19,000 weights drives them to infinity.
# Every sampler did best at the lowest temperature tried, 0.03: a "cold" posterior, narrower than
# that of Bayes' rule (temperature 1), which predicted worse with all of them.
#
# mnist: of a prototype study that validated on the last 10,000 training images; not retuned here,
# but that DOP's 2e-3 diverges from random weights: 5e-4 leaves a margin (1e-3 ran for 6 epochs).
NATURAL = {"structure": "quasi_diagonal", "damping": 1e-3, "num_examples": 200}
PLANS = {
    "digits": Plan(
        batch_size=50,
        epochs=100,
        prior=kl.priors.FanInNormal(50.0),
        methods=(
            Method("Adam", keras.optimizers.Adam, 1e-2, epochs=13),
            Method("Adam, dropout", keras.optimizers.Adam, 1e-3, dropout=0.5, epochs=89),
            Method("SGLD", kl.SGLD, 0.4, temperature=0.03),
            Method("RMSPropLangevin", kl.RMSPropLangevin, 1e-3, temperature=0.03),
            Method("DOPLangevin", kl.DOPLangevin, 1e-3, temperature=0.03),
            Method("QDOPLangevin", kl.QDOPLangevin, 2.5e-3, temperature=0.03),
            Method("BNPLangevin", kl.BNPLangevin, 0.2, temperature=0.03),
            Method("NGD", kl.NGD, 3e-3, arguments=NATURAL),
            Method(
                "SNGD",
                kl.SNGD,
                3e-3,
                arguments={
                    **NATURAL,
                    "correction": "divergence",
                    "correction_method": "midpoint",
                },
            ),
        ),
    ),
    "mnist": Plan(
        batch_size=500,
        epochs=30,
        prior=kl.priors.FanInNormal(20.0),
        methods=(
            Method("Adam", keras.optimizers.Adam, 1e-3, epochs=16),
            Method("Adam, dropout", keras.optimizers.Adam, 1e-3, dropout=0.2, epochs=30),
            Method("SGLD", kl.SGLD, 0.2, temperature=0.03),
            Method("RMSPropLangevin", kl.RMSPropLangevin, 1e-3, temperature=0.1),
            Method("DOPLangevin", kl.DOPLangevin, 5e-4, temperature=0.1),
            Method("QDOPLangevin", kl.QDOPLangevin, 2e-3, temperature=0.1),
        ),
    ),
}


def train(method, plan, x, y, seed=0, callbacks=()):
    """The trained model, and its `kl.PosteriorSampler` (`None` for a baseline)."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = network(x.shape[1], method.dropout)
    model.compile(
        optimizer=optimizer_of(method, plan, num_data=len(x)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    sampler = None
    if method.samples:
        sampler = kl.PosteriorSampler(burn_in=plan.burn_in, thinning=1)
        callbacks = [sampler, *callbacks]
    epochs = min(method.epochs or plan.epochs, plan.epochs)
    if method.noise_is_of_batches:
        data = {"x": kl.RandomBatches(x, y, plan.batch_size, seed=seed)}
    else:
        data = {"x": x, "y": y, "batch_size": plan.batch_size}
    model.fit(**data, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model, sampler


def optimizer_of(method, plan, num_data):
    if not method.samples:
        return method.optimizer(learning_rate=method.learning_rate)
    noise = {"temperature": method.temperature}
    if method.noise_is_of_batches:
        noise = {"batch_size": plan.batch_size}
    return method.optimizer(
        learning_rate=method.learning_rate,
        num_data=num_data,
        prior=plan.prior,
        **noise,
        **method.arguments,
    )


class LiveLine(keras.callbacks.Callback):
    """One line of output: a counter of epochs while training, the time it took at the end."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.is_terminal = sys.stdout.isatty()

    def on_train_begin(self, logs=None):
        self.start, self.seconds = time.perf_counter(), 0.0
        self.write(0, {})

    def on_epoch_end(self, epoch, logs=None):
        self.write(epoch + 1, logs)

    def on_train_end(self, logs=None):
        self.write(self.params["epochs"], logs, end="\n")

    def write(self, epoch, logs, end=""):
        self.seconds = time.perf_counter() - self.start
        if not self.is_terminal and not end:
            return
        text = f"{self.name:<16} epoch {epoch:>3} of {self.params['epochs']}"
        if "loss" in logs:
            text += f"   training loss {logs['loss']:.4f}"
        if logs.get("num_samples"):
            text += f"   {logs['num_samples']:.0f} samples"
        before = "\r" if self.is_terminal else ""
        print(f"{before}  {text}   {self.seconds:5.1f} s", end=end, flush=True)
