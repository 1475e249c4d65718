"""Deliberately wrong versions of the package, all of which the quick tests must refuse.

    python tests/mutants.py [--only NAME ...]

runs for each the quick tests that are named beside it, on JAX, and prints whether they caught it
and by how many failures. Any other run of pytest is one of a mutant with
KERAS_LANGEVIN_MUTANT=NAME. `tests/test_mutants.py` tries that each can still be made, and runs two.
"""

import argparse
import dataclasses
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parent
QUICK = "not law and not fuzz and not slow"
VARIABLE = "KERAS_LANGEVIN_MUTANT"  # read by `conftest.py`


@dataclasses.dataclass(frozen=True)
class Mutant:
    """What is changed, and the tests that must fail; `chosen` as in pytest's `-k`."""

    make: Callable
    files: tuple
    chosen: str = ""


MUTANTS = {}


def mutant(*files, chosen=""):
    """Registers a function of `change`, by its name."""

    def register(function):
        MUTANTS[function.__name__] = Mutant(function, files, chosen)
        return function

    return register


def change(target, make):
    """Puts `make(original)` in the place of "module:name" or "module:Class.name".

    Returns:
        A function that undoes it.
    """
    module, _, path = target.partition(":")
    owner = importlib.import_module(f"keras_langevin.{module}")
    *classes, name = path.split(".")
    for one in classes:
        owner = getattr(owner, one)
    is_own = name in vars(owner)
    original = getattr(owner, name)
    setattr(owner, name, make(original))

    def undo():
        if is_own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)

    return undo


def apply(name):
    MUTANTS[name].make(change)


def instead(new):
    """A `make` that does not need the original."""
    return lambda original: new


# ------------------------------------------------------------------- what all samplers share

BASE = "optimizers.sampler:Sampler"
LANGEVIN = "optimizers.langevin_optimizer:LangevinOptimizer"
LAW = "laws/test_stationary_law.py"
CONTRACT = "contract/test_samplers.py"


@mutant(LAW, CONTRACT, chosen="fixed_metric or noise_alone")
def root_two_missing(change):
    def make(noise_scale):
        return lambda self, learning_rate: noise_scale(self, learning_rate) / 2**0.5

    change(f"{LANGEVIN}.noise_scale", make)


@mutant(LAW, CONTRACT, chosen="fixed_metric or noise_alone")
def noise_that_repeats(change):
    def make(normals):
        return lambda self, shapes, iteration=None: normals(self, shapes, 0)

    change(f"{BASE}.normals", make)


@mutant(LAW, CONTRACT, chosen="fixed_metric or dead_input")
def prior_not_divided_by_n(change):
    def add_prior(self, values, gradients):
        return [g - p.score(v) for p, v, g in zip(self._priors, values, gradients, strict=True)]

    change(f"{BASE}.add_prior", instead(add_prior))


@mutant(LAW, CONTRACT, chosen="fixed_metric or dead_input")
def prior_forgotten(change):
    change(f"{BASE}.add_prior", instead(lambda self, values, gradients: gradients))


@mutant(CONTRACT, chosen="noise_alone")
def temperature_ignored(change):
    change(f"{BASE}.step_temperature", instead(lambda self: 1.0))


@mutant("contract/test_nonfinite.py", chosen="bad_steps and (SGLD or QDOP)")
def bad_steps_taken(change):
    change(f"{BASE}.accept", instead(lambda self, results: results))


@mutant("contract/test_nonfinite.py", chosen="statistics_that_overflow")
def bad_statistics_not_seen(change):
    def make(accept):
        return lambda self, results, statistics, *more: accept(self, results, [], *more)

    change("optimizers.nonfinite:NonfiniteSteps.accept", make)


# ------------------------------------------------------------------------------ metrics

QUASI_DIAGONAL = "preconditioners.quasi_diagonal:QuasiDiagonal"
OUTER_PRODUCT = "preconditioners.outer_product:QuasiDiagonalOuterProduct"
INPUTS = "preconditioners.batch_normalization:BatchNormalization"


def in_parts(change, metric):
    """It takes its step by `solve` and `sample`, one of which is wrong."""
    from keras_langevin.preconditioners import Preconditioner

    change(f"{metric}.displacement", instead(Preconditioner.displacement))


def with_blocks(change, metric, method, blocks):
    """The method sees `blocks(block)` in the place of every (S, μ, M00)."""
    in_parts(change, metric)

    def make(original):
        def changed(self, blocks_of_metric, vectors):
            return original(self, [blocks(*block) for block in blocks_of_metric], vectors)

        return changed

    change(f"{metric}.{method}", make)


