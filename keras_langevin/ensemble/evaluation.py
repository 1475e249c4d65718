"""`evaluate` of an ensemble: the loss is the log predictive density, metrics see the average."""

import keras

from keras_langevin.ensemble.batches import BatchedModel
from keras_langevin.ensemble.views import ModelOfEnsemble, Views


class EvaluatedModel(BatchedModel):
    """A model of many members that is evaluated by the density of their mixture.

    A subclass has `heads`, an `Outputs`, and `members`, a `StackedMembers`.
    """

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
        axis. Masks, `ignore_class`, `sample_weight` and `loss_weights` count as in the model's own
        `evaluate`. For `output="values"` it is the compiled loss of the average. It is computed
        from logarithms, so that it stays finite where probabilities underflow.

        Args:
            metrics, weighted_metrics, run_eagerly, steps_per_execution, jit_compile: As in
                `keras.Model.compile`.
        """
        options = {
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
        }
        super().compile(optimizer=None, **options)
        self._views = Views(_Evaluator(self, options))

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

    @property
    def metrics(self):
        """Those that `evaluate` fills."""
        views = getattr(self, "_views", None)
        return super().metrics if views is None else views.evaluator.metrics

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
    ):
        """As `keras.Model.evaluate`, with `default_batch_size()`; see `compile` for the loss."""
        return self._views.evaluator.evaluate(
            x, y, batch_size, verbose, sample_weight, steps, callbacks, return_dict
        )

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """As `keras.Model.test_on_batch`; see `compile` for the loss."""
        return self._views.evaluator.test_on_batch(x, y, sample_weight, return_dict)

    def update_metrics(self, y, scores, sample_weight):
        """All metrics by name, after a batch whose `scores`, one for each output, are at hand."""
        return self._views.evaluator.update_metrics(y, scores, sample_weight)

    def fit(self, *args, **kwargs):
        """Not supported: an ensemble is made of finished samples."""
        raise NotImplementedError(
            "A BayesianEnsembleModel is not trainable. Train the network with "
            "`model.fit(..., callbacks=[PosteriorSampler(...)])` and make a new ensemble."
        )

    train_on_batch = fit


class _Evaluator(ModelOfEnsemble):
    """Keras' own loop of `evaluate`: the loss needs every member's outputs, metrics their average.

    A model of its own, so that calling the ensemble always gives the average, whatever another
    thread evaluates.
    """

    def __init__(self, ensemble, options):
        super().__init__(ensemble, "ensemble_evaluator")
        self.compile(optimizer=None, **options)

    def call(self, inputs):
        return self.ensemble.members.outputs(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=False):
        heads = self.ensemble.heads
        return heads.mean_loss(heads.scores(y_pred, y), y, sample_weight)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return self.update_metrics(y, self.ensemble.heads.scores(y_pred, None), sample_weight)

    def update_metrics(self, y, scores, sample_weight):
        """All metrics by name, after a batch that was scored."""
        average = self.ensemble.heads.average(scores)
        return super().compute_metrics(None, y, average, sample_weight)
