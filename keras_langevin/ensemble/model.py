"""Posterior samples as one Keras model: the average of the members' predictions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops, tree

from keras_langevin import arguments, keras_arguments
from keras_langevin.ensemble.arviz_export import to_arviz
from keras_langevin.ensemble.batches import BatchedModel
from keras_langevin.ensemble.export import export_saved_model, signature_of
from keras_langevin.ensemble.members import (
    default_batch_size,
    default_member_batch_size,
    own_copy,
    take_constants,
)
from keras_langevin.ensemble.metrics import metrics_of_probabilities
from keras_langevin.ensemble.options import (
    checked_chains,
    checked_members,
    checked_options,
    checked_quantiles,
)
from keras_langevin.ensemble.samples import stack_samples
from keras_langevin.keras_internals import data_in_memory
from keras_langevin.predictive import at_least_float32, resolve_families
from keras_langevin.statistics import untracked
from keras_langevin.weights import named_weights

QUANTILES = (0.05, 0.5, 0.95)


@keras.saving.register_keras_serializable("keras_langevin")
class BayesianEnsembleModel(BatchedModel):
    """The posterior predictive of a network: many weight samples, one `keras.Model`.

    p(y | x, data) ≈ (1/M) Σ_s p(y | x, θ_s)

    averages the members' DENSITIES: probabilities for classes and for yes or no (never
    logits), Gaussians for real numbers. `predict` and calling the model give its mean.

    What the outputs mean comes from the loss `model` was compiled with, or from `output`:

    | `output` | compiled loss | one member says |
    |---|---|---|
    | `"logits"` | (sparse) categorical crossentropy, `from_logits=True` | softmax |
    | `"probabilities"` | the same, `from_logits=False` | as it is, must sum to 1 |
    | `"binary_logits"` | binary crossentropy, `from_logits=True` | sigmoid of each unit |
    | `"binary_probabilities"` | the same, `from_logits=False` | each unit as it is |
    | `"mean"` | mean squared error, `GaussianNLL(stddev)` | N(outputs, `noise_stddev`²) |
    | `"mean_and_log_scale"` | `GaussianNLL()` | [means, log σ], two halves of the last axis |

    The mean squared error of d outputs stands for the noise variance d / 2, since `num_data`
    times it is the negative log likelihood of that variance. Train with
    `keras_langevin.losses.GaussianNLL(stddev)` where the noise is known to be another.

    Members are evaluated by one compiled function, `member_batch_size` at a time. The ensemble
    owns a copy of the network: training `model` on does not change it. (A model that cannot be
    cloned from its config, or has lookup tables, is used as it is, and must not be rebuilt.)
    Weights that the samples carry beside the parameters (moving averages of
    `BatchNormalization`) belong to each member. Layers run with `training=False`.

    Args:
        model: The built `keras.Model` whose weights were sampled.
        samples: Iterable of mappings from weight name to array (a `SampleStore`), holding all
            weights or the parameters alone (the others are then the model's); or of lists of
            arrays in the order of `model.trainable_variables`.
        output: One of the names above, or a structure of them like the model's outputs. Not
            needed when the compiled loss says it; must then agree.
        noise_stddev: For `output="mean"`: the standard deviation of the noise in the units of
            y, or `"mse"` for what the mean squared error stands for.
        member_batch_size: Members evaluated at once, >= 1. More need more memory, for the
            activations of that many members. Defaults to all of them for small networks and 1
            (members in turn) for large ones, where a matrix product fills the machine; and to 1
            where layers do not vectorise well: recurrent ones on TensorFlow (slow to compile)
            and convolutions on torch (`torch.vmap` refuses some). A layer of yours that cannot
            be vectorised works with 1.
        chains: Number of the chain of each member, integers >= 0 of shape `(members,)`. By
            default the `chain` of the samples, 0 where they have none.
        **kwargs: `name`, `trainable` and `dtype`, as of every `keras.Model`.

    Attributes:
        chains: As the argument, a NumPy array.

    Raises:
        ValueError: If there are no samples, one does not fit the model (names or number, shapes)
            or is not finite, the meaning of the outputs is not known or said in two ways, or
            `chains` does not have one number for each sample.

    Example:

    ```python
    import keras, numpy as np
    import keras_langevin as kl

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    samples = [[np.random.normal(size=(4, 3)), np.zeros(3)] for _ in range(20)]
    ensemble = kl.BayesianEnsembleModel(model, samples, output="logits")
    x = np.random.normal(size=(5, 4))
    ensemble.predict(x).shape  # (5, 3), rows sum to 1
    ensemble.predict_members(x).shape  # (20, 5, 3)
    ensemble.predict_uncertainty(x)["epistemic"]  # (5,) nats
    ensemble.export("served_model")
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        samples: Iterable,
        output=None,
        noise_stddev=None,
        member_batch_size: int | None = None,
        chains: Iterable[int] | None = None,
        **kwargs,
    ):
        keras_arguments.built_model("model", model)
        kwargs = checked_options(output, noise_stddev, member_batch_size, **kwargs)
        families = resolve_families(model, output, noise_stddev)
        super().__init__(autocast=False, **kwargs)
        if hasattr(model, "output_names"):
            self.output_names = list(model.output_names)
        # Not through `__setattr__`: the member's own weights are not the ensemble's.
        self.__dict__["_member"] = own_copy(model)
        self._families = _Box(families)
        self._views = _Box({})
        self._sampled = _Box((None, None))
        self._gives_outputs = False
        with untracked(model):
            labels, arrays = stack_samples(model, samples)
            self.chains = checked_chains(labels if chains is None else chains, len(labels))
            self._stacks = [
                self.add_weight(
                    shape=array.shape,
                    initializer=lambda shape, dtype, a=array: ops.convert_to_tensor(a, dtype),
                    dtype=weight.dtype,
                    trainable=False,
                    autocast=False,
                    name=name.replace("/", "_"),
                )
                for (name, weight), array in zip(named_weights(model).items(), arrays, strict=True)
            ]
        if self._member is not model:
            take_constants(self._member, [stack[0] for stack in self._stacks])
        if member_batch_size is None:
            member_batch_size = default_member_batch_size(self._member, self.num_members)
        self.member_batch_size = min(member_batch_size, self.num_members)
        self.built = True
        metrics, weighted_metrics = metrics_of_probabilities(model, tree.flatten(families))
        self.compile(metrics=metrics, weighted_metrics=weighted_metrics)

    def remember_sampled(self, model, batch_size):
        """What `report` looks at to judge the sampler: the trained model, and B of its `fit`."""
        self._sampled = _Box((model, batch_size))

    @property
    def sampled_model(self):
        """The model whose optimizer drew the samples, None where that is not known."""
        return self._sampled.content[0]

    @property
    def sampled_batch_size(self):
        return self._sampled.content[1]

    @property
    def num_members(self) -> int:
        """Number of posterior samples."""
        return self._stacks[0].shape[0]

    def split_chains(self, members) -> list:
        """Parts an array of members by chain, as `kl.diagnostics` takes it.

        >>> draws = ensemble.split_chains(ensemble.predict_members(x_probe))
        >>> kl.diagnostics.r_hat(draws).max()

        Args:
            members: Array of shape `(members, ...)`, or a structure of such, as from
                `predict_members`.

        Returns:
            A list with one array (or structure) `(members of the chain, ...)` for each chain,
            in the order of `np.unique(ensemble.chains)`.

        Raises:
            ValueError: If an array does not have one entry for each member.
        """

        members = checked_members(members, self.num_members)

        def of(chain):
            return tree.map_structure(lambda array: array[self.chains == chain], members)

        return [of(chain) for chain in np.unique(self.chains)]

    # ------------------------------------------------------------------ inside a step

    def call(self, inputs):
        """The posterior predictive mean: probabilities, or the mean of the members' means."""
        if self._gives_outputs:
            return self.member_outputs(inputs)
        return self._average(inputs)

    def member_outputs(self, inputs):
        """What each member's network returns, tensors of shape `(members, batch, ...)`."""
        first = self._outputs_of(inputs, 0, self._first_size)
        if not self._num_chunks:
            return first
        rest = ops.map(
            lambda i: self._outputs_of(inputs, self._chunk_start(i), self.member_batch_size),
            ops.arange(self._num_chunks, dtype="int32"),
        )
        size = self._num_chunks * self.member_batch_size
        return tree.map_structure(
            lambda one, chunks: ops.concatenate(
                [one, ops.reshape(chunks, (size, *ops.shape(chunks)[2:]))]
            ),
            first,
            rest,
        )

    def _average(self, inputs):
        """Sums one chunk after the other, so that memory does not grow with the members."""

        def sums(start, size):
            outputs = self._outputs_of(inputs, start, size)
            return self._each(lambda family, o: ops.sum(family.mean(o), axis=0), outputs)

        def add_chunk(i, totals):
            chunk = sums(self._chunk_start(i), self.member_batch_size)
            return [total + one for total, one in zip(totals, chunk, strict=True)]

        totals = sums(0, self._first_size)
        if self._num_chunks:
            totals = ops.fori_loop(0, self._num_chunks, add_chunk, totals)
        return self.packed([total / self.num_members for total in totals])

    # The first chunk takes what is left over, and the loop starts from its result.

    @property
    def _first_size(self):
        return self.num_members % self.member_batch_size or self.member_batch_size

    @property
    def _num_chunks(self):
        return (self.num_members - self._first_size) // self.member_batch_size

    def _chunk_start(self, index):
        return self._first_size + index * self.member_batch_size

    def _outputs_of(self, inputs, start, size):
        """Outputs of the members from `start` on, shape `(size, batch, ...)`, float32 or wider."""
        stacks = [ops.convert_to_tensor(stack) for stack in self._stacks]
        with untracked(self._member):
            if size == 1:  # by an index, which copies nothing
                outputs = self._outputs_with(inputs, [stack[start] for stack in stacks])
                return tree.map_structure(lambda o: ops.expand_dims(o, 0), outputs)
            weights = [
                ops.slice(stack, [start] + [0] * (len(stack.shape) - 1), [size, *stack.shape[1:]])
                for stack in stacks
            ]
            return ops.vectorized_map(lambda w: self._outputs_with(inputs, w), weights)

    def _outputs_with(self, inputs, weights):
        variables = named_weights(self._member).values()
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            outputs = self._member(inputs, training=False)
        return tree.map_structure(at_least_float32, outputs)

    def uncertainties(self, inputs, quantiles):
        """The dicts of `predict_uncertainty` as tensors, one for each output, in a list."""
        outputs = self.member_outputs(inputs)
        return self._each(lambda family, o: family.uncertainty(o, quantiles), outputs)

    def log_densities(self, data):
        """log p(y | x, θ_s) for `data["x"]` and `data["y"]`, shape `(batch, members, ...)`, one
        for each output, in a list."""
        outputs = self.member_outputs(data["x"])
        labels = self.by_output(data["y"])
        found = self._each(lambda family, o, y: family.log_densities(o, y), outputs, labels)
        return [ops.moveaxis(one, 0, 1) for one in found]

    def means_and_log_densities(self, data):
        """For `data["x"]` and `data["y"]` pairs of the predictive mean and log density, one for
        each output, in a list."""
        outputs = self.member_outputs(data["x"])
        labels = self.by_output(data["y"])
        return self._each(
            lambda family, o, y: (ops.mean(family.mean(o), axis=0), family.log_density(o, y)),
            outputs,
            labels,
        )

    def families(self):
        """What each output means, one of `keras_langevin.predictive`, in a list."""
        return tree.flatten(self._families.content)

    def names_of_outputs(self):
        """In the order of the list that `uncertainties` gives."""
        families = self._families.content
        if isinstance(families, dict):
            return sorted(families)
        count = len(tree.flatten(families))
        return getattr(self, "output_names", [f"output_{i}" for i in range(count)])

    def _average_of(self, outputs):
        """From what the members returned to the posterior predictive mean."""
        means = self._each(lambda family, o: ops.mean(family.mean(o), axis=0), outputs)
        return self.packed(means)

    def _each(self, function, outputs, *more):
        """A list of `function(family, output, ...)`, one for each output of the model."""
        families = self._families.content
        try:
            tree.assert_same_structure(families, outputs)
        except ValueError:
            raise ValueError(
                "`output` must have the structure of the model's outputs, "
                f"{tree.map_structure(lambda _: '...', outputs)}. Received: output="
                f"{tree.map_structure(lambda f: f.output, families)} when the ensemble was made."
            ) from None
        flat = (tree.flatten(families), tree.flatten(outputs), *more)
        return [function(*one) for one in zip(*flat, strict=True)]

    # --------------------------------------------------------------------- prediction

    def default_batch_size(self) -> int:
        """Examples that `predict` and the like take at once from arrays, 32 to 1024.

        More for networks with narrow layers, fewer where many members are evaluated at once.
        """
        return default_batch_size(self._member, self.num_members, self.member_batch_size)

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

        def look(inputs):
            members = self._each(lambda family, o: family.members(o), self.member_outputs(inputs))
            return tree.map_structure(lambda m: ops.moveaxis(m, 0, 1), members)

        view = self.view("members", look)
        members = view.predict(x, batch_size, verbose, steps, callbacks)
        members = tree.map_structure(lambda m: np.moveaxis(m, 1, 0), members)
        self._check(members)
        return self.packed(members)

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

        def look(inputs):
            return _move_quantiles(self.uncertainties(inputs, quantiles), ops.moveaxis, 0, 1)

        view = self.view(quantiles, look)
        results = view.predict(x, batch_size, verbose, steps, callbacks)
        results = _move_quantiles(results, np.moveaxis, 1, 0)
        self._check([result["mean"] for result in results])
        return self.packed(results)

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
            axis, in the units of y. In the structure of the model's outputs.

        Raises:
            ValueError: If there are no labels, or they do not fit the outputs.
        """
        if y is None:
            x, y, _ = data_in_memory(x)
        if y is None:
            raise ValueError(
                "`log_likelihood` needs labels. Received: y=None. Pass `log_likelihood(x, y)`."
            )
        view = self.view("log_likelihood", self.log_densities)
        found = view.predict({"x": x, "y": y}, batch_size, verbose, callbacks=callbacks)
        found = [np.moveaxis(one, 1, 0) for one in found]
        return self.packed(found)

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
            `(batch, ...)` and event shape `(d,)`. Its tensors are TensorFlow's on every backend.

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
        families = self._families.content
        mixtures = [
            family.distribution(one, tfp)
            for family, one in zip(tree.flatten(families), self.flat(members), strict=True)
        ]
        return self.packed(mixtures)

    def packed(self, flat):
        """A list with one item for each output, in the structure of the model's outputs."""
        return _packed(self._families.content, flat)

    def flat(self, structure):
        """What `packed` was made of: a list with one item for each output."""
        return _unpacked(self._families.content, structure)

    def _check(self, predictions):
        for family, one in zip(tree.flatten(self._families.content), predictions, strict=True):
            family.check(one)

    def view(self, key, look):
        """A model of the same weights whose `predict` gives `look(inputs)`, kept for next time."""
        views = self._views.content
        if key not in views:
            views[key] = _View(self, look)
        return views[key]

    # -------------------------------------------------------------------- diagnostics

    def weights_by_name(self) -> dict[str, np.ndarray]:
        """The members' weights: from weight name to an array `(members, *weight.shape)`."""
        names = named_weights(self._member)
        return {n: ops.convert_to_numpy(s) for n, s in zip(names, self._stacks, strict=True)}

    def report(
        self,
        x,
        y=None,
        *,
        out_of_distribution=None,
        training_data=None,
        batch_size=None,
        model=None,
        html=None,
        verbose=1,
    ):
        """How good, how sure and how trustworthy the ensemble is, in numbers and in words.

        Predictions (likelihood, calibration, risk and coverage; CRPS and interval coverage for
        real numbers), chains (effective sample size, R-hat, whether more members would help)
        and, where the sampled model is at hand as after `sampler.ensemble()`, the sampler: what
        limits the learning rate, the noise of minibatches, temperatures. The findings say what
        is wrong and what to do about it.

        Args:
            x, y: Data that were not trained on: arrays or nested arrays, or a dataset as `x`
                alone. Positions, and units of yes or no, count as labels of their own.
            out_of_distribution: Inputs of another kind: does uncertainty tell them apart?
            training_data: `(x, y)` that the model was trained on. With it the step size is
                measured on them, and the configurational temperature is, which takes the
                gradient on all of them for up to 50 members. Without it the step size is
                measured on `x` and `y`.
            batch_size: Of the training minibatches, by default that of `fit`; also to predict.
            model: The trained model with its sampling optimizer, where the ensemble does not know
                it.
            html: Path of an HTML file to write: the report with its figures, in one file.
                Needs matplotlib.
            verbose: 1 prints the report, 0 does not.

        Returns:
            A `kl.report.Report`, a mapping from names to numbers (`None` where one could not be
            measured) with `findings` and `save(path)`.

        Example:

        >>> report = ensemble.report(x_test, y_test, html="report.html")
        >>> report["negative_log_likelihood"], report["r_hat"], report.findings[0].title
        """
        from keras_langevin.report import make_report

        _check_report_arguments(training_data, batch_size, model, html, verbose)
        report = make_report(self, x, y, out_of_distribution, training_data, batch_size, model)
        if html is not None:
            report.save(html)
        if verbose:
            print(report)
        return report

    def to_arviz(self, x=None, y=None, weights=(), batch_size=None):
        """The members' predictions, and chosen weights, as ArviZ takes them.

        Weights of a network have symmetries, so that their traces and R-hat say little; look at
        predictions for a few probe inputs. With `y` their log-likelihoods come along, for
        `arviz.loo` and `arviz.compare`.

        Args:
            x: Probe inputs, as in `predict`; `None` leaves predictions out. Some dozens are
                plenty: every number of every prediction becomes a quantity of its own.
            y: Their labels, for the log-likelihoods.
            weights: Patterns (`re.search`) of names of weights to include, such as
                `["dense/bias"]`; none by default.
            batch_size: As in `predict`.

        Returns:
            `arviz.InferenceData` with ArviZ 0.x, `xarray.DataTree` with 1.x. Group `posterior`:
            `prediction`, dimensions `(chain, draw, example, ...)`, what `predict_members` gives
            (for predicted noise `prediction_mean` and `prediction_stddev`; `prediction_<output>`
            where there are several), and the weights, with "." for "/" in their names. Groups
            `log_likelihood` and `observed_data`: `y`.

        Raises:
            ImportError: If ArviZ is not installed.
            ValueError: If there is nothing to convert.

        Example:

        >>> data = ensemble.to_arviz(x_test[:20], y_test[:20])
        >>> arviz.summary(data, kind="diagnostics")
        """
        if y is not None and x is None:
            raise ValueError("`y` must come with its `x`. Received: x=None and y.")
        return to_arviz(self, x, y, weights, batch_size)

    # --------------------------------------------------------------------- evaluation

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
        self._views = _Box({})
        super().compile(
            optimizer=None,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )

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
        self._gives_outputs = True
        try:
            yield
        finally:
            self._gives_outputs = False

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=False):
        """Negative log predictive density of a batch; `y_pred` is what the members returned."""
        if y is None:
            raise ValueError("`evaluate` needs labels. Received: y=None. Pass `evaluate(x, y)`.")

        labels = self.by_output(y)
        densities = self._each(
            lambda family, outputs, y: family.log_density(outputs, ops.convert_to_tensor(y)),
            y_pred,
            labels,
        )
        return self.mean_loss(densities, sample_weight)

    def mean_loss(self, log_densities, sample_weight):
        """Minus their averages over a batch, added up; `log_densities` has one for each output."""
        weights = self.by_output(sample_weight)
        average = _Average(name="average")
        return sum(
            average(-one, -one, sample_weight=weight)
            for one, weight in zip(log_densities, weights, strict=True)
        )

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if self._gives_outputs:
            y_pred = self._average_of(y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def by_output(self, value):
        """Labels or weights as a list, one for each output."""
        families = self._families.content
        if not tree.is_nested(value):
            return [value] * len(tree.flatten(families))
        if isinstance(value, dict) and not isinstance(families, dict):
            return [value[name] for name in self.names_of_outputs()]
        return tree.flatten(value)

    def fit(self, *args, **kwargs):
        """Not supported: an ensemble is made of finished samples."""
        raise NotImplementedError(
            "A BayesianEnsembleModel is not trainable. Train the network with "
            "`model.fit(..., callbacks=[PosteriorSampler(...)])` and make a new ensemble."
        )

    train_on_batch = fit

    # ----------------------------------------------------------------- saving, serving

    def get_config(self):
        member = self._member
        try:
            with untracked(member):
                serialized = keras.saving.serialize_keras_object(member)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ValueError(
                "To save the ensemble, its network must be serialisable. Received: "
                f"{type(member).__name__} '{member.name}', which is not ({error}). Implement "
                "`get_config`, or use `export`, which needs no config."
            ) from error
        families = self._families.content
        return {
            **super().get_config(),
            "model": serialized,
            "num_members": self.num_members,
            "output": tree.map_structure(lambda f: f.output, families),
            "noise_stddev": tree.map_structure(lambda f: f.noise_stddev, families),
            "member_batch_size": self.member_batch_size,
            "chains": self.chains.tolist(),
        }

    def load_own_variables(self, store):
        super().load_own_variables(store)
        take_constants(self._member, [stack[0] for stack in self._stacks])

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        model = keras.saving.deserialize_keras_object(
            config.pop("model"), custom_objects=custom_objects
        )
        zeros = {name: np.zeros(v.shape) for name, v in named_weights(model).items()}
        samples = [zeros] * config.pop("num_members")  # to be filled from the weights' file
        return cls(model, samples, **config)

    def export(
        self,
        filepath: str | os.PathLike,
        format: str = "tf_saved_model",
        verbose=None,
        input_signature=None,
        quantiles=QUANTILES,
        **kwargs,
    ):
        """Writes the ensemble for serving, without this package.

        The TensorFlow SavedModel has two endpoints, for any batch size: `serve`, the posterior
        predictive mean, and `predict_uncertainty`, the dict of the method of that name, with
        `"<output name>_"` before each key where the model has several outputs.

        >>> served = tf.saved_model.load("served_model")
        >>> served.serve(x), served.predict_uncertainty(x)["epistemic"]

        Args:
            filepath: Folder (or file, in other formats) to write.
            format: `"tf_saved_model"`, on the TensorFlow and JAX backends; any other format of
                `keras.Model.export`, with the mean alone.
            verbose: As in `keras.Model.export`.
            input_signature: Shapes and types of the inputs; needed for a subclassed model that
                does not know its own.
            quantiles: As in `predict_uncertainty`.
            **kwargs: As in `keras.Model.export`.

        Raises:
            ValueError: For a SavedModel on the torch backend.
        """
        quantiles = checked_quantiles(quantiles)
        if input_signature is None:
            input_signature = signature_of(self._member)
        if format == "tf_saved_model":
            export_saved_model(self, filepath, input_signature, quantiles, verbose, **kwargs)
        else:
            super().export(filepath, format, verbose, input_signature, **kwargs)


class _View(BatchedModel):
    """`predict` of something else than the mean, by Keras' own loop over batches."""

    def __init__(self, ensemble, look):
        super().__init__(autocast=False, name="ensemble_view")
        self.ensemble = ensemble
        self.look = look
        self.built = True
        self.steps_per_execution = ensemble.steps_per_execution
        self.run_eagerly = ensemble.run_eagerly
        self.jit_compile = ensemble.jit_compile

    def default_batch_size(self):
        return self.ensemble.default_batch_size()

    def call(self, inputs):
        return self.look(inputs)


class _Box:
    """Keeps its content out of what Keras tracks and saves with a model."""

    def __init__(self, content):
        self.content = content


class _Average(keras.losses.Loss):
    """Keras' own mean over a batch, so that `sample_weight` means here what it means elsewhere."""

    def call(self, y_true, y_pred):
        return y_pred


def _packed(structure, flat):
    """`flat`, in the order of `tree.flatten`, in the structure; its items may be nested."""
    items = iter(flat)
    return tree.map_structure(lambda _: next(items), structure)


def _unpacked(structure, packed):
    """Undoes `_packed`."""
    flat = []
    tree.map_structure_up_to(structure, flat.append, packed)
    return flat


def _check_report_arguments(training_data, batch_size, model, html, verbose):
    is_pair = isinstance(training_data, (tuple, list)) and len(training_data) == 2
    if training_data is not None and not is_pair:
        raise ValueError(
            "`training_data` must be a pair `(x, y)`, or None. Received: training_data="
            f"{arguments.shorten(training_data)}"
        )
    if batch_size is not None:
        arguments.integer("batch_size", batch_size, at_least=1)
    if model is not None:
        keras_arguments.built_model("model", model)
    if html is not None:
        arguments.path("html", html)
    arguments.verbosity("verbose", verbose)


def _move_quantiles(results, moveaxis, source, destination):
    return [
        {
            key: moveaxis(value, source, destination) if key == "quantiles" else value
            for key, value in result.items()
        }
        for result in results
    ]