def turned_round(schur, mean=None, moment=None):
    return (schur,) if mean is None else (schur, -mean, moment)


def without_shear(schur, mean=None, moment=None):
    return (schur,) if mean is None else (schur, 0.0 * mean, moment)


def uncentred(schur, mean=None, moment=None):
    """Mii in the place of the Schur complement S."""
    from keras import ops

    if mean is None:
        return (schur,)
    return schur + mean * mean * ops.reshape(moment, (1, -1)), mean, moment


@mutant(LAW, CONTRACT, chosen="(fixed_metric or inverse_metric) and QDOP")
def shear_sign_flipped(change):
    with_blocks(change, OUTER_PRODUCT, "sample", turned_round)


@mutant(LAW, CONTRACT, chosen="(fixed_metric or inverse_metric) and QDOP")
def shear_omitted(change):
    with_blocks(change, OUTER_PRODUCT, "sample", without_shear)


@mutant(LAW, CONTRACT, chosen="(fixed_metric or inverse_metric) and QDOP")
def inverse_for_its_root(change):
    in_parts(change, OUTER_PRODUCT)
    change(
        f"{OUTER_PRODUCT}.sample",
        instead(lambda self, metric, normals: self.solve(metric, normals)),
    )


@mutant(CONTRACT, chosen="inverse_metric and QDOP")
def uncentred_noise(change):
    with_blocks(change, OUTER_PRODUCT, "sample", uncentred)


@mutant(CONTRACT, chosen="inverse_metric and QDOP")
def diagonal_drift(change):
    with_blocks(change, OUTER_PRODUCT, "solve", lambda *block: without_shear(*uncentred(*block)))


@mutant(CONTRACT, chosen="inverse_metric and QDOP")
def displacement_with_half_the_noise(change):
    def make(displacement):
        def halved(self, metric, slopes, rate, normals, noise_scale):
            return displacement(self, metric, slopes, rate, normals, 0.5 * noise_scale)

        return halved

    change(f"{QUASI_DIAGONAL}.displacement", make)


BNP = ("preconditioners/test_batch_normalization_metric.py", CONTRACT)


@mutant(*BNP, chosen="(inverse_metric and BNP) or dense_matrices")
def identity_noise(change):
    in_parts(change, INPUTS)
    change(f"{INPUTS}.sample", instead(lambda self, metric, normals: list(normals)))


@mutant(CONTRACT, chosen="inverse_metric and BNP")
def root_of_the_diagonal(change):
    """Noise with the variances of C and without its covariances."""
    from keras import ops

    def sample(self, metric, normals):
        normals = list(normals)
        for block, (schur, *pairing) in zip(self.layout.blocks, metric, strict=True):
            normals[block.kernel] = normals[block.kernel] / ops.sqrt(schur)
            if pairing:
                mean, moment = pairing
                variance = 1.0 / moment + ops.sum(mean**2 / schur)
                normals[block.bias] = normals[block.bias] * ops.sqrt(variance)
        return normals

    in_parts(change, INPUTS)
    change(f"{INPUTS}.sample", instead(sample))


@mutant(*BNP, chosen="(inverse_metric and BNP) or dense_matrices")
def shear_of_inputs_omitted(change):
    with_blocks(change, INPUTS, "sample", without_shear)


@mutant(BNP[0], chosen="mixture")
def variance_between_batches_forgotten(change):
    from keras import ops

    def make(averages):
        def changed(self, gradients, statistics, rate):
            values, states = averages(self, gradients, statistics, rate), list(self.states)
            for i in range(0, len(values), 3):
                step = (values[i] - ops.convert_to_tensor(states[i])) / rate
                values[i + 1] = values[i + 1] - rate * (1 - rate) * ops.square(step)
            return values

        return changed

    change(f"{INPUTS}.averages", make)


@mutant("preconditioners/test_fisher_correction.py", chosen="flux or agree")
def fisher_correction_turned_round(change):
    def make(correction):
        return lambda *args, **kwargs: [-k for k in correction(*args, **kwargs)]

    for name in ("by_autodiff", "by_finite_difference"):
        change(f"preconditioners.fisher_correction:{name}", make)


# --------------------------------------------------------------------------------- SGHMC

SGHMC = "optimizers.sghmc:SGHMC"
OF_SGHMC = "optimizers/test_sghmc.py"


