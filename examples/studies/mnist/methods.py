"""The methods that the study compares, and the space in which the settings of each are searched."""

import dataclasses
import zlib

import keras
import numpy as np

import keras_langevin as kl


@dataclasses.dataclass(frozen=True)
class Between:
    """A setting drawn log-uniformly between two numbers."""

    low: float
    high: float

    def draw(self, generator):
        return float(f"{np.exp(generator.uniform(np.log(self.low), np.log(self.high))):.3g}")

    def __str__(self):
        return f"{self.low:g} to {self.high:g}"


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A setting drawn from a few values, all equally likely."""

    values: tuple

    def draw(self, generator):
        return generator.choice(self.values).item()

    def __str__(self):
        return ", ".join(f"{value:g}" for value in self.values)


PRIOR = {"prior_scale": OneOf((5.0, 10.0, 20.0, 30.0))}  # of kl.priors.FanInNormal
COLD = {"temperature": Between(0.01, 0.3), **PRIOR}
DAMPING = {"damping": OneOf((1.0, 4.0, 8.0))}

# At T = 1 the rates of DOP and QDOP end where minibatch noise is a tenth of the injected noise in
# units of the metric: η N / (2 B T) = 0.1, that is η = 0.2 B / N = 1.67e-3 on MNIST. The rates of
# SGLD and RMSProp are in other units, in which that bound says nothing; they are searched in
# their usual ranges at every temperature, and their minibatch noise is NOT bounded.
SEARCH = {
    "sgd": {"learning_rate": Between(0.03, 1.0)},
    "adam": {"learning_rate": Between(3e-4, 3e-3)},
    "dropout": {"learning_rate": Between(3e-4, 3e-3), "rate": OneOf((0.1, 0.2, 0.3, 0.5))},
    "snapshots": {"learning_rate": Between(1e-3, 1e-2), **PRIOR},
    "sgld-cold": {"learning_rate": Between(0.05, 0.5), **COLD},
    "rmsprop-cold": {"learning_rate": Between(2e-4, 2e-3), **COLD},
    "dop-cold": {"learning_rate": Between(1e-3, 1.2e-2), **COLD, **DAMPING},
    "qdop-cold": {"learning_rate": Between(1e-3, 1.2e-2), **COLD, **DAMPING},
    "sgld-t1": {"learning_rate": Between(0.05, 0.5), **PRIOR},
    "rmsprop-t1": {"learning_rate": Between(2e-4, 2e-3), **PRIOR},
    "dop-t1": {"learning_rate": Between(3e-4, 1.67e-3), **PRIOR, **DAMPING},
    "qdop-t1": {"learning_rate": Between(3e-4, 1.67e-3), **PRIOR, **DAMPING},
}


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to train.

    `kind` says how: `"point"` (stops at its best epoch), `"dropout"`, `"chain"` (one sample an
    epoch, with a sampler or with Adam) or `"deep ensemble"`. `fixed` settings are not searched.
    A method that is not tuned takes the settings chosen for `settings_of`.
    """

    name: str
    label: str
    kind: str
    optimizer: type
    fixed: dict = dataclasses.field(default_factory=dict)
    settings_of: str | None = None

    @property
    def is_tuned(self):
        return self.settings_of is None

    @property
    def source(self):
        """The name of the method whose tuning decides the settings."""
        return self.settings_of or self.name

    @property
    def is_sampler(self):
        return issubclass(self.optimizer, kl.LangevinOptimizer)

    @property
    def has_outer_product_metric(self):
        return issubclass(self.optimizer, (kl.DOPLangevin, kl.QDOPLangevin))

    def draw(self, trial):
        """The settings of a trial: the same ones whatever was drawn before."""
        generator = np.random.default_rng([zlib.crc32(self.name.encode()), trial])
        drawn = {name: space.draw(generator) for name, space in SEARCH[self.name].items()}
        return {**drawn, **self.fixed}


OUTER_PRODUCT = {"drift_clip": 3.0, "statistics_stride": 16}
SAMPLERS = (
    ("sgld", "SGLD", kl.SGLD, {}),
    ("rmsprop", "RMSProp Langevin", kl.RMSPropLangevin, {}),
    ("dop", "DOP", kl.DOPLangevin, OUTER_PRODUCT),
    ("qdop", "QDOP", kl.QDOPLangevin, OUTER_PRODUCT),
)


def chains(suffix, words, fixed, settings_from=None):
    """The four samplers in one form, the fixed settings of which win over those chosen."""
    return [
        Method(
            f"{name}-{suffix}",
            f"{label}, {words}",
            "chain",
            optimizer,
            {**own, **fixed},
            settings_of=settings_from and f"{name}-{settings_from}",
        )
        for name, label, optimizer, own in SAMPLERS
    ]


METHODS = {
    method.name: method
    for method in (
        Method("sgd", "SGD", "point", keras.optimizers.SGD),
        Method("adam", "Adam", "point", keras.optimizers.Adam),
        Method("dropout", "Adam, dropout", "dropout", keras.optimizers.Adam),
        Method(
            *("deep-ensemble", "Deep ensemble of 5", "deep ensemble", keras.optimizers.Adam),
            settings_of="adam",
        ),
        Method("snapshots", "Adam snapshots", "chain", keras.optimizers.Adam),
        *chains("cold", "cold", {}),
        *chains("t1", "T = 1", {"temperature": 1.0}),
        *chains("t0", "T = 0 (control)", {"temperature": 0.0}, settings_from="cold"),
    )
}
