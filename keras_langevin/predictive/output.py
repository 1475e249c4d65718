"""Which likelihood family a model's outputs belong to: from the compiled loss or by name.

A wrong family would give wrong probabilities without a sign, so whatever cannot be known, or
is said in two ways that differ, is an error.
"""

import keras
from keras import ops

from keras_langevin import arguments
from keras_langevin.keras_internals import compile_argument, last_activation
from keras_langevin.predictive.bernoulli import Bernoulli
from keras_langevin.predictive.categorical import Categorical
from keras_langevin.predictive.gaussian import Gaussian
from keras_langevin.predictive.registry import choices, family_named, find_family


class UnknownLikelihood(ValueError):
    """Neither the loss nor `output` says what the outputs mean.

    Attributes:
        received: What there was, in words.
    """

    def __init__(self, received, activation):
        self.received = received
        super().__init__(
            f"What the outputs of the model mean must be known. Received: {received}, and "
            f"output=None. Pass `output=`, one of:\n{choices(activation)}\nor add a likelihood of "
            "your own with `kl.predictive.register_family`."
        )


def resolve_families(model, output=None, noise_stddev=None, options=None):
    """The family of each output of a model, in the structure of its outputs.

    Args:
        model: A `keras.Model`; what it was compiled with counts.
        output: `None`, or a name of a registered family, or a structure of them like the
            model's outputs.
        noise_stddev: `None`, a number, `"mse"`, or a structure of them like `output`.
        options: `None`, or a list with the `Family.options` of each output, in the order of
            `keras.tree.flatten`: what made families say more than their names.

    Raises:
        ValueError: When a family is not known, or said in two ways that differ.
    """
    output, noise_stddev = checked_meaning(output, noise_stddev)
    loss = compile_argument(model, "loss")
    structure = _structure(model, output if output is not None else loss)
    count = len(keras.tree.flatten(structure))
    tensors = keras.tree.flatten(_outputs(model)) if _is_functional(model) else [None] * count
    losses = _spread(loss, "loss", structure, model)
    is_partly_trained = any(one is not None for one in losses)  # others are beside the loss
    families = [
        _resolve(*one, model, is_partly_trained)
        for one in zip(
            _spread(output, "output", structure, model),
            _spread(noise_stddev, "noise_stddev", structure, model),
            [{}] * count if options is None else options,
            losses,
            _spread(compile_argument(model, "loss_weights"), "loss_weights", structure, model),
            tensors,
            strict=True,
        )
    ]
    return keras.tree.pack_sequence_as(structure, families)


def checked_meaning(output, noise_stddev):
    """`output` and `noise_stddev`, or structures of them, as far as no model is needed for it."""
    return (
        _checked_leaves("output", output, _checked_output),
        _checked_leaves("noise_stddev", noise_stddev, _checked_stddev),
    )


def one_per_output(model, name, value):
    """One entry of `value` for each output of a compiled model, in the order of
    `keras.tree.flatten`. `value`, called `name` in errors, is one for all of them, or has the
    structure of the outputs or their names."""
    return _spread(value, name, _structure(model, compile_argument(model, "loss")), model)


def _structure(model, said):
    """The structure of the outputs where it is known, else that of what was said of them."""
    like = _outputs(model) if _is_functional(model) else said
    return keras.tree.map_structure(lambda _: 0, like)


def _outputs(model):
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output


def _is_functional(model):
    return hasattr(model, "outputs")


def _spread(value, name, structure, model):
    """One entry of `value` for each output, in the order of `keras.tree.flatten`."""
    count = len(keras.tree.flatten(structure))
    if not keras.tree.is_nested(value):
        return [value] * count
    names = list(getattr(model, "output_names", []))
    if isinstance(value, dict) and not isinstance(structure, dict) and set(value) <= set(names):
        return [value.get(key) for key in names]
    if isinstance(value, dict) and isinstance(structure, dict) and set(value) <= set(structure):
        flat = {key: value.get(key) for key in structure}
        if all(not keras.tree.is_nested(v) for v in flat.values()):
            return keras.tree.flatten(flat)
    flat = keras.tree.flatten(value)
    if len(flat) != count:
        raise ValueError(
            f"`{name}` must have the structure of the model's outputs, "
            f"{keras.tree.map_structure(lambda _: '...', structure)}. Received: {name}={value}."
        )
    return flat


def _checked_leaves(name, value, checked):
    if not keras.tree.flatten(value):
        raise ValueError(
            f"`{name}` must have the structure of the model's outputs. Received: "
            f"{name}={value!r}, which is empty."
        )
    return keras.tree.map_structure(lambda one: None if one is None else checked(one), value)


def _checked_output(output):
    family_named(output)
    return output