@mutant(OF_SGHMC, chosen="large_step")
def ornstein_uhlenbeck_noise_with_euler(change):
    """T(1−β²), the noise of "baoab", with both."""

    def make(noise_variance):
        def changed(self, learning_rate, β, gradient_noise=0.0):
            factor = 0.5 * (1 + β) if self.scheme == "euler" else 1.0
            return factor * noise_variance(self, learning_rate, β, gradient_noise)

        return changed

    change(f"{SGHMC}.noise_variance", make)


@mutant(OF_SGHMC, chosen="large_step")
def root_two_missing_in_momenta(change):
    def make(noise_variance):
        return lambda self, *args: 0.5 * noise_variance(self, *args)

    change(f"{SGHMC}.noise_variance", make)


@mutant(OF_SGHMC, chosen="large_step")
def momentum_applied_twice(change):
    def make(advance):
        return lambda self, r, kick, β, noise: advance(self, β * r, kick, β, noise)

    for scheme in ("_euler", "_baoab"):
        change(f"{SGHMC}.{scheme}", make)


@mutant(OF_SGHMC, chosen="minibatch_noise")
def noise_reduced_for_the_momentum_alone(change):
    """Keeps the variance of β (r − kick) + noise in "baoab", not where it sends θ."""

    def make(noise_variance):
        def changed(self, learning_rate, β, gradient_noise=0.0):
            kick = 2 * learning_rate * self.num_data * gradient_noise / (1 + β)
            return noise_variance(self, learning_rate, β) - β**2 * kick

        return changed

    change(f"{SGHMC}.noise_variance", make)


@mutant(OF_SGHMC, chosen="transpose and QuasiDiagonalOuter")
def factor_for_its_transpose(change):
    change(
        f"{OUTER_PRODUCT}.whiten",
        instead(lambda self, metric, vectors: self.sample(metric, vectors)),
    )


@mutant(OF_SGHMC, chosen="that_changes")
def stored_velocity(change):
    """h r is kept in the place of r, and not rescaled when h changes."""
    kept = {}

    def time_step(original):
        def changed(self, learning_rate):
            kept["h"] = original(self, learning_rate)
            return kept["h"]

        return changed

    def baoab(original):
        def changed(self, r, kick, β, noise):
            velocity, r = original(self, r / kept["h"], kick, β, noise)
            return velocity, kept["h"] * r

        return changed

    change(f"{SGHMC}.time_step", time_step)
    change(f"{SGHMC}._baoab", baoab)


# --------------------------------------------------------------------------------- SMILE

SMILE = "optimizers.smile:SMILE"
OF_SMILE = "optimizers/test_smile.py"


def slopes_times(change, factor):
    def make(slopes):
        def changed(self, values, gradients):
            found, noisy, finite = slopes(self, values, gradients)
            return [factor(self) * s for s in found], noisy, finite

        return changed

    change(f"{SMILE}._slopes", make)


@mutant(OF_SMILE, chosen="num_data_sets")
def slope_of_the_mean_loss(change):
    slopes_times(change, lambda self: 1.0 / self.num_data)


@mutant(OF_SMILE, chosen="trajectory or exact_gradients")
def slope_turned_round(change):
    slopes_times(change, lambda self: -1.0)


@mutant(OF_SMILE, chosen="trajectory or exact_gradients")
def kicks_twice_as_long(change):
    def make(finish):
        def changed(self, direction, force, step_size):
            return finish(self, direction, [2.0 * f for f in force], step_size)

        return changed

    change(f"{SMILE}._finish", make)


@mutant(OF_SMILE, chosen="change_of_coordinates")
def scale_in_the_drift_alone(change):
    calls = []

    def make(product):
        def changed(scale, vectors):
            calls.append(0)
            return vectors if len(calls) % 4 in (1, 3) else product(scale, vectors)

        return changed

    change("optimizers.smile:product", make)


# ------------------------------------------------------------------- natural gradients

NATURAL = "optimizers.natural_gradient:NaturalGradient"
OF_NATURAL = "optimizers/test_natural_gradient.py"


@mutant(OF_NATURAL, chosen="damping_lowers")
def noise_of_damping_not_completed(change):
    def displacement(self, slopes, metric, learning_rate):
        return [-learning_rate * d for d in self.preconditioner.solve(metric, slopes)]

    change(f"{NATURAL}.displacement", instead(displacement))


