"""Every block of code in README, `docs/` and the docstrings runs, and every argument is explained.

What an example may take for granted is in `Context`, and nowhere else. Values that an example
shows below its code are compared with what it gives.
"""

import contextlib
import doctest
import functools
import importlib
import inspect
import io
import pathlib
import pkgutil
import re
import textwrap

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import keras_langevin as kl

ROOT = pathlib.Path(__file__).parents[2]
BACKEND = keras.backend.backend()
LOSS = functools.partial(keras.losses.SparseCategoricalCrossentropy, from_logits=True)
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NUM_FEATURES, NUM_CLASSES = 6, 4

pytestmark = [
    # A few epochs on a few examples are no good chain, and the samplers say so.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # np.array(tensor, copy=False) in Keras' own torch backend.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]


# ------------------------------------------------------------------------------ the context


class Context:
    """What examples name without having made it: a classifier, its data, and a run of a sampler."""

    def __init__(self):
        generator = np.random.default_rng(0)
        x = generator.normal(size=(160, NUM_FEATURES)).astype("float32")
        y = (2 * (x[:, 0] > 0) + (x[:, 1] > 0)).astype("int64")
        self.data = {
            "x": x[:96],
            "x_train": x[:96],
            "x_test": x[96:],
            "x_probe": x[96:104],
            "y": y[:96],
            "y_train": y[:96],
            "y_test": y[96:],
        }
        self.model = self.network()
        metric = kl.preconditioners.QuasiDiagonalOuterProduct()
        self.model.compile(kl.SGHMC(1e-3, num_data=96, preconditioner=metric), LOSS())
        self.sampler = kl.PosteriorSampler(burn_in=4)
        self.model.fit(x[:96], y[:96], epochs=12, verbose=0, callbacks=[self.sampler])
        self.ensemble = self.sampler.ensemble()
        members = self.ensemble.predict_members(self.data["x_test"], verbose=0)
        self.of_predictions = {
            "log_likelihood": np.log(members[:, np.arange(64), self.data["y_test"]]),
            "point": members[0],  # the predictions of one network
            "mean": generator.normal(size=64),
            "stddev": np.ones(64),
            "draws": generator.normal(size=1000),
            "curve": kl.diagnostics.running_log_predictive_density(np.log(members[..., 0])),
        }

    def network(self):
        hidden = keras.layers.Dense(8, activation="tanh")
        return keras.Sequential(
            [keras.Input((NUM_FEATURES,)), hidden, keras.layers.Dense(NUM_CLASSES)]
        )

    def train_fn(self, chain):
        """What `kl.sample_chains` runs."""
        return self.model, list(self.sampler.samples)

    def names(self, source):
        """For one example: a model of its own, not trained, where it compiles it."""
        is_compiled = "model.compile(" in source
        return {
            "keras": keras,
            "np": np,
            "kl": kl,
            "__name__": "example",
            **self.data,
            **self.of_predictions,
            "loss": LOSS(),
            "model": self.network() if is_compiled else self.model,
            "sampler": self.sampler,
            "ensemble": self.ensemble,
            "train_fn": self.train_fn,
        }


@pytest.fixture(scope="module")
def context():
    keras.utils.set_random_seed(0)
    return Context()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Examples write files."""
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def run(source, names, wanted=None):
    """Executes a piece of an example; `wanted` is what it prints, as doctest has it."""
    mode = "single" if wanted else "exec"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "<example>", mode), names)
    if wanted:
        checker, flags = doctest.OutputChecker(), doctest.NORMALIZE_WHITESPACE
        if not checker.check_output(wanted, printed.getvalue(), flags):
            pytest.fail(f"{source}gives\n{printed.getvalue()}and not\n{wanted}")


def needed(source):
    """What an example needs that may be missing, or None; imports what it does not import."""
    names = {}
    for name, module in (
        ("tf", "tensorflow"),
        ("tfp", "tensorflow_probability"),
        ("arviz", "arviz"),
    ):
        if re.search(rf"\b{name}\.", source):
            names[name] = pytest.importorskip(module)
    if "tfp" in names and BACKEND != "tensorflow":
        pytest.skip("priors of TensorFlow Probability need the backend tensorflow")
    if BACKEND == "torch" and re.search(r"export\(|saved_model", source):
        pytest.skip("Keras exports from torch in other formats")
    return names


# ---------------------------------------------------------------------------- the examples


def modules():
    yield kl
    for info in pkgutil.walk_packages(kl.__path__, "keras_langevin."):
        yield importlib.import_module(info.name)


def docstrings():
    """From the name of every module, class, method and function of the package to its text."""
    found = {}
    for module in modules():
        found[module.__name__] = module.__doc__
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) != module.__name__:
                continue
            full = f"{module.__name__}.{name}"
            if inspect.isclass(value):
                found[full] = value.__doc__
                for own, method in vars(value).items():
                    found[f"{full}.{own}"] = getattr(method, "__doc__", None)
            elif inspect.isfunction(value):
                found[full] = value.__doc__
    return {name: inspect.cleandoc(text) for name, text in found.items() if text}


# Pieces that are shown and cannot run here, by a word of theirs.
NOT_RUN = {
    "ProcessPoolExecutor": "other processes need a function of a module: see test_chains.py",
}


def pieces(text):
    """(source, wanted) of every piece of code in a docstring."""
    for example in doctest.DocTestParser().get_examples(text):
        yield example.source, example.want
    for _, block in BLOCK.findall(text):
        if not any(word in block for word in NOT_RUN):
            yield textwrap.dedent(block), None


EXAMPLES = {name: code for name, text in docstrings().items() if (code := list(pieces(text)))}
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


def marks(name):
    """What trains is no part of the quick tests."""
    trains = any("fit(" in source or "learning_rate(" in source for source, _ in EXAMPLES[name])
    return pytest.mark.slow if trains else ()


@pytest.mark.parametrize("name", [pytest.param(n, marks=marks(n)) for n in EXAMPLES])
def test_the_example_of_a_docstring_runs(name, context):
    whole = "\n".join(source for source, _ in EXAMPLES[name])
    names = {**needed(whole), **context.names(whole)}
    for source, wanted in EXAMPLES[name]:
        run(source, names, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.skipif(BACKEND != "jax", reason="pages are the same on every backend")
def test_the_code_of_a_page_runs(page, context):
    """Its blocks in their order, each with the names of those before. Where they train a network
    of their own, it is one of digits."""
    blocks = [textwrap.dedent(block) for _, block in BLOCK.findall(page.read_text())]
    digits, labels = load_digits(return_X_y=True)
    digits = (digits / 16.0).astype("float32")
    names = {**needed("\n".join(blocks)), **context.names("")}
    names |= {"x_train": digits[:100], "y_train": labels[:100]}
    names |= {"x_test": digits[100:200], "y_test": labels[100:200]}
    for block in blocks:
        run(block, names)


def test_examples_are_found():
    """So that the tests above cannot pass by looking nowhere."""
    for name in (
        "keras_langevin",
        "keras_langevin.optimizers.sgld.SGLD",
        "keras_langevin.statistics.registry.LayerRule",
        "keras_langevin.sampling.posterior_sampler.PosteriorSampler",
        "keras_langevin.ensemble.model.BayesianEnsembleModel.report",
    ):
        assert EXAMPLES[name]
    assert len(EXAMPLES) > 60
    assert all(any(word in text for text in docstrings().values()) for word in NOT_RUN)
    assert len(BLOCK.findall(PAGES[0].read_text())) >= 2


def test_a_wrong_value_in_an_example_is_noticed():
    run("1 + 1\n", {}, "2\n")
    with pytest.raises(pytest.fail.Exception, match="gives\n2\nand not\n3"):
        run("1 + 1\n", {}, "3\n")


# --------------------------------------------------------------------------- the arguments


def public():
    """From name to class or function: what users call."""
    for name in kl.__all__:
        value = getattr(kl, name)
        if inspect.ismodule(value):
            for own in value.__all__:
                inner = getattr(value, own)
                if not inspect.ismodule(inner):
                    yield f"{name}.{own}", inner
        else:
            yield name, value


def parameters(value):
    """Names that a call takes."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [p.name for p in inspect.signature(value).parameters.values() if p.kind not in kinds]


def explained(text):
    """Names that the sections `Args:` and `Attributes:` of a docstring explain."""
    names = set()
    for section in re.findall(
        r"^(?:Args|Attributes)[^\n]*:\n((?:(?: +[^\n]*)?\n)+)", text + "\n", re.MULTILINE
    ):
        body = textwrap.dedent(section)
        for entry in re.split(r"\n(?=\S)", body):
            head = re.match(r"((?:\*{0,2}\w+,?\s*)+):", entry)
            if head:
                names |= set(re.findall(r"\w+", head.group(1)))
    return names


def documentation(value):
    """A class's own text, and that of the parents whose `__init__` it has."""
    if not inspect.isclass(value):
        return [value.__doc__]
    texts = []
    for cls in value.__mro__:
        texts += [cls.__doc__, cls.__init__.__doc__ if "__init__" in vars(cls) else None]
        if "__init__" in vars(cls):
            break
    return texts


PUBLIC = {name: value for name, value in public() if callable(value)}


def unexplained(value):
    texts = [inspect.cleandoc(text) for text in documentation(value) if text]
    return set(parameters(value)) - set().union(*map(explained, texts))


def test_every_argument_is_explained():
    missing = {}
    for name, value in PUBLIC.items():
        if inspect.isclass(value) and issubclass(value, BaseException):
            continue
        if names := unexplained(value):
            missing[name] = sorted(names)
    assert not missing


def test_an_argument_that_is_not_explained_is_noticed():
    class Mine:
        """Does it.

        Args:
            first, second: Numbers: both.
            third: A number,
                see fourth: there.
        """

        def __init__(self, first, second, third, fourth, **kwargs):
            pass

    assert unexplained(Mine) == {"fourth"}
