"""What an ensemble predicts: the average of its members, each of them, and how far they differ."""

import numpy as np
from keras import ops, tree

from keras_langevin.ensemble.evaluation import EvaluatedModel
from keras_langevin.ensemble.loss import label_scores
from keras_langevin.ensemble.options import QUANTILES, checked_quantiles
from keras_langevin.keras_internals import data_in_memory


class PredictiveModel(EvaluatedModel):
    """The predictions of many members, for each output by its likelihood.

    A subclass sets `heads`, an `Outputs`, and `members`, a `StackedMembers`.
    """

    # ------------------------------------------------------------------ inside a step

    def call(self, inputs):
        """The posterior predictive mean: probabilities, or the mean of the members' means."""
        return self.heads.packed(self.members.averages(inputs, self.heads.sums))

    def uncertainties(self, inputs, quantiles):
        """The dicts of `predict_uncertainty` as tensors, one for each output, in a list."""
        outputs = self.members.outputs(inputs)
        return self.heads.each(lambda family, o: family.uncertainty(o, quantiles), outputs)

    def label_scores(self, data):
        """For `data["x"]` and `data["y"]` one dict for each output, in a list, empty where it has
        no likelihood: `"log_densities"`, log p(y | x, θ_s) of each member, shape `(batch, members,
        ...)`, 0 for labels that do not count; and `"counted"`, shape `(batch, ...)`, whether they
        do."""
        outputs = self.members.outputs(data["x"])
        return self.heads.each(label_scores, outputs, self.heads.by_output(data["y"]))

    def scores(self, data):
        """For `data["x"]` and `data["y"]` a `score` for each output, in a list."""
        return self.heads.scores(self.members.outputs(data["x"]), data["y"])

    # --------------------------------------------------------------------- prediction

    def default_batch_size(self) -> int:
        """Examples that `predict` and the like take at once from arrays, 32 to 1024.

        More for networks with narrow layers, fewer where many members are evaluated at once.
        """
        return self.members.default_batch_size()

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """The posterior predictive mean of each example, averaged over members.

        Args:
            x, batch_size, verbose, steps, callbacks: As in `keras.Model.predict`, but that
                `batch_size` is `default_batch_size()` where none is given for arrays. So it is in
                `evaluate` and all other methods that predict.

        Returns:
            NumPy array `(batch, ..., classes)` of probabilities, or `(batch, ..., d)` of means,
            in the structure of the model's outputs.

        Raises:
            ValueError: If outputs that were declared as probabilities are not.
        """
        prediction = super().predict(x, batch_size, verbose, steps, callbacks)
        self._check(tree.flatten(prediction))
        return prediction

    def predict_members(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """Every member's own prediction.

        Args:
            x, batch_size, verbose, steps, callbacks: As in `keras.Model.predict`.

        Returns:
            NumPy array `(members, batch, ...)`: probabilities of the classes or of a yes, or
            means; for `output="mean_and_log_scale"` a dict of `"mean"` and `"stddev"`. In the
            structure of the model's outputs.

        Raises:
            ValueError: If outputs that were declared as probabilities are not.
        """

        def batch_first(inputs):
            outputs = self.members.outputs(inputs)
            members = self.heads.each(lambda family, o: family.parameters(o), outputs)
            return tree.map_structure(lambda m: ops.moveaxis(m, 0, 1), members)

        view = self.view("members", batch_first)
        members = view.predict(x, batch_size, verbose, steps, callbacks)
        members = tree.map_structure(lambda m: np.moveaxis(m, 1, 0), members)
        self._check(members)
        return self.heads.packed(members)

    def predict_uncertainty(
        self,
        x,
        quantiles=QUANTILES,
        batch_size=None,
        verbose="auto",
        steps=None,
        callbacks=None,
    ):
        """How uncertain the prediction is, and why: noise in the data, or doubt about weights.

        Classes and yes or no, entropies in nats. `"total"` = H[p(y|x)] of the average,
        `"aleatoric"` = the members' entropies averaged, `"epistemic"` = their difference >= 0,
        the mutual information between y and the weights. Shape `(batch, ...)` without the
        classes' axis; for yes or no each unit by itself.

        Real numbers, variances in the squared units of y. `"aleatoric"` = the mean of the
        members' noise variances, `"epistemic"` = the variance of their means, `"total"` = their
        sum, `"stddev"` = its root. Shape `(batch, ..., d)`.

        Likelihoods of your own, counts among them, like real numbers, unless they state an entropy.

        Args:
            x, batch_size, verbose, steps, callbacks: As in `keras.Model.predict`.
            quantiles: Numbers between 0 and 1, or `()` for none.

        Returns:
            A dict of NumPy arrays, in the structure of the model's outputs: the above, `"mean"`
            as from `predict`, and `"quantiles"` with a first axis of `len(quantiles)`: of the
            members' probabilities; for real numbers of y itself under the mixture of all
            members, noise included.

        Raises:
            ValueError: If a quantile is not between 0 and 1, or outputs that were declared as
                probabilities are not.
        """
        quantiles = checked_quantiles(quantiles)

        def batch_first(inputs):
            return _move_quantiles(self.uncertainties(inputs, quantiles), ops.moveaxis, 0, 1)

        view = self.view(quantiles, batch_first)
        results = view.predict(x, batch_size, verbose, steps, callbacks)
        results = _move_quantiles(results, np.moveaxis, 1, 0)
        self._check([result["mean"] for result in results])
        return self.heads.packed(results)

    def log_likelihood(self, x, y=None, batch_size=None, verbose="auto", callbacks=None):
        """log p(y | x, θ_s) of every member and example, in nats.

        The log of its mean over members (of exp) is the log predictive density of an example,
        and minus the average of that the loss of `evaluate`. See
        `kl.diagnostics.running_log_predictive_density` for how many members are enough.

        Args:
            x, y: As for `evaluate`: arrays or nested arrays; or a dataset as `x` alone, which is
                read into memory.
            batch_size, verbose, callbacks: As in `keras.Model.predict`.

        Returns:
            NumPy array `(members, examples)`, with more axes where an example has several labels:
            positions, or the units of yes or no. For real numbers the density of an example's last
            axis, in the units of y. 0 for labels that do not count: masked positions, and those of
            an `ignore_class`. In the structure of the model's outputs.

        Raises:
            ValueError: If there are no labels, or they do not fit the outputs.
        """
        found = self.scored_labels(x, y, batch_size, verbose, callbacks)
        for family, scored in zip(self.heads, found, strict=True):
            if scored is None:
                family.log_densities(None, None)  # raises, since there is none
        return self.heads.packed([np.moveaxis(one["log_densities"], 1, 0) for one in found])

    def scored_labels(self, x, y=None, batch_size=None, verbose="auto", callbacks=None):
        """`label_scores` of data as for `evaluate`, NumPy; None for outputs without a
        likelihood."""
        if y is None:
            x, y, _ = data_in_memory(x)
        if y is None:
            raise ValueError(
                "`log_likelihood` needs labels. Received: y=None. Pass `log_likelihood(x, y)`."
            )
        if not any(family.has_likelihood for family in self.heads):
            return [None] * len(self.heads.families)
        view = self.view("label_scores", self.label_scores)
        found = view.predict({"x": x, "y": y}, batch_size, verbose, callbacks=callbacks)
        return [one or None for one in found]

    def predictive_distribution(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None
    ):
        """The posterior predictive of each example as a TensorFlow Probability distribution.

        Args:
            x, batch_size, verbose, steps, callbacks: As in `keras.Model.predict`.

        Returns:
            A `tfp.distributions.MixtureSameFamily` of all members with equal weights, in the
            structure of the model's outputs: of `Categorical`, batch shape `(batch, ...)`;
            `Bernoulli`, batch shape `(batch, ..., units)`; or independent `Normal`, batch shape
            `(batch, ...)` and event shape `(d,)`; or of what the `component` of a likelihood of
            your own is. Its tensors are TensorFlow's on every backend.

        Raises:
            ImportError: If TensorFlow Probability is not installed.
        """
        try:
            import tensorflow_probability as tfp
        except ImportError as error:
            raise ImportError(
                "`predictive_distribution` needs TensorFlow Probability: "
                '`pip install "tensorflow-probability[tf]"`. `predict_members` and '
                "`predict_uncertainty` do without it."
            ) from error
        members = self.predict_members(x, batch_size, verbose, steps, callbacks)
        mixtures = [
            family.distribution(one, tfp)
            for family, one in zip(self.heads, self.heads.flat(members), strict=True)
        ]
        return self.heads.packed(mixtures)

    def _check(self, predictions):
        self.heads.check(predictions)


def _move_quantiles(results, moveaxis, source, destination):
    return [
        {
            key: moveaxis(value, source, destination) if key == "quantiles" else value
            for key, value in result.items()
        }
        for result in results
    ]
