"""`evaluate` of an ensemble: the loss is the log predictive density, metrics see the average."""

import contextlib

import keras
from keras import ops

from keras_langevin.ensemble.batches import BatchedModel
from keras_langevin.ensemble.views import Views


class EvaluatedModel(BatchedModel):
    """A model of many members that is evaluated by the density of their mixture.

    A subclass has `heads`, an `Outputs`, and a `call` that returns what the members return while
    `gives_outputs` is True, and their average else.
    """

    gives_outputs = False

    def compile(
        self,
        *,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
    ):
        """Sets the metrics that `evaluate` reports beside the loss.

        The ensemble compiles itself when it is made, with copies of the model's metrics. All
        metrics see probabilities (or means), so they must have `from_logits=False`; functions
        are taken over as they are.

        The loss is fixed. It is the negative log posterior predictive density in nats,
        -log (1/M) Σ_s p(y | x, θ_s), averaged over examples, and over positions and the units
        of yes or no where there are some; for real numbers the density of an example's last
        axis. Outputs of a multi-output model add up, without `loss_weights`. It is computed from
        logarithms, so that it stays finite where probabilities underflow.

        Args:
            metrics, weighted_metrics, run_eagerly, steps_per_execution, jit_compile: As in
                `keras.Model.compile`.
        """
        self._views = Views()
        super().compile(
            optimizer=None,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )

    def view(self, key, view_fn):
        """A model of the same weights whose `predict` gives `view_fn(inputs)`, kept for next
        time."""
        return self._views.get(self, key, view_fn)

    def get_compile_config(self):
        config = super().get_compile_config()
        for name in ("optimizer", "loss", "loss_weights"):
            config.pop(name, None)
        return config

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def test_step(self, *args, **kwargs):
        # The loss needs the members, metrics their average: within a step `call` gives the
        # former, and `compute_metrics` averages.
        with self._giving_outputs():
            return super().test_step(*args, **kwargs)

    @contextlib.contextmanager
    def _giving_outputs(self):
        self.gives_outputs = True
        try:
            yield
        finally:
            self.gives_outputs = False

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=False):
        """Negative log predictive density of a batch; `y_pred` is what the members returned."""
        if y is None:
            raise ValueError("`evaluate` needs labels. Received: y=None. Pass `evaluate(x, y)`.")
        densities = self.heads.each(
            lambda family, outputs, y: family.log_density(outputs, ops.convert_to_tensor(y)),
            y_pred,
            self.heads.by_output(y),
        )
        return self.mean_loss(densities, sample_weight)

    def mean_loss(self, log_densities, sample_weight):
        """Minus their averages over a batch, added up; `log_densities` has one for each output."""
        weights = self.heads.by_output(sample_weight)
        average = _Average(name="average")
        return sum(
            average(-one, -one, sample_weight=weight)
            for one, weight in zip(log_densities, weights, strict=True)
        )

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if self.gives_outputs:
            y_pred = self.heads.average(y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def fit(self, *args, **kwargs):
        """Not supported: an ensemble is made of finished samples."""
        raise NotImplementedError(
            "A BayesianEnsembleModel is not trainable. Train the network with "
            "`model.fit(..., callbacks=[PosteriorSampler(...)])` and make a new ensemble."
        )

    train_on_batch = fit


class _Average(keras.losses.Loss):
    """Keras' own mean over a batch, so that `sample_weight` means here what it means elsewhere."""

    def call(self, y_true, y_pred):
        return y_pred
