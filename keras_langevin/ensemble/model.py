"""Posterior samples as one Keras model: the average of the members' predictions."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable

import keras
import numpy as np
from keras import tree

from keras_langevin import keras_arguments
from keras_langevin.ensemble.arviz_export import to_arviz
from keras_langevin.ensemble.export import export_saved_model
from keras_langevin.ensemble.metrics import metrics_of_probabilities
from keras_langevin.ensemble.options import (
    QUANTILES,
    check_report_arguments,
    checked_chains,
    checked_members,
    checked_options,
    checked_quantiles,
)
from keras_langevin.ensemble.outputs import outputs_of
from keras_langevin.ensemble.own_copy import own_copy
from keras_langevin.ensemble.prediction import PredictiveModel
from keras_langevin.ensemble.saving import (
    config_of,
    layers_with_own_state,
    made_again,
    refuse_other_files,
)
from keras_langevin.ensemble.signature import signature_of
from keras_langevin.ensemble.stacked_members import StackedMembers
from keras_langevin.keras_internals import (
    add_constant_weight,
    flatten_layers,
    layout_along,
    refuse_unreachable_weights,
)
from keras_langevin.predictive import resolve_families
from keras_langevin.statistics import untracked
from keras_langevin.storage.stack_samples import stack_samples
from keras_langevin.weights import named_weights


@keras.saving.register_keras_serializable("keras_langevin")
class BayesianEnsembleModel(PredictiveModel):
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
    | `"values"` | any | numbers without a likelihood: mean, spread and members |

    `"median"` is for `"mae"`, `"huber_center"` for Huber, `"log_normal_median"` for `"msle"`,
    `"rates"` for `"poisson"`; those of `kl.losses` are told there. A likelihood of your own is one
    class, see `kl.predictive.register_family`; `output` then takes its name too.

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
        origin: The `model` whose optimizer drew the samples and the `batch_size` of its `fit`;
            None where they are not known.

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
        self.heads = outputs_of(model, families)
        self.origin = Origin()
        with untracked(model):
            refuse_unreachable_weights(flatten_layers(model))
            names = list(named_weights(model))
            labels, arrays = stack_samples(model, samples)
            self.chains = checked_chains(labels if chains is None else chains, len(labels))
            weights = named_weights(model).items()
            stacks = [
                self._stack(name, weight, array)
                for (name, weight), array in zip(weights, arrays, strict=True)
            ]
        network = own_copy(model)
        self.members = StackedMembers(network, stacks, names, member_batch_size)
        if network is not model:
            self.members.take_constants()
        # So that Keras saves what is neither config nor weights, such as vocabularies; not through
        # `__setattr__`, since the layers' own weights are not the ensemble's.
        self.__dict__["_layers_with_own_state"] = layers_with_own_state(network)
        self.built = True
        metrics, weighted_metrics = metrics_of_probabilities(model, self.heads.families)
        self.compile(metrics=metrics, weighted_metrics=weighted_metrics)

    def _stack(self, name, weight, array):
        """The weight of all members. Where `keras.distribution` splits the network's weights over
        devices, each member's is split alike, and every device has its part of all members."""
        name = name.replace("/", "_")
        layout = layout_along(weight, (None, *range(len(weight.shape))))
        return add_constant_weight(self, name, array, weight.dtype, layout)

    def remember_sampled(self, model, batch_size, drift_clipped=None):
        """What `report` looks at to judge the sampler: the trained model, B of its `fit`, and the
        share of the steps after burn-in whose drift was shortened."""
        self.origin = Origin(model, batch_size, drift_clipped)

    @property
    def num_members(self) -> int:
        """Number of posterior samples."""
        return len(self.members)

    @property
    def member_batch_size(self) -> int:
        """Members that are evaluated at once."""
        return self.members.batch_size

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

    # -------------------------------------------------------------------- diagnostics

    def weights_by_name(self) -> dict[str, np.ndarray]:
        """The members' weights: from weight name to an array `(members, *weight.shape)`."""
        return self.members.arrays()

    def report(
        self,
        x,
        y=None,
        *,
        sample_weight=None,
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
                alone. Positions, and units of yes or no, count as labels of their own; masked
                positions and an `ignore_class` do not count.
            sample_weight: As in `evaluate`: factors of the labels' weight in every number.
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

        check_report_arguments(training_data, batch_size, model, html, verbose)
        data = (x, y, sample_weight)
        report = make_report(self, data, out_of_distribution, training_data, batch_size, model)
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
            `log_likelihood`, `observed_data` and, of likelihoods that can draw, one
            `posterior_predictive` label of every member for each example, for `arviz.plot_ppc`:
            `y`.

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

    # ----------------------------------------------------------------- saving, serving

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """As `keras.Model.save`, to a `.keras` file: the members' weights and the network's config,
        without the model that was trained and its optimizer."""
        refuse_other_files(filepath, kwargs)
        self.get_config()  # or raises, before a file is begun
        return super().save(filepath, overwrite, zipped, **kwargs)

    def quantize(self, mode=None, **kwargs):
        """Not supported: members share one network, and each would need scales of its own."""
        raise NotImplementedError(
            f"A BayesianEnsembleModel cannot be quantized. Received: mode={mode!r}. Use fewer "
            "members (`max_samples` of the sampler), or export and let the server quantize."
        )

    def get_config(self):
        return {**super().get_config(), **config_of(self)}

    def load_own_variables(self, store):
        super().load_own_variables(store)
        self.members.take_constants()

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return made_again(cls, config, custom_objects)

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

        >>> ensemble.export("served_model")
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
            input_signature = signature_of(self.members.network)
        if format == "tf_saved_model":
            export_saved_model(self, filepath, input_signature, quantiles, verbose, **kwargs)
        else:
            with self.members.one_at_a_time():
                super().export(filepath, format, verbose, input_signature, **kwargs)


@dataclasses.dataclass
class Origin:
    """Where samples come from; a plain object, so that Keras does not track the model."""

    model: keras.Model | None = None
    batch_size: int | None = None
    drift_clipped: float | None = None
