"""What callbacks that validate the samples of a running `fit` have in common."""

import types

import keras

from keras_langevin.arguments import integer, shorten
from keras_langevin.keras_internals import (
    data_batches,
    has_validation_data,
    is_endless,
    validates_on_generator,
    validation_batches_of_fit,
)
from keras_langevin.sampling.posterior_sampler import checked_sampler
from keras_langevin.training_data import training_data


class HeldOutCallback(keras.callbacks.Callback):
    """Stands behind a `kl.PosteriorSampler` and reads validation data, its own or those of `fit`.

    Args:
        sampler, validation_data, batch_size: As of `kl.EnsembleValidation`.
    """

    def __init__(self, sampler, validation_data, batch_size):
        super().__init__()
        self.sampler = checked_sampler(sampler)
        self.validation_data = _checked_data(validation_data)
        if batch_size is not None:
            batch_size = integer("batch_size", batch_size, at_least=1)
        self.batch_size = batch_size

    @property
    def _name(self):
        return type(self).__name__

    def on_train_begin(self, logs=None):
        if self.validation_data is None and validates_on_generator(self.model):
            raise ValueError(
                f"`{self._name}` reads the validation data for every sample. Received: "
                "`fit(validation_data=...)` with a generator, which can be read once. Pass arrays "
                f"or a dataset, to `fit` or as `{self._name}(sampler, validation_data)`."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._epochs_seen = self.sampler.epochs_seen

    def on_epoch_end(self, epoch, logs=None):
        if self.sampler.epochs_seen == self._epochs_seen:
            raise ValueError(
                f"The sampler must be among the callbacks of `fit`, before its `{self._name}`. "
                "Received: an epoch that the sampler has not seen. Use "
                f"`callbacks=[sampler, kl.{self._name}(sampler)]`."
            )

    def has_data(self):
        """Whether there are data at the end of this epoch; `fit` may validate in a later one."""
        if self.validation_data is not None or validation_batches_of_fit(self.model) is not None:
            return True
        if not has_validation_data(self.model):
            raise ValueError(
                f"`{self._name}` must have data to validate on. Received: no validation data, "
                "in `fit` nor here. Pass `fit(..., validation_data=(x, y))`."
            )
        return False

    def batches(self):
        """Of `(x, y, sample_weight)`, an iterator from the first."""
        if self.validation_data is not None:
            return data_batches(self.validation_data, self.batch_size)
        return validation_batches_of_fit(self.model)


def _checked_data(data):
    """A tuple of arrays, a dataset or None, as they are."""
    if isinstance(data, tuple) and len(data) in (2, 3) and data[1] is not None:
        training_data(*data)
        return data
    is_other = isinstance(data, (tuple, list, dict, types.GeneratorType)) or hasattr(data, "shape")
    try:
        if data is not None and not is_other:
            data_batches(data)
            is_other = is_endless(data)
    except Exception:  # whatever the adapters of Keras may raise
        is_other = True
    if is_other:
        raise ValueError(
            "`validation_data` must be `(x, y)` or `(x, y, sample_weight)` of arrays, or a dataset "
            "that ends and can be read again, such as `dataset.take(10)`. Received: "
            f"validation_data={shorten(data)}"
        )
    return data
