"""What a likelihood says about a model's outputs: the base of all families."""

import copy
import math

from keras import ops, tree

from keras_langevin.losses import aligned_targets
from keras_langevin.predictive.entropy import entropy_parts, log_mean_exp
from keras_langevin.predictive.mixture import equal_mixture, members_last
from keras_langevin.predictive.quality_of_samples import report_of_samples
from keras_langevin.predictive.quantiles import count_quantiles, inverse_cdf, mixture_quantiles


class Family:
    """One likelihood p(y | outputs): what the outputs mean, for an ensemble and for its samplers.

    To add a likelihood of your own, write a subclass and register it with
    `kl.predictive.register_family`; `examples/add_a_likelihood.py` is a whole one. Outputs have
    the shape `(members, batch, ..., units)`, or no axis of members, or more axes in front: write
    elementwise functions in `keras.ops`. Parameters are what `parameters` makes of the outputs.

    | method | who needs it | without it |
    |---|---|---|
    | `parameters(outputs)` | all | an error |
    | `log_likelihood(outputs, y)` | all | an error |
    | `mean(parameters)` | all | an error |
    | `variance(parameters)` | `predict_uncertainty`, `report` | an error |
    | `fisher_scores(outputs, draws)` | `fisher="model"`, `kl.NGD`, `kl.SNGD` | an error |
    | `cdf(parameters, y)` | quantiles of real numbers | an error; counts need none |
    | `sample(parameters, generator)` | coverage in `report` | the inverse of `cdf`, or no rows |
    | `entropy(mean)` | `predict_uncertainty` | uncertainty is split into variances |
    | `guess(y)` | `report` | no row for blind guessing |
    | `component(parameters, tfp)` | `predictive_distribution` | an error |
    | `check(parameters)` | all | everything is taken |
    | `counted(y, outputs)` | losses that leave labels out | all labels count |
    | `from_loss(loss)`, `options` | losses with arguments | the family has no arguments |

    Class attributes:
        output: The name that `output=` takes. (A family of several names, and an object's name,
            see `choices`.)
        meaning: What it means, in a few words.
        impossible_activations: Those of `"linear"`, `"sigmoid"`, `"softmax"` that the last layer
            cannot have.
        support: `"real numbers"`, `"counts"` for 0, 1, 2, ..., or `"classes"`, which have no order.
        sums_units: Whether the numbers of the last axis are one label together, so that their
            log-likelihoods add up, as in `kl.losses.GaussianNLL`; or labels of their own, whose
            average the loss takes, as Keras' losses do.
        has_likelihood: False where the outputs are no distribution of y, so that there are a
            mean and a spread of the members, and no density.
        loss_sets_scale: Whether the scale of the noise is what the loss stands for, so that a
            weight of the loss, or a sum in place of its mean, would be another scale.
        loss_weight: The factor of the loss in `compile(loss_weights=...)`, by which such a scale
            shrinks.
        noise_stddev: Of a `Gaussian`; None elsewhere.
    """

    output = None
    meaning = ""
    impossible_activations = ()
    support = "real numbers"
    sums_units = True
    has_likelihood = True
    loss_sets_scale = False
    loss_weight = 1.0
    noise_stddev = None

    @classmethod
    def choices(cls):
        """From each name that `output=` takes to its meaning."""
        return {cls.output: cls.meaning}

    @classmethod
    def from_name(cls, output, **options):
        """The family of one of these names, with what `options` says."""
        return cls(**options)

    @classmethod
    def from_loss(cls, loss):
        """The family of a registered loss as it was compiled, an object or a function; None where
        its meaning is not certain."""
        return cls()

    @property
    def options(self):
        """What the name does not say: the arguments that `from_name` makes this family of again,
        a dict of what JSON can hold, without those that have their default."""
        return {}

    def for_rank(self, rank):
        """The same family, for outputs of that many axes, the batch's among them."""
        return self

    # ------------------------------------------------------------------ what a family states

    def parameters(self, outputs):
        """What a member says: a tensor, or a dict of tensors. `predict_members` gives it."""
        raise self.missing("parameters(outputs)", "everything")

    def log_likelihood(self, outputs, y):
        """log p(y | outputs) of each number by itself, constants included, shaped as `y`."""
        raise self.missing("log_likelihood(outputs, y)", "everything")

    def mean(self, parameters):
        """E[y], shape `(..., units)`; where a loss has the model predict a median, that."""
        raise self.missing("mean(parameters)", "everything")

    def variance(self, parameters):
        """Var[y], shaped as the mean."""
        raise self.missing("variance(parameters)", "`predict_uncertainty`")

    def entropy(self, mean):
        """Entropy in nats of the distribution that has this mean, or None.

        Only for families whose average over members is of the family too (classes, yes or no):
        uncertainty is then split into entropies, elsewhere into variances.
        """
        return None

    def cdf(self, parameters, y):
        """P(Y <= y) of each number by itself."""
        raise self.missing(
            "cdf(parameters, y)", "`predict_uncertainty`, unless it is asked for `quantiles=()`,"
        )

    def sample(self, parameters, generator):
        """One y for each member and number, NumPy, shaped as the mean.

        Args:
            parameters: Of the members, NumPy: what `predict_members` gives.
            generator: A `numpy.random.Generator`.
        """
        if not self.can_sample:
            raise self.missing("sample(parameters, generator)", "drawing y")
        parameters = tree.map_structure(ops.convert_to_tensor, parameters)
        mean = self.mean(parameters)
        levels = ops.convert_to_tensor(generator.uniform(size=tuple(mean.shape)), mean.dtype)
        return ops.convert_to_numpy(inverse_cdf(self, parameters, levels))

    def fisher_scores(self, outputs, draws):
        """R·draws for a root R of Λ = E[∇log p ∇log pᵀ], the Fisher information of the outputs.

        Λ is that of one label: the derivative is by `outputs` of one model, shape
        `(batch, ..., units)`, the expectation over y from the model. `draws` have mean 0 and
        variance 1, and more axes in front. Where each number has its own likelihood this is
        `draws * sqrt(Λ)`; with the mean μ as output, Λ = 1 / Var[y], and with f(μ),
        Λ = (dμ/df)² / Var[y], for every exponential family.
        """
        raise self.missing("fisher_scores(outputs, draws)", 'a sampler with fisher="model"')

    def guess(self, y):
        """Nats per label of the best constant prediction for the labels `y`, a tensor; None if not
        known."""
        return None

    def component(self, parameters, tfp):
        """The members' distributions, of TensorFlow Probability.

        Args:
            parameters: NumPy, with the members' axis last, or before the units where these are
                one label together (`sums_units`) and so the event's axis.
            tfp: The module.
        """
        raise self.missing("component(parameters, tfp)", "`predictive_distribution`")

    def check(self, parameters):
        """Raise ValueError where predictions, NumPy, cannot be what the model declares."""

    def counted(self, y, outputs):
        """Which labels count, booleans with the shape of `log_density(outputs, y)`, whose entries
        are 0 where one does not; None where all do."""
        return None

    # ------------------------------------------------------------------ what follows from it

    def means(self, outputs):
        """E[y] of each member, shape `(members, batch, ..., units)`."""
        return self.mean(self.parameters(outputs))

    def moments_of(self, parameters):
        """Means and variances, NumPy in and out."""
        parameters = tree.map_structure(ops.convert_to_tensor, parameters)
        found = self.mean(parameters), self.variance(parameters)
        return [ops.convert_to_numpy(moment) for moment in found]

    def log_densities(self, outputs, y):
        """log p(y | outputs) of each member, shape `(members, batch, ...)`."""
        found = self.log_likelihood(outputs, self.aligned(y, outputs))
        is_sum = self.sums_units and len(found.shape) > 2  # without units there is nothing to sum
        return ops.sum(found, axis=-1) if is_sum else found

    def log_density(self, outputs, y):
        """log of the members' average density, shape `(batch, ...)`."""
        return log_mean_exp(self.log_densities(outputs, y))

    def aligned(self, y, outputs):
        """Labels in the shape and type of the members' means; see `aligned_targets`."""
        return aligned_targets(y, self.means(outputs)[0])

    def uncertainty(self, outputs, quantiles):
        """What `predict_uncertainty` gives, a dict of tensors.

        Variances by the law of total variance: Var[y] = E[Var[y | member]] + Var[E[y | member]].
        """
        parameters = self.parameters(outputs)
        mean = self.mean(parameters)
        average = ops.mean(mean, axis=0)
        result = {"mean": average}
        if type(self).entropy is not Family.entropy:
            result.update(entropy_parts(mean, self.entropy))
        else:
            aleatoric = ops.mean(self.variance(parameters), axis=0)
            epistemic = ops.mean(ops.square(mean - average), axis=0)
            total = aleatoric + epistemic
            result.update(total=total, aleatoric=aleatoric, epistemic=epistemic)
            result["stddev"] = ops.sqrt(total)
        if quantiles:
            result["quantiles"] = self.quantiles(outputs, quantiles)
        return result

    def quantiles(self, outputs, levels):
        """Of y under the equal mixture of the members, shape `(len(levels), batch, ..., units)`."""
        parameters = self.parameters(outputs)
        if self.support == "counts":
            return count_quantiles(self, outputs, parameters, levels)
        return mixture_quantiles(self, parameters, levels)

    def num_labels(self, outputs):
        """Labels in one example, over which the loss takes a mean."""
        return math.prod(outputs.shape[1:-1] if self.sums_units else outputs.shape[1:])

    def distribution(self, parameters, tfp):
        """The equal mixture of the members, of TensorFlow Probability; `parameters` are NumPy."""
        event_axes = int(self.sums_units)
        moved = tree.map_structure(lambda p: members_last(p, event_axes), parameters)
        return equal_mixture(tfp, self.component(moved, tfp))

    def report(self, parameters, y, outside=None, weights=None):
        """What a report says of the predictions beside their likelihood.

        Args:
            parameters: Of the members, NumPy: what `predict_members` gives.
            y: The labels.
            outside: Parameters for inputs of another kind, or None.
            weights: How much each label counts, NumPy numbers >= 0 with the shape of the labels
                or of their first axes; None where all count alike. (A family without this
                argument is asked for labels that do.)

        Returns:
            A list of `kl.report.Row`, and a list of figures: pairs of a caption and a function
            that draws on matplotlib Axes.
        """
        return report_of_samples(self, parameters, y, weights)

    def weighted(self, loss_weight):
        """The family of a loss with a factor, where the loss sets its scale; else itself."""
        if not self.loss_sets_scale or loss_weight in (None, 1):
            return self
        found = copy.copy(self)
        found.loss_weight = float(loss_weight)
        return found

    # ------------------------------------------------------------------------ small helpers

    @property
    def can_sample(self):
        """Whether `sample` gives something."""
        own = type(self)
        can_invert = own.cdf is not Family.cdf and self.support != "counts"
        return own.sample is not Family.sample or can_invert

    def missing(self, method, purpose):
        """The error for a method that is not written."""
        return NotImplementedError(
            f"`{type(self).__name__}` must implement `{method}`, which {purpose} needs."
        )
