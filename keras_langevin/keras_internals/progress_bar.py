"""What the progress bar of a running `fit` shows of an epoch, of which Keras lets one choose
nothing."""

import keras

from keras_langevin.keras_internals.fit import callbacks_of_fit


def adapt_progress_bar(model, phase, hides):
    """Has the bar say the phase behind the number of the epoch, and leave entries of the logs out.
    The logs themselves, which `History` and others read, stay whole.

    Args:
        phase: `phase()` gives words.
        hides: `hides(name, value)` says whether an entry is left out.
    """
    for bar in callbacks_of_fit(model):
        if isinstance(bar, keras.callbacks.ProgbarLogger):
            bar.epochs = _Epochs(bar.epochs, phase)
            bar.on_epoch_end = _with_less(bar, hides)


def _with_less(bar, hides):
    def on_epoch_end(epoch, logs=None):
        shown = {name: value for name, value in (logs or {}).items() if not hides(name, value)}
        type(bar).on_epoch_end(bar, epoch, shown)

    return on_epoch_end


class _Epochs(int):
    """The number of epochs, which prints the phase as well: the bar writes it behind "Epoch 1/"."""

    def __new__(cls, epochs, phase):
        found = super().__new__(cls, epochs)
        found.phase = phase
        return found

    def __format__(self, form):
        return f"{int(self):{form}}: {self.phase()}"
