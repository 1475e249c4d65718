"""An ensemble as a config: its network without the training, and what that leaves out."""

import copy
import os

import keras
import numpy as np

from keras_langevin.ensemble.outputs import Outputs
from keras_langevin.keras_internals import flatten_layers, unsafe_deserialization
from keras_langevin.predictive import resolve_families
from keras_langevin.statistics import untracked
from keras_langevin.weights import named_weights


def config_of(ensemble):
    """The part of an ensemble's config that is not every model's."""
    heads, members = ensemble.heads, ensemble.members
    with untracked(members.network):
        network = _serialized(members.network)
        lora = _lora_of(members.network)
        _check_that_it_comes_back(members.network, network, lora)
    return {
        "model": network,
        "num_members": len(members),
        "output": heads.structured(lambda f: f.output),
        "noise_stddev": heads.structured(lambda f: f.noise_stddev),
        "family_options": [family.options for family in heads],
        "member_batch_size": members.batch_size,
        "chains": ensemble.chains.tolist(),
        "weight_names": members.names,
        "lora": lora,
        "losses": [_serialized_loss(*pair) for pair in zip(heads, heads.losses, strict=True)],
        "loss_weights": list(heads.loss_weights),
    }


def made_again(cls, config, custom_objects=None):
    """The ensemble of a config, with members of zeros, to be filled from the weights' file."""
    config = dict(config)
    network = _rebuilt(config.pop("model"), config.pop("lora", ()), custom_objects)
    options, losses, loss_weights, names = (
        config.pop(name, None)
        for name in ("family_options", "losses", "loss_weights", "weight_names")
    )
    zeros = {name: np.zeros(v.shape) for name, v in named_weights(network).items()}
    ensemble = cls(network, [zeros] * config.pop("num_members"), **config)
    families = resolve_families(network, config["output"], config["noise_stddev"], options)
    losses = losses and [_loss(one, custom_objects) for one in losses]
    weights = iter(loss_weights or [1.0] * len(ensemble.heads.families))
    families = keras.tree.map_structure(lambda family: family.weighted(next(weights)), families)
    ensemble.heads = Outputs(families, ensemble.heads.names, losses, loss_weights)
    ensemble.members.names = names or ensemble.members.names
    return ensemble


def layers_with_own_state(network):
    """Those that save more than weights, which the ensemble saves: vocabularies, and what classes
    of the user's write themselves."""
    return [layer for layer in flatten_layers(network) if _has_own_state(layer)]


def refuse_other_files(filepath, kwargs):
    """ValueError for formats that cannot hold an ensemble."""
    suffix = os.path.splitext(str(filepath))[1]
    if suffix in (".h5", ".hdf5") or kwargs.get("save_format") == "h5":
        raise ValueError(
            f"An ensemble is saved to a `.keras` file. Received: filepath={str(filepath)!r}. Write "
            "`ensemble.save('ensemble.keras')`, or `export` a SavedModel."
        )


def _serialized(network):
    """Without optimizer and loss: the ensemble is trained already."""
    try:
        serialized = keras.saving.serialize_keras_object(network)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "To save the ensemble, its network must be serialisable. Received: "
            f"{type(network).__name__} '{network.name}', which is not ({error}). Implement "
            "`get_config`, or use `export`, which needs no config."
        ) from error
    serialized.pop("compile_config", None)
    return serialized


def _rebuilt(serialized, lora, custom_objects=None):
    serialized = copy.deepcopy(serialized)  # Keras takes out what it has read
    network = keras.saving.deserialize_keras_object(serialized, custom_objects=custom_objects)
    layers = flatten_layers(network)
    for index, rank, alpha in lora:
        if not layers[index].lora_enabled:
            layers[index].enable_lora(rank, lora_alpha=alpha)
    return network


def _lora_of(network):
    """Place, rank and alpha of the layers with LoRA, which a backbone's config does not hold."""
    layers = enumerate(flatten_layers(network))
    return [
        [index, layer.lora_rank, getattr(layer, "lora_alpha", None)]
        for index, layer in layers
        if getattr(layer, "lora_enabled", False)
    ]


def _check_that_it_comes_back(network, serialized, lora):
    classes = {type(layer).__name__: type(layer) for layer in flatten_layers(network)}
    try:
        with unsafe_deserialization():
            found = _rebuilt(serialized, lora, classes)
    except Exception:  # what a file needs beside it, such as `custom_objects`, is known on loading
        return
    shapes, expected = (
        [tuple(v.shape) for v in named_weights(model).values()] for model in (found, network)
    )
    if shapes != expected:
        raise ValueError(
            "To save the ensemble, the config of its network must give a network with the same "
            f"weights. Received: {type(network).__name__} '{network.name}', of "
            f"{len(expected)} weights, whose config gives {len(shapes)}. Implement `get_config` "
            "and `build`, or use `export`, which needs no config."
        )


def _has_own_state(layer):
    if hasattr(layer, "save_assets"):
        return True
    if isinstance(layer, keras.Model):
        return False
    methods = (getattr(type(layer), name) for name in ("save_own_variables", "load_own_variables"))
    return any(not method.__module__.startswith("keras.") for method in methods)


def _serialized_loss(family, loss):
    """Of outputs without a likelihood, which are scored by it."""
    if family.has_likelihood or loss is None:
        return None
    return keras.saving.serialize_keras_object(keras.losses.get(loss))


def _loss(serialized, custom_objects):
    if serialized is None:
        return None
    try:
        found = keras.losses.deserialize(serialized, custom_objects)
    except (TypeError, ValueError):
        return None
    return found if callable(found) else None  # a name that is not registered: `evaluate` says it
