"""Are the samples as hot as the target says? Measured on the weights, and on SGHMC's momenta."""

import dataclasses
import math

import numpy as np
from keras import ops

from keras_langevin.arguments import integer
from keras_langevin.autodiff import FirstThatWorks, compiled, gradient, ways_to_compile
from keras_langevin.diagnostics.convergence import effective_sample_size
from keras_langevin.keras_internals import inner_optimizer
from keras_langevin.learning_rate.curvature import checked_finite
from keras_langevin.model_loss import ModelLoss
from keras_langevin.optimizers.snapshots import as_sampler, sampler_of
from keras_langevin.statistics.check_fit import check_fit
from keras_langevin.statistics.track import untracked
from keras_langevin.storage.stack_samples import stack_samples
from keras_langevin.training_data import num_examples, rows, tensors, training_data
from keras_langevin.weights import named_weights, parameters

BATCH_SIZE = 1024
NORMAL_QUANTILE = 2.5758293  # 99 % of a normal distribution lie within so many deviations


@dataclasses.dataclass(frozen=True)
class Temperature:
    """A temperature, and the band around `expected` in which 99 % of the values lie that a right
    chain gives.

    Attributes:
        value: Over all weights.
        low, high: The band.
        expected: T of the optimizer.
        by_variable: The value of each variable, by name.
        band_by_variable: `(low, high)` of each variable. Of a hundred variables one is outside.
        num_draws: Draws of the weights, or 1 for the momenta of one moment.
        effective_draws: How many independent draws they are worth to `value`.
    """

    value: float
    low: float
    high: float
    expected: float
    by_variable: dict[str, float]
    band_by_variable: dict[str, tuple[float, float]]
    num_draws: int
    effective_draws: float

    @property
    def is_as_expected(self) -> bool:
        """Whether the value lies within the band."""
        return self.low <= self.value <= self.high


def configurational_temperature(
    model, samples, x, y, batch_size=None, sample_weight=None, num_batches=None
) -> Temperature:
    """T_C = ⟨θ − c, ∇U(θ)⟩/d averaged over posterior samples, U = N · mean loss − log prior. It is
    T for samples of exp(−U/T): above it they spread too widely (step size, noise of minibatches),
    below it too little (a chain that has not reached its width, noise that is missing).

    The centre c, for the draws of each half of a chain, is the mean of the other half, so that it
    hardly depends on them: the mean of all n draws would take T_C down by the share 1/ESS. Without
    a centre T_C has the same expectation, but where the mode μ lies far from 0 its variance in a
    Gaussian posterior of precision A, 2T²/d, is larger by T μᵀAμ/d². The band is T ± t s/√ESS,
    with the spread s and the effective sample size of the draws themselves, and the 99 % quantile
    t of Student's distribution with ESS − 1 degrees of freedom; the ESS of few draws is itself
    uncertain, so that with an ESS below 20 some 3 to 5 of a hundred right chains lie outside.

    On a Gaussian target SGLD with learning rate η has T_C/T = mean of 1/(1 − η s_i/2) over the
    eigenvalues s_i of C H, "euler" SGHMC the same with η/(1 + β), "baoab" 1, and minibatches
    add to it (`kl.diagnostics.step_size`): T_C measures that error. It does not see a chain that
    has found one of several modes. Every weight needs a proper law: a flat prior on weights that
    no data reach has none. Layers run in inference mode, without dropout.

    Args:
        model: Built, and compiled with the optimizer of this package that drew the samples, which
            knows N, the prior and T. Its weights stay as they are.
        samples: `sampler.samples`, or what else `kl.BayesianEnsembleModel` takes; at least 4 a
            chain, in the order they were drawn.
        x, y, sample_weight: The training data, as for `fit`.
        batch_size: Examples whose gradient is computed at once; 1024, or all if they are fewer.
        num_batches: Takes ∇U of each draw from so many random batches; `None` from all data.
            T_C is right on average with any number, and its band wider with few.

    Raises:
        ValueError: If the model has another optimizer, samples or data do not fit it, or samples
            are too few.
        FloatingPointError: If the gradient at a sample is NaN or infinite.

    Example:

    >>> found = kl.diagnostics.configurational_temperature(model, sampler.samples, x, y)
    >>> found.is_as_expected, found.value, (found.low, found.high)

    References:
        F. Wenzel et al., "How Good is the Bayes Posterior in Deep Neural Networks Really?", ICML
        2020, for T_C without a centre. Centring is derived here.
    """
    optimizer = sampler_of(model)
    chains, columns = stack_samples(model, samples)
    columns = list(columns)
    chains = [np.flatnonzero(np.equal(chains, chain)) for chain in np.unique(chains)]
    data = training_data(x, y, sample_weight)
    check_fit(model, data)
    batches = _Batches(data, batch_size, num_batches)
    slope = Slope(model, optimizer)
    names = list(named_weights(model))[: len(parameters(model))]
    sizes = np.array([columns[i][0].size for i in range(len(names))])
    products = np.zeros((len(columns[0]), len(names)))
    for chain in chains:
        for draws, others in _halves(chain):
            centres = [_centre(column, draws, others) for column in columns]
            for draw in draws:
                values = [column[draw] for column in columns]
                slopes = [checked_finite("gradient", g) for g in slope(values, batches.draw())]
                products[draw] = [
                    np.sum((θ - c) * g) for θ, c, g in zip(values, centres, slopes, strict=False)
                ]
    series = np.c_[products / sizes, products.sum(axis=1) / sizes.sum()]
    return _averaged([series[chain] for chain in chains], names, optimizer.temperature)


