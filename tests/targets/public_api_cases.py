"""Everything public, each with valid arguments: what `tests/fuzz/` runs for all.
A new name of an `__all__` adds a row here."""

import dataclasses
import functools
import operator
import types
from collections.abc import Callable
from pathlib import Path
from types import NoneType

import keras
import numpy as np
from targets.public_api_samplers import (
    AVERAGE,
    FISHER,
    INPUTS,
    KERAS,
    OUTER_PRODUCT,
    SAMPLERS,
    TARGET,
)

import keras_langevin as kl

N = 8  # examples


@dataclasses.dataclass(frozen=True)
class Call:
    """A public callable.

    Attributes:
        valid: Makes new valid arguments, by name.
        find: Makes the callable; by default what the name of the row names.
        errors: Other than `ValueError`, that are documented.
        takes: For an argument, types that it takes beside that of the valid one; `str` for
            arrays of strings.
        left_to_keras: Arguments that Keras checks.
        is_heavy: Whether a call with valid arguments takes long.
        needs_tensorflow: Refused on the other backends.
    """

    valid: Callable[[], dict]
    find: Callable | None = None
    errors: tuple = ()
    takes: dict = dataclasses.field(default_factory=dict)
    left_to_keras: tuple = ()
    is_heavy: bool = False
    needs_tensorflow: bool = False

    def function(self, name):
        return self.find() if self.find else operator.attrgetter(name)(kl)


# ------------------------------------------------------------------------- what is passed


def probabilities():
    p = np.random.default_rng(0).dirichlet((1.0, 1.0, 1.0), N)
    return {"probabilities": p}


def predictions():
    return {**probabilities(), "labels": np.arange(N) % 3}


def gaussians():
    y = np.linspace(-1, 1, N)
    return {"mean": np.stack([y + 0.1, y]), "stddev": 0.5, "y": y}


def scores():
    return {"score_in": np.linspace(0, 1, N), "score_out": np.linspace(0.5, 2, N)}


def confidences():
    return {"confidence": np.linspace(0, 1, N), "is_right": np.arange(N) % 2}


def draws(*shape):
    return np.random.default_rng(0).normal(size=shape)


def data():
    x = draws(N, 2).astype("float32")
    return {"x": x, "y": x[:, :1] - x[:, 1:], "sample_weight": np.ones(N, "float32")}


