"""Checks of the arguments that all samplers have."""

import functools
import math
import warnings

import keras

from keras_langevin.arguments import (
    SMALLEST,
    boolean,
    instance,
    integer,
    non_negative_number,
    number,
    positive_number,
    shorten,
    unit_interval,
)
from keras_langevin.keras_arguments import keras_name
from keras_langevin.preconditioners.euclidean import Euclidean
from keras_langevin.preconditioners.preconditioner import Preconditioner

_HALF = ("float16", "bfloat16")
_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
# Of every Keras optimizer: how each is checked, and its default.
_KERAS_ARGUMENTS = {
    "name": (keras_name, None),
    "weight_decay": (non_negative_number, None),
    **{name: (positive_number, None) for name in _CLIPS},
    "use_ema": (boolean, False),
    "ema_momentum": (functools.partial(unit_interval, zero_allowed=True), 0.99),
    "ema_overwrite_frequency": (functools.partial(integer, at_least=1), None),
    "loss_scale_factor": (positive_number, None),
    "gradient_accumulation_steps": (functools.partial(integer, at_least=2), None),
}


def checked_preconditioner(preconditioner):
    """The metric, Euclidean for None."""
    if preconditioner is None:
        return Euclidean()
    words = "one of `kl.preconditioners`, or None"
    return instance("preconditioner", preconditioner, Preconditioner, words)


def checked_learning_rate(learning_rate):
    """The initial value; 0 for "auto", so that nothing moves before it is found."""
    if isinstance(learning_rate, str):
        if learning_rate != "auto":
            raise ValueError(
                '`learning_rate` must be a number >= 0, a schedule or "auto". Received: '
                f"learning_rate={learning_rate!r}"
            )
        return 0.0
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return learning_rate
    return non_negative_number("learning_rate", learning_rate)


def checked_num_data(num_data):
    """N, an integer where it is whole."""
    if num_data is None:
        raise ValueError(
            "`num_data` is required: the number of training examples N. The posterior is "
            "exp(-N * mean loss) times the prior, and nothing else tells the optimizer how large "
            "N is. Received: num_data=None. Pass `num_data=len(x_train)`."
        )
    value = number("num_data", num_data)
    if value < SMALLEST:
        raise ValueError(
            f"`num_data` must be greater than zero. Received: num_data={num_data!r}. Pass the "
            "number of training examples, `num_data=len(x_train)`."
        )
    is_whole = value == math.floor(value) and value < 2**31  # which backends take for integers
    return int(value) if is_whole else value


def checked_keras_arguments(kwargs):
    """Keras' own arguments; others are refused by name."""
    found = {}
    for name, value in kwargs.items():
        if name not in _KERAS_ARGUMENTS:
            raise TypeError(
                f"A sampler got an unexpected keyword argument '{name}'. Received: "
                f"{name}={shorten(value)}. Keras' own are {', '.join(_KERAS_ARGUMENTS)}."
            )
        check, default = _KERAS_ARGUMENTS[name]
        found[name] = None if default is None and value is None else check(name, value)
    clips = {name: found[name] for name in _CLIPS if found.get(name) is not None}
    if len(clips) > 1:
        raise ValueError(f"Give one of {_CLIPS} at most. Received: {clips}")
    return found


def refuse_what_changes_the_target(num_data, kwargs):
    """Of Keras' own arguments: refuses weight decay and averages of weights, warns of clips."""
    weight_decay = kwargs.get("weight_decay")
    if weight_decay is not None and non_negative_number("weight_decay", weight_decay) > 0:
        raise ValueError(
            "`weight_decay` would shift the samples off the declared target. Received: "
            f"weight_decay={weight_decay}. Declare it as a prior instead: "
            f"`prior=kl.priors.Normal(stddev={(num_data * weight_decay) ** -0.5:.4g})`, of "
            "variance 1 / (num_data * weight_decay)."
        )
    for name in ("use_ema", "ema_overwrite_frequency"):
        if kwargs.get(name):
            raise ValueError(
                f"`{name}` replaces the weights by an average of them, which collapses the "
                f"variance of the samples. Received: {name}={kwargs[name]}. Average predictions "
                "instead: `sampler.ensemble()`."
            )
    for name in _CLIPS:
        if kwargs.get(name) is not None:
            warnings.warn(
                f"`{name}` shortens large gradients, so the samples no longer follow exp(-U/T) "
                f"where it is active. Received: {name}={kwargs[name]}. A smaller `learning_rate` "
                "or another preconditioner keeps the target.",
                stacklevel=4,
            )


def refuse_double_precision(parameters):
    """Steps are computed in float32, which would round float64 weights to it."""
    double = [v for v in parameters if keras.backend.standardize_dtype(v.dtype) == "float64"]
    if double:
        raise ValueError(
            "The weights that are sampled must be float32: a step is computed in float32, and "
            f"would make float32 numbers of wider weights. Received: {shorten(double[0].path)} "
            f"of dtype float64{f' and {len(double) - 1} more' if len(double) > 1 else ''}. Call "
            '`keras.config.set_floatx("float32")` before the model is made, or give its layers '
            '`dtype="float32"`; the data may stay float64.'
        )


def check_parameters(parameters):
    """Before the first step: warns of weights whose samples cannot follow the target, and refuses
    those of double precision where that is asked for. Variables that are made from NumPy arrays
    are float64 by accident."""
    if keras.config.floatx() == "float64":
        refuse_double_precision(parameters)
    for variable in parameters:
        if getattr(variable, "constraint", None) is not None:
            warnings.warn(
                f"The constraint of {variable.path!r} is applied after each step: the samples "
                "follow the target folded by it, not the target.",
                stacklevel=4,
            )
    half = [v for v in parameters if keras.backend.standardize_dtype(v.dtype) in _HALF]
    if half:
        dtype = keras.backend.standardize_dtype(half[0].dtype)
        warnings.warn(
            f"The weights {[v.path for v in half]} are {dtype}: steps below a few thousandths of "
            "a weight, noise among them, are lost in rounding, so the samples do not follow the "
            f"target. Use the policy 'mixed_{dtype}', which keeps float32 weights.",
            stacklevel=4,
        )


def not_tracked(name):
    """The error of a sampler that finds nothing measured."""
    return ValueError(
        f"{name} needs per-example statistics, and the model it trains is not tracked. Received: "
        "no statistics. Either add `callbacks=[kl.PosteriorSampler(...)]` to `fit`, which installs "
        "the probes, or call `kl.track_statistics(model, optimizer)` before training."
    )


def no_learning_rate():
    """The error of `learning_rate="auto"` that nobody has found."""
    return ValueError(
        'Nothing has set the learning rate yet. Received: learning_rate="auto", and no '
        "`kl.PosteriorSampler` among the callbacks of `fit`. Add one, or call "
        "`model.optimizer.learning_rate = kl.find_learning_rate(model, x, y, batch_size)`."
    )