@mutant(OF_NATURAL, chosen="damping_lowers")
def noise_besides_that_of_minibatches(change):
    def make(displacement):
        def changed(self, slopes, metric, learning_rate):
            step = displacement(self, slopes, metric, learning_rate)
            noise = self.preconditioner.sample(metric, self.normals([g.shape for g in slopes]))
            scale = (2 * learning_rate / self.num_data) ** 0.5
            return [d + scale * n for d, n in zip(step, noise, strict=True)]

        return changed

    change(f"{NATURAL}.displacement", make)


# ------------------------------------------------------------------------------ schedules

CYCLE = "schedules:CyclicalCosine"
OF_SCHEDULES = "sampling/test_schedules.py"


def of_step(change, method, shift):
    change(f"{CYCLE}.{method}", lambda original: lambda self, step: original(self, step + shift))


@mutant(OF_SCHEDULES, chosen="papers or script")
def rate_of_the_next_step(change):
    of_step(change, "__call__", 1)


@mutant(OF_SCHEDULES, chosen="papers or script or exact_shares or every_step")
def phase_of_the_next_step(change):
    of_step(change, "is_sampling", 1)


@mutant(OF_SCHEDULES, chosen="papers or script or exact_shares or every_step")
def phase_of_the_step_before(change):
    of_step(change, "is_sampling", -1)


@mutant(OF_SCHEDULES, chosen="papers or script or exact_shares or every_step")
def noise_always(change):
    change(f"{CYCLE}.is_sampling", instead(lambda self, step: step >= 0))


@mutant(OF_SCHEDULES, chosen="papers or script or exact_shares or every_step")
def noise_never(change):
    change(f"{CYCLE}.is_sampling", instead(lambda self, step: step < 0))


@mutant(OF_SCHEDULES, chosen="papers or script")
def longer_cycle(change):
    def make(init):
        def changed(self, initial_learning_rate, cycle_steps, exploration=0.5):
            init(self, initial_learning_rate, cycle_steps + 1, exploration)

        return changed

    change(f"{CYCLE}.__init__", make)


# ------------------------------------------------------------------------------ statistics


@mutant("backends/test_mixed_precision.py", chosen="test_the_law and QDOP and float16")
def loss_scale_kept(change):
    change("keras_internals.optimizer:_loss_scale", instead(lambda *args: 1.0))


@mutant(LAW, CONTRACT, chosen="fixed_metric or stated_one")
def cross_moments_doubled(change):
    def make(centred):
        def changed(block, batch):
            schur, *pairing = centred(block, batch)
            return (schur, 2.0 * pairing[0], pairing[1]) if pairing else (schur,)

        return changed

    change("preconditioners.outer_product:centred", make)


# ------------------------------------------------------------------- families, ensembles

PREDICTIVE = ("predictive", "ensemble/test_ensemble.py", "ensemble/test_ensemble_evaluation.py")


@mutant(*PREDICTIVE, chosen="test_predictive or uncertainty or evaluate")
def density_without_the_scale(change):
    def make(density):
        def changed(y, mean, log_stddev):
            return density(y, mean, log_stddev) + log_stddev

        return changed

    change("predictive.gaussian:gaussian_log_densities", make)


@mutant(*PREDICTIVE, chosen="test_predictive or uncertainty or evaluate")
def probabilities_of_half_the_logits(change):
    def make(parameters):
        return lambda self, outputs: parameters(self, 0.5 * outputs)

    change("predictive.categorical:Categorical.parameters", make)


@mutant(*PREDICTIVE, chosen="test_predictive or uncertainty or evaluate")
def log_of_the_mean_of_logs(change):
    """The mean log density in the place of the log of the mean density."""
    from keras import ops

    change("predictive.family:log_mean_exp", instead(lambda x: ops.mean(x, axis=0)))


@mutant(*PREDICTIVE, chosen="test_predictive or uncertainty or evaluate")
def epistemic_variance_forgotten(change):
    def make(uncertainty):
        def changed(self, outputs, quantiles):
            found = uncertainty(self, outputs, quantiles)
            return {**found, "total": found["aleatoric"]}

        return changed

    change("predictive.gaussian:_GaussianFamily.uncertainty", make)


@mutant("ensemble/test_ensemble.py", chosen="averaged_and_not_logits or any_number")
def mean_of_logits(change):
    from keras import ops

    def call(self, inputs):
        outputs = self.members.outputs(inputs)
        means = self.heads.each(lambda family, o: family.means(ops.mean(o, axis=0)), outputs)
        return self.heads.packed(means)

    change("ensemble.prediction:PredictiveModel.call", instead(call))


