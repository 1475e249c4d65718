"""What a model needs before its samples are drawn: weights, a loss, and probes."""

from keras_langevin.keras_internals import (
    build_for_fit,
    flatten_layers,
    inner_optimizer,
    refuse_unreachable_weights,
)
from keras_langevin.optimizers.snapshots import as_sampler
from keras_langevin.predictive import warn_of_unknown_likelihood
from keras_langevin.sampling.checks import check_mean_loss
from keras_langevin.statistics import track_statistics
from keras_langevin.statistics.batch_moments import refuse_batch_moments
from keras_langevin.weights import named_weights


def prepare_model(model, stored):
    """Whether the model is ready: built where it is in `fit`, checked, and tracked.

    Args:
        stored: The `ScheduledStore` of its samples.
    """
    if getattr(model, "optimizer", None) is None:  # `predict` with a model that is not compiled
        return False
    build_for_fit(model)
    if not model.built or not named_weights(model):
        return False
    optimizer = inner_optimizer(model.optimizer)
    if as_sampler(optimizer).num_data is not None:
        check_mean_loss(model)
    stored.check_model(model, optimizer)
    refuse_unreachable_weights(flatten_layers(model))
    refuse_batch_moments(model, getattr(optimizer, "statistics", None))
    warn_of_unknown_likelihood(model, stacklevel=4)
    track_statistics(model, model.optimizer)
    return True


def model_without_weights(model):
    return ValueError(
        f"`PosteriorSampler` must have a model with weights. Received: model '{model.name}' "
        "without any. Give it a layer that has some, and call it on a batch where `fit` cannot "
        "build it."
    )