def kinetic_temperature(optimizer) -> Temperature:
    """T_K: the mean of r² over the momenta that a sampler such as `kl.SGHMC` holds at present
    (`kinetic_energies` of `kl.SamplerProtocol`). In equilibrium and for short steps d T_K/T follows
    χ²_d, which gives the band.

    Args:
        optimizer: A sampler with momenta that has trained, `model.optimizer`.

    Raises:
        ValueError: If the optimizer has none, or has not been built.

    Example:

    >>> model.compile(optimizer=kl.SGHMC(0.01, num_data=len(x)), loss=loss)
    >>> model.fit(x, y, epochs=20)
    >>> found = kl.diagnostics.kinetic_temperature(model.optimizer)
    >>> {name: found.by_variable[name] for name in found.by_variable}

    References:
        F. Wenzel et al., "How Good is the Bayes Posterior in Deep Neural Networks Really?", ICML
        2020, section 4.2 and appendix D.
    """
    found = stated_kinetic_temperature(as_sampler(optimizer))
    if found is None:
        is_built = getattr(inner_optimizer(optimizer), "built", False)
        raise ValueError(
            "Only a sampler with momenta, such as `kl.SGHMC`, has kinetic energies, from the first "
            f"step on. Received: optimizer={type(inner_optimizer(optimizer)).__name__}, "
            f"{'built' if is_built else 'not built'}. Train with it first; for other samplers "
            "there is `kl.diagnostics.configurational_temperature`."
        )
    return found


def stated_kinetic_temperature(optimizer):
    """The same of a sampler, None where it states no energies: these are read once."""
    energies = optimizer.kinetic_energies()
    if energies is None:
        return None
    names = [v.path for v in optimizer.sampled_variables]
    sizes = np.array([math.prod(v.shape) for v in optimizer.sampled_variables])
    bands = [_scaled(chi_squared_band(size), optimizer.temperature) for size in sizes]
    low, high = _scaled(chi_squared_band(sizes.sum()), optimizer.temperature)
    return Temperature(
        value=float(np.sum(sizes * energies) / sizes.sum()),
        low=low,
        high=high,
        expected=optimizer.temperature,
        by_variable=dict(zip(names, energies, strict=True)),
        band_by_variable=dict(zip(names, bands, strict=True)),
        num_draws=1,
        effective_draws=1.0,
    )


def chi_squared_band(degrees_of_freedom):
    """The 0.5 % and 99.5 % quantiles of χ²_d/d, to 1 % from d = 20 (Wilson and Hilferty 1931)."""
    variance = 2.0 / (9.0 * degrees_of_freedom)
    bounds = (1.0 - variance + z * variance**0.5 for z in (-NORMAL_QUANTILE, NORMAL_QUANTILE))
    return tuple(max(bound, 0.0) ** 3 for bound in bounds)


def _scaled(band, temperature):
    return tuple(float(temperature * bound) for bound in band)


