"""BatchNormalization with held statistics: every example has a likelihood of its own."""

import contextlib
import functools
import itertools
import types

import keras
import numpy as np
from keras import ops

from keras_langevin import arguments, keras_arguments, keras_internals
from keras_langevin.keras_internals import data_batches
from keras_langevin.statistics.track import untracked


def freeze_batch_normalization(model, x=None, batch_size=None, *, steps=None, freeze=True):
    """Has all `BatchNormalization` layers of a model normalize by held moments while it trains, as
    they do when it predicts.

    With the moments of the batch the output for one example depends on all others, and the
    likelihood of one example, its gradient and the posterior are not defined: samplers that
    measure examples (`kl.QDOPLangevin`, `kl.DOPLangevin`) refuse such a layer, and others sample
    what depends on the batch size. With held moments a network is the same function of its weights
    in training and in prediction. γ and β are trained and sampled as before.

    The moments are estimated on the training data, first by batches, then once more with the
    moments of the first pass held, as they will be met. They are weights of the model as before
    (`moving_mean`, `moving_variance`), so samples and files have them. That they are held is not
    in a file or a clone: such a model is the same in prediction, and is frozen by another call
    before it trains.

    Train a network with another optimizer first: moments at its first, random weights are far from
    those that it will have, and γ and β alone can make up for that.

    Args:
        model: A built `keras.Model`, compiled or not; models within it count. Compile it before or
            after, as you like.
        x: Training inputs, arrays or a dataset as `fit` takes them; of a generator, which is read
            once, the moments of the first pass count. None holds the moments that the
            layers have, such as those of a network trained before; layers with `trainable = False`
            keep theirs always.
        batch_size: Of arrays. None: 32.
        steps: How many batches are used; None for all, which an endless dataset has not.
        freeze: False undoes it: the layers normalize by batches again and follow them.

    Returns:
        The model.

    Raises:
        ValueError: If the model is not built or has no such layer, or the data are endless.

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    x, y = np.random.normal(size=(100, 4)), np.random.normal(size=(100, 1))
    dense, norm = keras.layers.Dense(8), keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((4,)), dense, norm, keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
    model.fit(x, y, epochs=5, verbose=0)
    kl.freeze_batch_normalization(model, x)
    model.compile(optimizer=kl.QDOPLangevin(num_data=len(x)), loss="mse")
    sampler = kl.PosteriorSampler(burn_in=5)
    model.fit(x, y, epochs=10, callbacks=[sampler], verbose=0)
    len(sampler.samples)  # 5
    ```
    """
    keras_arguments.built_model("model", model)
    arguments.boolean("freeze", freeze)
    if batch_size is not None:
        batch_size = arguments.integer("batch_size", batch_size, at_least=1)
    if steps is not None:
        steps = arguments.integer("steps", steps, at_least=1)
    layers = [x for x in keras_internals.flatten_layers(model) if _is_normalization(x)]
    if not layers:
        raise ValueError(
            "`model` must have `BatchNormalization` layers. Received: model "
            f"'{model.name}', which has none and needs no call."
        )
    if x is not None and freeze:
        _refuse_endless(x, steps)
        _check_inputs(model, x, batch_size)
    with untracked(model):
        for layer in layers:
            _release(layer)
        if freeze:
            calls = [HeldCall(layer) for layer in layers]
            calls = [call for call in calls if call.layer.trainable]
            if x is not None:
                is_read_once = hasattr(x, "__next__")
                for by_batches in (True,) if is_read_once else (True, False):
                    _estimate(model, calls, x, batch_size, steps, by_batches)
    keras_internals.forget_compiled_functions(model)
    return model


def is_held(layer) -> bool:
    """Whether a `BatchNormalization` layer normalizes by held moments."""
    call = layer.__dict__.get("call")
    return isinstance(getattr(call, "own", call), HeldCall)


class HeldCall:
    """Stands as `layer.call` of a `BatchNormalization`: normalizes by the moments that it has.

    Args:
        layer: The layer.
    """

    def __init__(self, layer):
        self.layer, self.plain_call = layer, layer.call
        self.moments = None  # a list, while they are estimated
        functools.update_wrapper(self, self.plain_call)
        layer.__dict__["call"] = self

    def __call__(self, inputs, training=None, **kwargs):
        if self.moments is None:
            return self.plain_call(inputs, training=False, **kwargs)
        held = self.held()
        followed = self._follow(inputs, kwargs)
        self.moments.append((ops.shape(inputs)[0], *self.held()))
        if self.by_batches:
            return followed
        self.hold(*held)
        return self.plain_call(inputs, training=False, **kwargs)

    def held(self):
        layer = self.layer
        return [
            np.asarray(ops.convert_to_numpy(v), "float64")
            for v in (layer.moving_mean, layer.moving_variance)
        ]

    def hold(self, mean, variance):
        self.layer.moving_mean.assign(mean)
        self.layer.moving_variance.assign(variance)

    def _follow(self, inputs, kwargs):
        """The output by the moments of the batch, which the layer's variables hold afterwards."""
        layer = self.layer
        before = layer.momentum, layer.renorm
        layer.momentum, layer.renorm = 0.0, False
        try:
            return self.plain_call(inputs, training=True, **kwargs)
        finally:
            layer.momentum, layer.renorm = before

    def hold_mean_moments(self):
        """Those of all examples that were met: the variance also counts how the means differ."""
        if not self.moments:  # the model has not called it
            return
        sizes, means, variances = zip(*self.moments, strict=True)
        mean = np.average(means, axis=0, weights=sizes)
        between = np.average(np.square(np.asarray(means) - mean), axis=0, weights=sizes)
        self.hold(mean, np.average(variances, axis=0, weights=sizes) + between)


def _estimate(model, calls, x, batch_size, steps, by_batches):
    for call in calls:
        call.moments, call.by_batches = [], by_batches
    try:
        with _named(x):
            for inputs in itertools.islice(_batches(x, batch_size), steps):
                model(inputs, training=False)
            for call in calls:
                call.hold_mean_moments()
    finally:
        for call in calls:
            call.moments = None


def _batches(x, batch_size):
    """The inputs of each batch, tensors."""
    is_arrays = all(hasattr(a, "shape") or hasattr(a, "__array__") for a in keras.tree.flatten(x))
    for inputs, _, _ in data_batches((x,) if is_arrays else x, batch_size):
        yield keras.tree.map_structure(ops.convert_to_tensor, inputs)


def _check_inputs(model, x, batch_size):
    """ValueError where the model does not take the first batch; a generator's is not read."""
    if isinstance(x, types.GeneratorType):
        return
    with _named(x), untracked(model):
        model(next(_batches(x, batch_size)), training=False)


@contextlib.contextmanager
def _named(x):
    """Inside, whatever layers, adapters and backends may raise becomes one ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            "`x` must be training inputs as `fit` takes them, arrays or a dataset. Received: "
            f"x={arguments.shorten(x)}. {error}"
        ) from error


def _refuse_endless(x, steps):
    cardinality = getattr(x, "cardinality", None)
    is_endless = callable(cardinality) and int(cardinality()) == -1
    if steps is None and (is_endless or hasattr(x, "__next__")):
        raise ValueError(
            "`steps` must say how many batches are used of data that may be endless. Received: "
            f"x={arguments.shorten(x)}, steps=None."
        )


def _release(layer):
    if isinstance(layer.__dict__.get("call"), HeldCall):
        del layer.__dict__["call"]


def _is_normalization(layer):
    return isinstance(layer, keras.layers.BatchNormalization)