@functools.cache
def network(sampler=kl.SGLD):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(sampler(0.01, num_data=N), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def normalizing_network():
    norm, out = keras.layers.BatchNormalization(), keras.layers.Dense(1)
    return keras.Sequential([keras.Input((2,)), norm, out])


@functools.cache
def optimizer_with_momenta():
    optimizer = kl.SGHMC(0.01, num_data=N)
    optimizer.build([keras.Variable(np.ones(3, "float32"), name="weight")])
    return optimizer


def weights(count):
    return [[draws(2, 1) + i, np.zeros(1)] for i in range(count)]


@functools.cache
def ensemble():
    return kl.BayesianEnsembleModel(network(), weights(4))


@functools.cache
def sampled():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(kl.SGLD(0.01, num_data=N), "mse")
    sampler = kl.PosteriorSampler(burn_in=0)
    model.fit(*list(data().values())[:2], N, 2, verbose=0, callbacks=[sampler])
    return sampler


def sample():
    return kl.Sample({"kernel": np.ones((2, 2))}, step=1)


def store(count=3):
    store = kl.SampleStore()
    for _ in range(count):
        store.append(sample())
    return store


def folder_with_samples():
    """In the working directory."""
    if not Path("samples").exists():
        kl.SampleStore("samples").append(sample())
    return "samples"


def curve():
    return kl.diagnostics.running_log_predictive_density(-np.abs(draws(5, N)))


def uncertainty():
    x = np.linspace(0, 1, N)
    rows = {"mean": x[:, None], "epistemic": x[:, None], "quantiles": np.stack([x - 1, x, x + 1])}
    return {"x": x, "uncertainty": rows, "data": (x, x), "quantiles": (0.05, 0.5, 0.95)}


def axes():
    from matplotlib.figure import Figure

    return Figure().add_subplot()


def distribution():
    import tensorflow_probability as tfp

    return tfp.distributions.Cauchy(0.0, 1.0)


def kernel():
    return keras.Variable(np.ones((2, 1), "float32"), name="kernel")


class OwnLayer(keras.layers.Layer):
    pass


class OwnSampler(kl.Sampler):
    """The least that a sampler of somebody else's must say."""

    def advance(self, values, gradients, statistics, metric, learning_rate):
        return [θ - learning_rate * g for θ, g in zip(values, gradients, strict=True)], []


class OwnLoss(keras.losses.Loss):
    pass


# --------------------------------------------------------------------------- the functions


def at(function, **arguments):
    """The same with more valid arguments."""
    return lambda: {**function(), **arguments}


def fixed(**arguments):
    return lambda: dict(arguments)


def on_network(**arguments):
    return lambda: {"model": network(), **data(), **arguments}


NUMBER_OR_MSE = {"noise_stddev": (int, float)}
OF_SAMPLERS = {**NUMBER_OR_MSE, "tuner": (NoneType,)}
NO_NAME = {"name": (NoneType,)}
METRIC = {"name": "metric", "dtype": "float32"}
FIGURE = {"label": "a model", "color": "tab:blue"}
DISK = (OSError, kl.WriteConflictError)
DIVERGED = (FloatingPointError,)

CALLS = {
    # samplers, callbacks, ensembles
    **{name: Call(fixed(**row), takes=OF_SAMPLERS) for name, row in SAMPLERS.items()},
    "Sampler": Call(
        fixed(**TARGET, **KERAS, preconditioner=None), find=lambda: OwnSampler, takes=OF_SAMPLERS
    ),
    "PosteriorSampler": Call(
        fixed(
            burn_in=1,
            thinning=1,
            unit="epoch",
            directory=None,
            max_samples=4,
            resume=False,
            chain=0,
        ),
        errors=DISK,
    ),
    "SamplingMonitor": Call(lambda: {"sampler": kl.PosteriorSampler(1), "every": 1}),
    "EnsembleValidation": Call(
        lambda: {
            "sampler": kl.PosteriorSampler(1),
            "validation_data": (data()["x"], data()["y"]),
            "batch_size": 4,
        }
    ),
    "StopWhenEnough": Call(
        lambda: {
            "sampler": kl.PosteriorSampler(1),
            "validation_data": (data()["x"], data()["y"]),
            "min_gain": 0.1,
            "alpha": 0.1,
            "max_r_hat": 1.1,
            "min_effective_samples": 10.0,
            "num_examples": 50,
            "batch_size": 4,
            "together": kl.StopTogether(),
        },
        takes={"max_r_hat": (NoneType,)},
    ),
    "StopTogether": Call(dict),
    "RandomBatches": Call(
        at(data, batch_size=4, batches_per_epoch=2, seed=0),
        takes=dict.fromkeys(("x", "y", "sample_weight"), (str,)),
    ),
    "RandomBatches.set_epoch": Call(
        fixed(epoch=1), find=lambda: kl.RandomBatches(data()["x"], batch_size=4).set_epoch
    ),
    "BayesianEnsembleModel": Call(
        lambda: {
            "model": network(),
            "samples": weights(3),
            "output": "mean",
            "noise_stddev": "mse",
            "member_batch_size": 1,
            "chains": np.array([0, 0, 1]),
            "name": "ensemble",
            "trainable": True,
            "dtype": "float32",
        },
        takes=NUMBER_OR_MSE,
    ),
    "BayesianEnsembleModel.split_chains": Call(
        lambda: {"members": draws(4, 3)}, find=lambda: ensemble().split_chains
    ),
    "BayesianEnsembleModel.predict_uncertainty": Call(
        lambda: {"quantiles": (0.1, 0.9)},
        find=lambda: functools.partial(ensemble().predict_uncertainty, data()["x"], verbose=0),
        left_to_keras=("batch_size", "verbose", "steps", "callbacks"),
        is_heavy=True,
    ),
    "BayesianEnsembleModel.to_arviz": Call(
        lambda: {"weights": ["kernel"]},
        find=lambda: ensemble().to_arviz,
        left_to_keras=("x", "y", "batch_size"),
    ),
    "ChainContext": Call(lambda: {"number": 0, "directory": "chain-0"}),
    "sample_chains": Call(
        lambda: {
            "train_fn": lambda chain, context=None: (network(), weights(2)),
            "num_chains": 2,
            "executor": None,
            "directory": "chains",
            "retries": 1,
            "model": None,
            "on_error": "raise",
            "vectorized": False,
            "verbose": 0,
            "output": "mean",
            "noise_stddev": "mse",
            "member_batch_size": 1,
        },
        errors=(kl.ChainError,),
        takes={"verbose": (bool,), **NUMBER_OR_MSE},
    ),
    "choose_temperature": Call(
        lambda: {
            "train_fn": lambda temperature: sampled(),
            "validation_data": tuple(list(data().values())[:2]),
            "temperatures": (1.0, 0.1),
            "verbose": 0,
        },
        errors=DIVERGED,
        takes={"verbose": (bool,)},
    ),
    "find_learning_rate": Call(on_network(batch_size=4, num_steps=100), errors=DIVERGED),
    "warm_up_metric": Call(
        lambda: {
            "model": network(kl.RMSPropLangevin),
            **data(),
            "batch_size": 4,
            "num_batches": 2,
        },
        is_heavy=True,
    ),
    "track_statistics": Call(
        lambda: {"model": network(), "optimizer": network().optimizer, "spatial": "exact"}
    ),
    "untrack_statistics": Call(lambda: {"model": network()}),
    "freeze_batch_normalization": Call(
        lambda: {
            "model": normalizing_network(),
            "x": data()["x"],
            "batch_size": 2,
            "steps": 2,
            "freeze": True,
        }
    ),
    # storage
    "Sample": Call(
        lambda: {
            "weights": {"kernel": draws(2, 1)},
            "step": 1,
            "learning_rate": 0.1,
            "temperature": 1.0,
            "chain": 0,
            "position": 1,
            "copy": True,
        }
    ),
    "SampleStore": Call(fixed(directory=None), errors=DISK),
    "SampleStore.load": Call(
        lambda: {"path": folder_with_samples(), "on_corrupt": "raise"}, errors=DISK
    ),
    "SampleStore.append": Call(lambda: {"sample": sample()}, find=lambda: store().append),
    "SampleStore.thin": Call(
        lambda: {"keep": [0, 2], "schedule": {"thinning": 2}}, find=lambda: store().thin
    ),
    "SampleStore.set_schedule": Call(
        lambda: {"schedule": {"thinning": 2}}, find=lambda: store().set_schedule
    ),
    "SampleStore.set_optimizer": Call(fixed(name="SGLD"), find=lambda: store().set_optimizer),
    # calibration
    "calibration.accuracy": Call(predictions),
    "calibration.brier_score": Call(predictions),
    "calibration.negative_log_likelihood": Call(predictions),
    "calibration.predictive_entropy": Call(probabilities),
    "calibration.reliability_curve": Call(at(predictions, num_bins=5, binning="mass")),
    "calibration.expected_calibration_error": Call(at(predictions, num_bins=5, binning="mass")),
    "calibration.temperature_scaling": Call(predictions),
    "calibration.TemperatureScaling.__call__": Call(
        probabilities, find=lambda: kl.calibration.TemperatureScaling(2.0, 1.0, 0.9)
    ),
    "calibration.risk_coverage_curve": Call(confidences),
    "calibration.area_under_risk_coverage": Call(confidences),
    "calibration.continuous_ranked_probability_score": Call(gaussians),
    "calibration.probability_integral_transform": Call(gaussians),
    "calibration.interval_coverage": Call(
        lambda: {"low": draws(N) - 5, "high": draws(N) + 5, "y": draws(N)}
    ),
    "calibration.mean_interval_width": Call(lambda: {"low": draws(N) - 5, "high": draws(N) + 5}),
    "calibration.interval_coverage_curve": Call(
        lambda: {"pit": np.linspace(0, 1, N), "levels": np.array([0.5, 0.9])}
    ),
    "calibration.log_predictive_density": Call(lambda: {"log_likelihood": -np.abs(draws(3, N))}),
    "calibration.out_of_distribution_auroc": Call(scores),
    "calibration.out_of_distribution_aupr": Call(scores),
    "calibration.false_positive_rate": Call(at(scores, true_positive_rate=0.9)),
    "calibration.BrierScore": Call(fixed(from_logits=True, **METRIC), takes=NO_NAME),
    "calibration.ExpectedCalibrationError": Call(
        fixed(num_bins=5, from_logits=True, **METRIC), takes=NO_NAME
    ),
    "calibration.ContinuousRankedProbabilityScore": Call(
        fixed(stddev=0.5, **METRIC), takes=NO_NAME
    ),
    "calibration.IntervalCoverage": Call(fixed(level=0.9, stddev=0.5, **METRIC), takes=NO_NAME),
    # diagnostics
    "diagnostics.effective_sample_size": Call(lambda: {"draws": draws(8, 2), "kind": "bulk"}),
    "diagnostics.r_hat": Call(lambda: {"draws": draws(8, 2), "rank_normalized": True}),
    "diagnostics.chain_health": Call(lambda: {"draws": draws(8, 2)}),
    "diagnostics.running_log_predictive_density": Call(
        lambda: {"log_likelihood": -np.abs(draws(5, N)), "num_orders": 3, "seed": 0}
    ),
    "diagnostics.enough_members": Call(lambda: {"curve": curve(), "tolerance": 0.01}),
    "diagnostics.curvature": Call(on_network(num_steps=2, seed=0), errors=DIVERGED),
    "diagnostics.step_size": Call(on_network(batch_size=4), errors=DIVERGED),
    "diagnostics.StepSize.learning_rate_at": Call(
        fixed(minibatch_noise=0.1),
        find=lambda: kl.diagnostics.StepSize(2.0, 1.0, 10, 100, 1.0).learning_rate_at,
    ),
    "diagnostics.StepSize.problems": Call(
        fixed(learning_rate=0.1),
        find=lambda: kl.diagnostics.StepSize(2.0, 1.0, 10, 100, 1.0).problems,
    ),
    "diagnostics.configurational_temperature": Call(
        on_network(samples=weights(4), batch_size=4, num_batches=1), errors=DIVERGED
    ),
    "diagnostics.kinetic_temperature": Call(lambda: {"optimizer": optimizer_with_momenta()}),
    # losses, schedules, priors
    "losses.GaussianNLL": Call(
        fixed(stddev=0.5, reduction="mean", name="loss", dtype="float32"),
        takes={**NO_NAME, "reduction": (NoneType,)},
    ),
    "losses.StudentTNLL": Call(
        fixed(df=3.0, reduction="mean", name="loss", dtype="float32"),
        takes={**NO_NAME, "reduction": (NoneType,), "df": (NoneType,)},
    ),
    **{
        f"losses.{name}": Call(
            fixed(reduction="mean", name="loss", dtype="float32"),
            takes={**NO_NAME, "reduction": (NoneType,)},
        )
        for name in ("BetaNLL", "NegativeBinomialNLL")
    },
    "schedules.PolynomialDecay": Call(fixed(scale=0.1, offset=10.0, power=0.6)),
    "schedules.CyclicalCosine": Call(
        fixed(initial_learning_rate=0.1, cycle_steps=10, exploration=0.5)
    ),
    "priors.ByPattern": Call(lambda: {"priors": {".*": kl.priors.Normal(1.0)}}),
    "priors.FanInNormal": Call(fixed(scale=10.0, bias_stddev=1.0, embedding_stddev=0.5)),
    "priors.Flat": Call(dict),
    "priors.HierarchicalNormal": Call(fixed(concentration=1.0, rate=1.0, mean=0.0)),
    "priors.Laplace": Call(fixed(scale=1.0, mean=0.0)),
    "priors.LayerwiseNormal": Call(
        fixed(output_stddev=10.0, hidden_scale=2.0, bias_stddev=1.0, embedding_stddev=0.5)
    ),
    "priors.Normal": Call(fixed(stddev=1.0, mean=0.0)),
    "priors.StudentT": Call(fixed(df=4.0, scale=1.0, mean=0.0)),
    "priors.TFPDistribution": Call(lambda: {"distribution": distribution()}, needs_tensorflow=True),
    "priors.describe": Call(lambda: {"model": network()}),
    "priors.get": Call(lambda: {"prior": kl.priors.Normal(1.0)}),
    # metrics
    "preconditioners.Averaging": Call(
        fixed(rate=0.5, floor=0.01, lagged=True, freeze_after=10),
        takes={"freeze_after": (NoneType,)},
    ),
    "preconditioners.AveragingPreconditioner": Call(fixed(**AVERAGE)),
    "preconditioners.BatchNormalization": Call(fixed(**INPUTS)),
    "preconditioners.DenseFisher": Call(fixed(num_draws=2, **FISHER), takes=NUMBER_OR_MSE),
    "preconditioners.Diagonal": Call(dict),
    "preconditioners.DiagonalFisher": Call(fixed(**FISHER), takes=NUMBER_OR_MSE),
    "preconditioners.DiagonalOuterProduct": Call(fixed(**OUTER_PRODUCT)),
    "preconditioners.Euclidean": Call(dict),
    "preconditioners.Fisher": Call(fixed(**FISHER), takes=NUMBER_OR_MSE),
    "preconditioners.QuasiDiagonalFisher": Call(fixed(**FISHER), takes=NUMBER_OR_MSE),
    "preconditioners.QuasiDiagonalOuterProduct": Call(fixed(**OUTER_PRODUCT)),
    "preconditioners.RMSProp": Call(fixed(epsilon=1e-8, divergence=False, **AVERAGE)),
    # statistics
    "statistics.Block": Call(
        lambda: {
            "kernel": kernel(),
            "op": keras.ops.matmul,
            "bias": keras.Variable(np.ones(1, "float32"), name="bias"),
            "bias_shape": (1, 1),
            "bias_axes": (-1,),
            "shift_shape": (2, 1),
            "per_example": None,
            "adjoint": None,
        }
    ),
    "statistics.Statistic": Call(fixed(kind="loss", block=None)),
    "statistics.find_rule": Call(lambda: {"layer": keras.layers.Dense(1)}),
    "statistics.is_tracked": Call(lambda: {"model": network()}),
    "statistics.untracked": Call(lambda: {"model": network()}),
    "statistics.register_rule": Call(lambda: {"layer_class": OwnLayer, "replace": True}),
    "statistics.track_statistics": Call(
        lambda: {"model": network(), "optimizer": network().optimizer, "spatial": "exact"}
    ),
    "statistics.untrack_statistics": Call(lambda: {"model": network()}),
    "statistics.reference.per_example_statistics": Call(on_network(spatial="exact")),
    # likelihoods
    "predictive.log_gamma": Call(lambda: {"x": np.linspace(0.5, 9, N)}),
    "predictive.register_family": Call(lambda: {"loss": OwnLoss, "replace": True, "exact": True}),
    # figures
    "plotting.coverage": Call(lambda: {"pit": np.linspace(0, 1, N), "ax": axes()}),
    "plotting.entropy_histogram": Call(
        lambda: {
            "inside": np.linspace(0, 1, N),
            "outside": np.linspace(0, 1, N),
            "ax": axes(),
            "num_classes": 3,
            "labels": ("in", "out"),
            "num_bins": 4,
        }
    ),
    "plotting.log_predictive_density": Call(lambda: {"curve": curve(), "ax": axes()}),
    "plotting.member_agreement": Call(
        lambda: {"members": np.stack([probabilities()["probabilities"]] * 2), "ax": axes()}
    ),
    "plotting.metric_spectrum": Call(
        lambda: {"eigenvalues": np.arange(4.0), "ax": axes(), "learning_rate": 0.1}
    ),
    "plotting.predictive_band": Call(lambda: {**uncertainty(), "ax": axes()}),
    "plotting.rank": Call(lambda: {"draws": [draws(9), draws(9)], "ax": axes(), "num_bins": 4}),
    "plotting.reliability": Call(lambda: {**predictions(), "num_bins": 4, "ax": axes(), **FIGURE}),
    "plotting.risk_coverage": Call(lambda: {**confidences(), "ax": axes(), **FIGURE}),
    "plotting.trace": Call(lambda: {"draws": [draws(9), draws(9)], "ax": axes()}),
}

# Those with arguments.
NAMES = [name for name, call in CALLS.items() if call.valid is not dict]

# Results that functions return, exceptions, and bases without arguments of their own.
MADE_BY_THE_PACKAGE = {
    "ChainError",
    "SamplerProtocol",
    "CorruptSampleError",
    "StorageError",
    "TemperatureChoice",
    "WriteConflictError",
    "calibration.ReliabilityCurve",
    "calibration.RiskCoverageCurve",
    "calibration.TemperatureScaling",
    "diagnostics.ChainHealth",
    "diagnostics.Curvature",
    "diagnostics.EnoughMembers",
    "diagnostics.RunningLogPredictiveDensity",
    "diagnostics.StepSize",
    "diagnostics.Temperature",
    "preconditioners.Preconditioner",
    "predictive.Family",
    "priors.Prior",
    "statistics.LayerRule",
}


def public_names(module=kl, prefix=""):
    """Of `__all__`, those of modules in it with the module's name before."""
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if isinstance(thing, types.ModuleType):
            yield from public_names(thing, f"{prefix}{name}.")
        else:
            yield prefix + name
