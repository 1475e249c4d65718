"""Small posteriors that can be sampled without an error worth mentioning: data, network,
likelihood and prior of each, all written out, so that none moves when a default does.

`POSTERIORS` are there without a download, `FROM_FOLDER` read files of `--data-dir`.
"""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
from sklearn import datasets

import keras_langevin as kl
from examples.studies.reference_posteriors import likelihoods
from examples.studies.reference_posteriors.likelihoods import Likelihood

MOST_TEST_POINTS = 50
PRIOR = {"stddev": 1.0}


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """p(weights | training data) of a network.

    Attributes:
        train, test: `(x, y)`; x an array, or a tuple of one for each input; y float32 `(rows,)`.
        network: Makes the Keras model, new initial weights each time.
    """

    name: str
    train: tuple
    test: tuple
    network: Callable
    likelihood: Likelihood

    @property
    def num_data(self):
        return len(self.train[1])

    def prior(self):
        """N(0, 1) on every weight."""
        return kl.priors.Normal(**PRIOR)

    def signature(self):
        """Words that change when the posterior does, so that no reference outlives it."""
        arrays = [np.abs(a).mean() for part in (self.train, self.test) for a in _flat(part)]
        model = self.network()
        layers = [type(layer).__name__ for layer in model.layers]
        activations = [x.activation.__name__ for x in model.layers if hasattr(x, "activation")]
        shapes = [tuple(w.shape) for w in model.trainable_variables]
        words = [self.name, self.num_data, PRIOR, layers, activations, shapes]
        words += [self.likelihood.loss().get_config(), *(f"{mean:.4g}" for mean in arrays)]
        return " ".join(map(str, words))


def load(name, folder=None):
    """The posterior of that name.

    Args:
        folder: `Path` of `--data-dir`, for those of `FROM_FOLDER`.
    """
    if name in POSTERIORS:
        return POSTERIORS[name]()
    if name in FROM_FOLDER and folder is not None:
        return FROM_FOLDER[name](folder)
    names = ", ".join([*POSTERIORS, *(f"{n} (with --data-dir)" for n in FROM_FOLDER)])
    raise SystemExit(f"A posterior must be one of {names}. Received: {name}.")


def names(folder=None):
    """Of the posteriors that can be loaded."""
    return [*POSTERIORS, *(FROM_FOLDER if folder else ())]


# ---------------------------------------------------------------------------- what several share


def dense(features, hidden, outputs, activation="tanh", last=None):
    """Makes the network features-hidden-outputs."""

    def network():
        return keras.Sequential(
            [
                keras.Input((features,)),
                keras.layers.Dense(hidden, activation),
                keras.layers.Dense(outputs, last),
            ]
        )

    return network


def parted(x, y, num_train, seed=0):
    """Training and test rows of a split that never changes; what is left over is not used."""
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:num_train], order[num_train : num_train + MOST_TEST_POINTS]
    return (x[train], y[train]), (x[test], y[test])


def standardised(array, reference):
    """In units of the training rows' mean and standard deviation."""
    return (array - reference.mean(axis=0)) / reference.std(axis=0)


def made(name, train, test, network, likelihood, scale_y=False):
    """A posterior of rows of numbers, standardised with the training rows."""
    (x, y), (x_test, y_test) = train, test
    if scale_y:
        y, y_test = standardised(y, y), standardised(y_test, y)
    parts = (standardised(x, x), y), (standardised(x_test, x), y_test)
    return Posterior(name, *(_floats(part) for part in parts), network, likelihood)


def _floats(part):
    return tuple(np.asarray(array, "float32") for array in part)


def _flat(part):
    x, y = part
    return [*(x if isinstance(x, tuple) else (x,)), y]


# -------------------------------------------------------------------------------- no download


def gap():
    """A curve on both sides of a gap: 1-20-1, to be looked at. The test points cross the gap."""
    generator = np.random.default_rng(0)

    def curve(x):
        return np.sin(1.5 * x) + 0.3 * x

    def with_noise(x):
        y = curve(x[:, 0]) + 0.2 * generator.normal(size=len(x))
        return _floats((x, y))

    sides = generator.uniform(1.0, 2.5, 100) * np.repeat([-1, 1], 50)
    train = with_noise(sides[:, None])
    test = with_noise(np.linspace(-3.5, 3.5, MOST_TEST_POINTS)[:, None])
    return Posterior("gap", train, test, dense(1, 20, 1), likelihoods.gaussian(0.2))


def diabetes():
    """10-8-1; the noise is about that of a linear regression."""
    data = parted(*datasets.load_diabetes(return_X_y=True), num_train=342)
    likelihood = likelihoods.gaussian(0.7)
    return made("diabetes", *data, dense(10, 8, 1), likelihood, scale_y=True)


