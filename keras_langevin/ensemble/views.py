"""Other predictions of the same members: what `predict` gives, by another function."""

from keras_langevin.ensemble.batches import BatchedModel


class Views:
    """Models of one ensemble's weights, made once, so that each is compiled once.

    A plain object, so that Keras does not take the models for parts of the ensemble.

    Attributes:
        evaluator: The model whose `evaluate` is the ensemble's.
    """

    def __init__(self, evaluator):
        self.evaluator, self._views = evaluator, {}

    def get(self, ensemble, key, view_fn):
        """The model whose `predict` gives `view_fn(inputs)`, kept under `key`."""
        if key not in self._views:
            self._views[key] = _View(ensemble, view_fn)
        return self._views[key]


class ModelOfEnsemble(BatchedModel):
    """A model that an ensemble runs beside itself, with its weights and batches."""

    def __init__(self, ensemble, name):
        super().__init__(autocast=False, name=name)
        self.ensemble = ensemble
        self.built = True

    def default_batch_size(self):
        return self.ensemble.default_batch_size()


class _View(ModelOfEnsemble):
    """`predict` of something else than the mean, by Keras' own loop over batches."""

    def __init__(self, ensemble, view_fn):
        super().__init__(ensemble, "ensemble_view")
        self.view_fn = view_fn
        self.steps_per_execution = ensemble.steps_per_execution
        self.run_eagerly = ensemble.run_eagerly
        self.jit_compile = ensemble.jit_compile

    def call(self, inputs):
        return self.view_fn(inputs)