def _checked_stddev(noise_stddev):
    if isinstance(noise_stddev, str) and noise_stddev == "mse":
        return noise_stddev
    return arguments.width("noise_stddev", noise_stddev)


def _resolve(output, noise_stddev, options, loss, loss_weight, tensor, model, is_partly_trained):
    by_loss = None if loss is None else _family_of_loss(loss, tensor)
    said = None if loss is None else loss_name(loss)
    if by_loss is not None and by_loss.loss_sets_scale:
        reduction = getattr(loss, "reduction", None)
        is_number = noise_stddev not in (None, "mse")
        if reduction == "sum":
            by_loss, said = None, f"{said} and reduction={reduction!r}"
        elif loss_weight not in (None, 1) and (is_number or not loss_weight > 0):
            by_loss, said = None, f"{said} and loss_weights={loss_weight}"
        else:
            by_loss = by_loss.weighted(loss_weight)
    activation = None if tensor is None else last_activation(tensor)
    if output is None:
        if loss is None and is_partly_trained:
            return family_named("values").from_name("values")
        if by_loss is None:
            nothing = "a model that is not compiled with a loss"
            received = nothing if loss is None else f"a model with loss={said}"
            raise UnknownLikelihood(received, activation)
        if noise_stddev is not None and noise_stddev != by_loss.noise_stddev:
            raise _contradiction(f"noise_stddev={noise_stddev!r}", said, by_loss)
        family = by_loss
    else:
        family = _family_by_name(output, noise_stddev, options, by_loss)
        is_other = family.has_likelihood and by_loss is not None
        if is_other and _words(family) != _words(by_loss):
            raise _contradiction(_words(family), said, by_loss)
    _check_last_activation(family, activation, said)
    return family.weighted(loss_weight).for_rank(_rank(tensor, model))


def _family_by_name(output, noise_stddev, options, by_loss):
    family = family_named(output)
    if not issubclass(family, Gaussian):
        if noise_stddev is not None:
            raise ValueError(
                '`noise_stddev` is only for output="mean". '
                f"Received: noise_stddev={noise_stddev!r}, output={output!r}."
            )
        same = by_loss is not None and type(by_loss) is family and by_loss.output == output
        return by_loss if same and not options else family.from_name(output, **options)
    if noise_stddev is None and by_loss is not None:
        noise_stddev = by_loss.noise_stddev
    if noise_stddev is None:
        raise ValueError(
            'output="mean" must come with `noise_stddev`, the standard deviation of the noise in '
            'the units of y, or "mse" for the variance d / 2 that a mean squared error of d '
            "outputs stands for. Received: noise_stddev=None."
        )
    return family(_checked_stddev(noise_stddev))


def _family_of_loss(loss, tensor):
    """The family of a loss whose meaning is certain, else None."""
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        if tensor is None:
            return None
        is_binary = tensor.shape[-1] == 1
        return Bernoulli("binary_probabilities") if is_binary else Categorical("probabilities")
    return find_family(loss)


def _rank(tensor, model):
    """Axes of an output, None where nothing says how many."""
    if tensor is not None:
        return len(tensor.shape)
    try:
        shape = model.get_build_config()["input_shape"]
        return len(model.compute_output_spec(keras.KerasTensor(shape)).shape)
    except Exception:  # whatever a `call` of the user's may raise, or several outputs
        return None


def loss_name(loss):
    """The name that an error gives a loss."""
    if isinstance(loss, str):
        return loss
    return getattr(loss, "__name__", type(loss).__name__)


def _words(family):
    noise = "" if family.noise_stddev is None else f", noise_stddev={family.noise_stddev!r}"
    options = "".join(f", {name}={value!r}" for name, value in family.options.items())
    return f'output="{family.output}"{noise}{options}'


def _contradiction(said, loss, by_loss):
    return ValueError(
        f"The compiled loss {loss} means {_words(by_loss)}. Received: {said}. Leave the argument "
        "out, or compile the model with the loss you mean; a Gaussian noise of known stddev is "
        "`keras_langevin.losses.GaussianNLL(stddev)`."
    )


def _check_last_activation(family, activation, loss):
    if activation not in family.impossible_activations:
        return
    source = f"the loss {loss}" if loss is not None else f'output="{family.output}"'
    received, change = f"activation={activation}", "`output`"
    if family.output.endswith(("logits", "probabilities")):
        received += f", from_logits={family.output.endswith('logits')}"
        change = "`from_logits` (or `output`)"
    raise ValueError(
        f"{source} says that the outputs are {family.output.replace('_', ' ')}, but the last "
        f"layer's activation is {activation}. Received: {received}. Change {change} or the "
        "activation, and train the model again if the loss was wrong."
    )


def at_least_float32(output):
    is_half = keras.backend.standardize_dtype(output.dtype) in ("float16", "bfloat16")
    return ops.cast(output, "float32") if is_half else output
