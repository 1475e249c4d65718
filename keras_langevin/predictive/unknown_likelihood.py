"""Says at the beginning of a training what an ensemble would say at its end."""

import warnings
import weakref

from keras_langevin.predictive.output import UnknownLikelihood, resolve_families

_WARNED = weakref.WeakKeyDictionary()  # from a model to what was said of it


def warn_of_unknown_likelihood(model, stacklevel=2):
    """One warning for a model whose loss does not say what its outputs mean, once for each loss."""
    try:
        resolve_families(model)
        return
    except UnknownLikelihood as error:
        text = (
            f"No likelihood is known for the outputs of model '{model.name}'. Received: "
            f"{error.received}. It trains all the same; after it write "
            '`sampler.ensemble(output="values")` for the mean and the spread of the members '
            "without a likelihood, or `output=` with the likelihood that the loss stands for, or "
            "give the loss one before by `kl.predictive.register_family`."
        )
    except ValueError as error:
        text = f"No ensemble can be made of model '{model.name}' as it is compiled: {error}"
    if _WARNED.get(model) != text:
        _WARNED[model] = text
        warnings.warn(text, stacklevel=stacklevel)
