"""The ensemble's validation metrics while `fit` still samples it."""

from keras_langevin.ensemble import RunningEnsemble
from keras_langevin.sampling.held_out import HeldOutCallback
from keras_langevin.weights import weight_values


class EnsembleValidation(HeldOutCallback):
    """Logs how good the ensemble of the samples stored so far is on validation data.

    At the end of every epoch it adds `val_ensemble_loss`, the negative log predictive density in
    nats, and one `val_ensemble_<name>` for each metric that the model was compiled with, such as
    `val_ensemble_accuracy`: the numbers that `sampler.ensemble().evaluate` would give. Every
    stored sample is evaluated once, and averaged in; when the sampler drops samples (`max_samples`)
    those that stay are evaluated once more. Until the first sample is stored they are the numbers
    of the present weights alone.

    Progress bar, `History`, `CSVLogger` and `TensorBoard` show the values, `EarlyStopping` and
    `ModelCheckpoint` can watch them; put this after the sampler and before those. They need
    `mode="min"` or `"max"`, since Keras does not know the names, and `start_from_epoch=` the
    burn-in, before which there is no ensemble to stop for.

    Args:
        sampler: The `kl.PosteriorSampler` of the same `fit`.
        validation_data: `(x, y)` or `(x, y, sample_weight)` of arrays or nested arrays, or a
            dataset that ends and gives the same batches in the same order every time. By default
            that of `fit`, of an endless one the first `validation_steps` batches; where
            `validation_freq` leaves out epochs, nothing is logged before the first validation.
        batch_size: For arrays; 32 by default, as in `evaluate`. That of `fit`'s own data is its
            `validation_batch_size`.

    Held in memory are the labels and the averaged prediction of every validation example.

    Raises:
        ValueError: In `fit`: if there are no validation data, or they are a generator, which can
            be read once, or a dataset gives other labels or another order the second time; if
            labels are shares of several classes.

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    x = np.random.normal(size=(200, 4)).astype("float32")
    y = (x.sum(-1) > 0).astype("int32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kl.SGLD(1e-2, num_data=150), loss, metrics=["accuracy"])
    sampler = kl.PosteriorSampler(burn_in=5)
    enough = keras.callbacks.EarlyStopping(
        "val_ensemble_loss", min_delta=1e-3, patience=10, mode="min", start_from_epoch=5
    )
    history = model.fit(
        x[:150], y[:150], epochs=100, validation_data=(x[150:], y[150:]), verbose=0,
        callbacks=[sampler, kl.EnsembleValidation(sampler), enough],
    )
    history.history["val_ensemble_accuracy"][-1]  # `val_accuracy` is that of the last point
    ```
    """

    def __init__(self, sampler, validation_data=None, batch_size=None):
        super().__init__(sampler, validation_data, batch_size)
        self._running, self._members = None, []

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._running, self._members = None, []

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if not self.has_data():
            return
        self._running = self._running or RunningEnsemble(self.model)
        self._add_members()
        results = self._running.results()
        logs.update({f"val_ensemble_{name}": value for name, value in results.items()})

    def _add_members(self):
        store = self.sampler.samples
        stored = [facts["position"] for facts in store.facts]
        if not stored or not set(self._members) <= set(stored):
            self._running.forget()
            self._members = []
        if not stored:
            self._running.add(weight_values(self.model), self.batches())
        for index, position in enumerate(stored):
            if position not in self._members:
                if not self._members:
                    self._running.forget()  # the present weights
                self._running.add(store[index], self.batches())
                self._members.append(position)