def heteroscedastic():
    """A curve whose noise grows: 1-16-2, mean and log scale."""
    generator = np.random.default_rng(1)

    def rows(count):
        x = generator.uniform(-2, 2, size=(count, 1))
        scale = 0.1 + 0.2 * (x[:, 0] + 2) / 2
        return _floats((x, np.sin(2 * x[:, 0]) + scale * generator.normal(size=count)))

    network = dense(1, 16, 2)
    likelihood = likelihoods.gaussian_with_log_scale()
    return Posterior("heteroscedastic", rows(200), rows(50), network, likelihood)


def breast_cancer():
    """Five means of the cells' measures: 5-10-1."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    data = parted(x[:, :5], y, num_train=400)
    return made("breast_cancer", *data, dense(5, 10, 1), likelihoods.bernoulli())


def wine():
    """Three cultivars: 13-6-3."""
    data = parted(*datasets.load_wine(return_X_y=True), num_train=128)
    return made("wine", *data, dense(13, 6, 3), likelihoods.categorical())


def digits():
    """The first eight principal components of 500 handwritten digits: 8-12-10."""
    x, y = datasets.load_digits(return_X_y=True)
    (x, y), (x_test, y_test) = parted(x, y, num_train=500)
    mean = x.mean(axis=0)
    components = np.linalg.svd(x - mean, full_matrices=False)[2][:8].T
    data = ((x - mean) @ components, y), ((x_test - mean) @ components, y_test)
    return made("digits", *data, dense(8, 12, 10), likelihoods.categorical())


WORDS = {
    "weather": "rain wind sun cloud storm snow warm cold",
    "kitchen": "bread soup salt oven cook plate warm cold",
    "music": "song drum choir violin play loud storm plate",
}
COMMON = "the a and of in is was it we they very soon again today"


def text():
    """Sentences of eight words about three things: a bag of embeddings of three numbers, and a
    softmax. Half of the words, or more, say nothing."""
    generator = np.random.default_rng(2)
    topics, common = [words.split() for words in WORDS.values()], COMMON.split()
    vocabulary = sorted({*common, *(word for words in topics for word in words)})

    def sentence(topic):
        telling = generator.choice(topics[topic], generator.integers(0, 3)).tolist()
        return [*telling, *generator.choice(common, 8 - len(telling))]

    def rows(count):
        y = generator.integers(0, len(topics), count)
        x = [[vocabulary.index(word) for word in sentence(topic)] for topic in y]
        return np.array(x, "int32"), y.astype("float32")

    def network():
        return keras.Sequential(
            [
                keras.Input((8,), dtype="int32"),
                keras.layers.Embedding(len(vocabulary), 3),
                keras.layers.GlobalAveragePooling1D(),
                keras.layers.Dense(len(topics)),
            ]
        )

    return Posterior("text", rows(300), rows(50), network, likelihoods.categorical())


def counts():
    """Poisson counts that depend on a number and on one of twelve places, which are embedded in
    two numbers: (2 + 1)-8-1."""
    generator = np.random.default_rng(3)
    level = generator.normal(size=12)

    def rows(count):
        place, x = generator.integers(0, 12, (count, 1)), generator.uniform(-2, 2, (count, 1))
        rate = np.exp(0.5 + 0.7 * level[place[:, 0]] + 0.5 * np.sin(1.5 * x[:, 0]))
        y = generator.poisson(rate).astype("float32")
        return (place.astype("int32"), x.astype("float32")), y

    def network():
        place, x = keras.Input((1,), dtype="int32"), keras.Input((1,))
        embedded = keras.layers.Flatten()(keras.layers.Embedding(12, 2)(place))
        hidden = keras.layers.Concatenate()([embedded, x])
        hidden = keras.layers.Dense(8, "tanh")(hidden)
        return keras.Model((place, x), keras.layers.Dense(1, "exponential")(hidden))

    return Posterior("counts", rows(300), rows(50), network, likelihoods.poisson())


# ------------------------------------------------------------------------------- from a folder


def yacht(folder):
    """Resistance of yachts: 6-12-1, 120 rows."""
    rows = np.loadtxt(folder / "uci_regression/yacht/data.txt")
    data = parted(rows[:, :6], rows[:, 6], num_train=120)
    return made("yacht", *data, dense(6, 12, 1), likelihoods.gaussian(0.2), scale_y=True)


def german_credit(folder):
    """Good and bad credit by 24 numbers: 24-5-1."""
    rows = np.loadtxt(folder / "logistic_regression/german_credit/german.data-numeric")
    data = parted(rows[:, :-1], rows[:, -1] == 2, num_train=800)
    return made("german_credit", *data, dense(24, 5, 1), likelihoods.bernoulli())


_ALL = (gap, diabetes, heteroscedastic, breast_cancer, wine, digits, text, counts)
POSTERIORS = {function.__name__: functools.cache(function) for function in _ALL}
FROM_FOLDER = {function.__name__: functools.cache(function) for function in (yacht, german_credit)}