@mutant("predictive/test_register_family.py", chosen="quantiles or exported or fisher")
def quantiles_of_counts_one_too_many(change):
    def make(quantiles):
        return lambda *args: quantiles(*args) + 1

    change("predictive.family:count_quantiles", make)


@mutant("predictive/test_register_family.py", chosen="fisher or scores or statistics")
def scores_of_the_sum_over_positions(change):
    change("predictive.family:Family.num_labels", instead(lambda self, outputs: 1))


@mutant("predictive/test_register_family.py", chosen="loss or found")
def subclasses_of_a_loss_taken_for_it(change):
    """Whatever they compute."""

    def find(loss):
        from keras_langevin.predictive import registry

        known = [c for c in type(loss).__mro__ if c in registry._BY_LOSS]
        return registry._BY_LOSS[known[0]][0].from_loss(loss) if known else None

    change("predictive.output:find_family", instead(find))


# ------------------------------------------------------------------------- stores, resuming


@mutant("storage")
def checksum_ignored(change):
    for module in ("sample_folder", "training_checkpoint"):
        change(f"storage.{module}:find_damage", instead(lambda path, sha256: None))


@mutant("storage")
def torn_writes_accepted(change):
    """Files are written under their own names."""

    def write(path, write):
        with open(path, "w+b") as file:
            write(file)

    for module in ("array_file", "json_file", "sample_folder"):
        change(f"storage.{module}:write_atomically", instead(write))


@mutant("contract/test_exact_resume.py", chosen="within_epochs")
def iterations_not_restored(change):
    def make(restore):
        def changed(self, model):
            restore(self, model)
            model.optimizer.iterations.assign(0)

        return changed

    change("storage.training_checkpoint:TrainingCheckpoint.restore", make)


@mutant("contract/test_exact_resume.py", chosen="within_epochs")
def generators_not_restored(change):
    change("storage.training_checkpoint:set_random_state", instead(lambda arrays: None))


@mutant("sampling/test_sampling_schedule.py")
def first_sample_too_early(change):
    def make(includes):
        return lambda self, position: includes(self, position + 1)

    change("sampling.schedule:SamplingSchedule.includes", make)


@mutant("test_random_batches.py")
def batches_that_return(change):
    change("random_batches:RandomBatches.on_epoch_end", instead(lambda self: None))


# ------------------------------------------------------------------------------ the program


class Counts:
    """A plugin of pytest: how many tests passed and failed."""

    def __init__(self):
        self.passed, self.failed, self.first = 0, 0, ""

    def pytest_runtest_logreport(self, report):
        self.passed += report.when == "call" and report.passed
        self.failed += report.failed
        if report.failed and not self.first:
            self.first = report.nodeid.partition("::")[2]


def run(name):
    """`(failed, passed, first, seconds)` of the tests of a mutant, in this very process."""
    import pytest

    one, counts, start = MUTANTS[name], Counts(), time.perf_counter()
    os.environ[VARIABLE] = name
    arguments = ["-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", QUICK]
    arguments += ["-k", one.chosen] if one.chosen else []
    code = pytest.main([*arguments, *(str(TESTS / file) for file in one.files)], [counts])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"{name}: pytest ends with {code!r}")
    return counts.failed, counts.passed, counts.first, time.perf_counter() - start


def forked(name):
    """The same in a process that begins with everything imported, which takes most of the time."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        result = None
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            result = run(name)
        finally:
            with open(writer, "w") as file:
                json.dump(result, file)
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        result = json.load(file)
    os.waitpid(child, 0)
    if result is None:
        raise RuntimeError(f"The tests of {name} could not be run.")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=MUTANTS, metavar="NAME")
    names = parser.parse_args().only or list(MUTANTS)
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.chdir(TESTS.parent)
    for module in ("keras_langevin", "pytest", "scipy.stats", "tensorflow"):
        importlib.import_module(module)  # no computation: JAX must not have begun
    print("| mutant | | failing | passing | the first that fails | s |")
    print("|---|---|---:|---:|---|---:|", flush=True)
    missed = []
    for name in names:
        failed, passed, first, seconds = forked(name)
        verdict = "caught" if failed else "NOT CAUGHT"
        print(f"| {name} | {verdict} | {failed} | {passed} | {first} | {seconds:.0f} |", flush=True)
        missed += [] if failed else [name]
    print(f"{len(names) - len(missed)} of {len(names)} caught", *missed)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