def _halves(chain):
    """The draws of each half of a chain, with those of the other."""
    if len(chain) < 4:
        raise ValueError(
            f"There must be at least 4 samples in a chain. Received: {len(chain)} samples. Train "
            "longer, or with a smaller `thinning`."
        )
    first, second = np.array_split(chain, 2)
    return (first, second), (second, first)


def _centre(column, draws, others):
    return column[others].mean(axis=0, dtype="float64")


def _averaged(series, names, expected):
    """From one array a chain, with a column for every variable and a last one for all."""
    pooled = np.concatenate(series)
    values, widths, sizes = pooled.mean(axis=0), *_half_widths(series)
    bands = [(float(expected - w), float(expected + w)) for w in widths]
    return Temperature(
        value=float(values[-1]),
        low=bands[-1][0],
        high=bands[-1][1],
        expected=expected,
        by_variable=dict(zip(names, values[:-1].tolist(), strict=True)),
        band_by_variable=dict(zip(names, bands[:-1], strict=True)),
        num_draws=len(pooled),
        effective_draws=float(sizes[-1]),
    )


def _half_widths(series):
    """t s/√ESS of each column, and ESS: of half chains, which is too large less often. The mean
    square deviation from the mean of the draws is (1 − 1/ESS) s² on average."""
    import tensorflow_probability as tfp

    pooled = np.concatenate(series)
    parts = [half for chain in series for half in np.array_split(chain, 2) if len(half) >= 4]
    sizes = np.nan_to_num(effective_sample_size(parts or series), nan=1.0)
    sizes = np.clip(sizes, 1.0, len(pooled))
    degrees = np.maximum(sizes - 1.0, 1.0)
    student = tfp.distributions.StudentT(degrees, np.float64(0), np.float64(1))
    quantiles = student.quantile(np.float64(0.995)).numpy()
    return quantiles * pooled.std(axis=0) / np.sqrt(degrees), sizes


class Slope:
    """∇U from the values of all weights and batches of data, one array a parameter."""

    def __init__(self, model, optimizer):
        self.model, self.num_data = model, optimizer.num_data
        self.weights = list(named_weights(model).values())
        self.priors = [optimizer.prior.for_variable(v) for v in parameters(model)]
        self.of_batch = FirstThatWorks(compiled(self._of_batch, m) for m in ways_to_compile())

    def __call__(self, values, batches):
        values = [ops.convert_to_tensor(v) for v in values]
        total = sum(map(num_examples, batches))
        sums = [0.0] * len(self.priors)
        for batch in batches:
            share = self.num_data * num_examples(batch) / total
            slopes = self.of_batch(values, tensors(batch))
            sums = [
                s + share * np.asarray(ops.convert_to_numpy(g), "float64")
                for s, g in zip(sums, slopes, strict=True)
            ]
        return sums

    def _of_batch(self, values, data):
        """∇U/N."""
        count = len(self.priors)
        sampled, fixed = [ops.cast(v, "float32") for v in values[:count]], values[count:]
        with untracked(self.model):
            loss = ModelLoss(self.model, self.weights, *data)
            slopes = gradient(lambda sampled: loss.value([*sampled, *fixed]), sampled)
        return [
            prior.add_score(θ, -1.0 / self.num_data, g)
            for prior, θ, g in zip(self.priors, sampled, slopes, strict=True)
        ]


class _Batches:
    """All data, or some random batches of equal size, anew for each draw."""

    def __init__(self, data, batch_size, num_batches):
        total = num_examples(data)
        size = min(BATCH_SIZE, total) if batch_size is None else batch_size
        size = integer("batch_size", size, at_least=1)
        self.data, self.size, self.total = data, min(size, total), total
        self.count = None if num_batches is None else integer("num_batches", num_batches, 1)
        self.generator = np.random.default_rng(0)
        if self.count is None:
            self.all = [tensors(batch) for batch in self._cut(np.arange(total))]

    def draw(self):
        if self.count is None:
            return self.all
        order = self.generator.permutation(self.total)
        count = min(self.count, self.total // self.size)
        return self._cut(order[: count * self.size])

    def _cut(self, order):
        parts = [order[i : i + self.size] for i in range(0, len(order), self.size)]
        return [rows(self.data, part) for part in parts]
