"""What Adam and the ensemble say of the test data, and which stages of a program hold."""

import re
import tempfile
import time
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import ops, tree

import keras_langevin as kl
from keras_langevin.weights import named_weights

OF_KERAS = ("`shuffle=True` was passed", "`build()` was called")  # warnings, of Adam's `fit` too
STAGES = ("one member", "fit", "predict", "evaluate", "report", "save", "export")


def measured(program, seed, with_stages=True):
    """The row of a program: for Adam, the sampler and the warm start the test loss, the metric and
    the seconds of `fit`; a stage that failed with its words.

    The loss is that of `ensemble.evaluate`, Adam's weights being the only member.
    """
    keras.utils.clear_session()
    stages, row = Stages(), {"num_data": program.num_data, "epochs": program.epochs}
    model, seconds = trained(program, None, keras.optimizers.Adam(program.rate), seed)
    row |= of("adam", {"seconds": seconds})
    row |= of("adam", stages.run("one member", scores_of_one_member, program, model))
    ensemble, found = sampled(program, None, seed, stages)
    row |= of("ensemble", found)
    if ensemble is not None and with_stages:
        stages.run("report", reported, program, ensemble)
        stages.run("save", same_when_loaded, program, ensemble)
        stages.run("export", same_when_served, program, ensemble)
    warm = Stages()
    row |= of("warm", sampled(program, model, seed, warm)[1])
    return row | {"stages": stages.words, "warm_stages": warm.words, "warned": stages.warned}


def of(name, found):
    return {f"{name}_{key}": value for key, value in (found or {}).items()}


class Stages:
    """Attributes:
    words: By the name of a stage that was run None, or the words of its error.
    warned: First sentences of the warnings.
    """

    def __init__(self):
        self.words, self.warned = {}, []

    def run(self, name, function, *args):
        """What the function returns; None where it fails."""
        found, self.words[name] = None, None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                found = function(*args)
            except Exception as error:
                self.words[name] = f"{type(error).__name__}: {first_sentence(error)}"
        said = [first_sentence(w.message) for w in caught if w.category is UserWarning]
        new = [words for words in dict.fromkeys(said) if words not in self.warned]
        self.warned += [words for words in new if not words.startswith(OF_KERAS)]
        return found


def first_sentence(error):
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    text = re.sub(r"^Exception encountered when calling [^\n]*\n+", "", text)
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0][:300]


def trained(program, model, optimizer, seed, callbacks=()):
    """The model, new where None is given, and the seconds of the process in `fit`."""
    keras.utils.set_random_seed(seed)
    model = program.make() if model is None else model
    if program.extra_line is not None and callbacks:
        program.extra_line(model)
    model.compile(optimizer, loss=program.loss, metrics=program.metrics(), **program.compile)
    start = time.process_time()
    options = program.fit | {"epochs": program.epochs, "callbacks": list(callbacks), "verbose": 0}
    model.fit(*program.train, **options)
    return model, time.process_time() - start


def sampled(program, model, seed, stages):
    """The ensemble that the three lines give, None where one fails, and what it scores."""
    sampler = kl.PosteriorSampler()
    optimizer = kl.QDOPLangevin(num_data=program.num_data, **program.sampler)
    fitted = stages.run("fit", trained, program, model, optimizer, seed, [sampler])
    if fitted is None:
        return None, {}
    found = {"seconds": fitted[1], "members": len(sampler.samples)}
    ensemble = stages.run("ensemble", lambda: sampler.ensemble(output=program.output))
    if ensemble is None:
        return None, found
    stages.run("predict", predicted, ensemble, program.test)
    return ensemble, found | (stages.run("evaluate", scores, program, ensemble) or {})


def evaluated(model, program):
    return model.evaluate(*program.test, verbose=0, return_dict=True)


def scores(program, model):
    found = evaluated(model, program)
    found = {"loss": found["loss"], "metric": found[program.metric]}
    return {key: float(value) for key, value in found.items()}


def predicted(model, data):
    """A list of arrays."""
    found = [np.asarray(a, "float64") for a in tree.flatten(model.predict(data[0], verbose=0))]
    if not all(np.isfinite(a).all() for a in found):
        raise ValueError("Predictions are not finite.")
    return found


def scores_of_one_member(program, model):
    """Of the model's weights as an ensemble, which must score what the model does."""
    weights = {name: ops.convert_to_numpy(v) for name, v in named_weights(model).items()}
    one = kl.BayesianEnsembleModel(model, [weights], output=program.output)
    own, found = evaluated(model, program), evaluated(one, program)
    for name, value in own.items():
        if not name.endswith("loss"):
            close(name, found[name], value, program.tolerance)
    return scores(program, one) | {"own_loss": float(own["loss"])}


def reported(program, ensemble):
    training = program.train if len(program.train) == 2 else None
    report = ensemble.report(*program.test, training_data=training, verbose=0)
    return report.findings


def same_when_loaded(program, ensemble):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ensemble.keras"
        ensemble.save(path)
        loaded = keras.saving.load_model(path, safe_mode=False)
    same_predictions(loaded, ensemble, program)


def same_predictions(one, other, program):
    pairs = zip(predicted(one, program.test), predicted(other, program.test), strict=True)
    for a, b in pairs:
        close("predict", a, b, program.tolerance)


def same_when_served(program, ensemble):
    """The SavedModel gives what `predict` gives, for a few examples."""
    import tensorflow as tf

    x = a_few_inputs(program.test)
    with tempfile.TemporaryDirectory() as folder:
        ensemble.export(folder, verbose=False)
        artifact = tf.saved_model.load(folder)
        (signature,) = artifact.serve.input_signature
        served = artifact.serve(tree.map_structure(lambda s, a: tf.cast(a, s.dtype), signature, x))
    expected = tree.flatten(ensemble.predict(x, verbose=0))
    for a, b in zip(tree.flatten(served), expected, strict=True):
        close("serve", np.asarray(a), b, program.tolerance)


def a_few_inputs(data, count=5):
    if len(data) == 2:
        return tree.map_structure(lambda a: a[:count], data[0])
    for batch in data[0]:
        return tree.map_structure(lambda a: a[:count], batch[0])


def close(name, found, expected, tolerance):
    found, expected = np.asarray(found, "float64"), np.asarray(expected, "float64")
    gap = np.abs(found - expected).max()
    if not gap <= tolerance * max(1.0, np.abs(expected).max()):
        raise AssertionError(f"{name} differs by {gap:.2g}.")
